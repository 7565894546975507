"""What the benchmarks of training share: a LLaVA of a given size with random weights, images, and records.

LLaVA's own model, dataset and collator on the one side, ours on the other, over the same files. The model's vocabulary
has as many rows as a real one, although its tokenizer knows few words: what a row costs does not depend on its word.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from generated_records import generate

TOKENS = 130 + 336  # of depth maps and of the coordinates of the published frame
LORA = {"r": 16, "lora_alpha": 32, "task_type": "CAUSAL_LM"}
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def add_size_flags(parser: argparse.ArgumentParser) -> None:
    """--width, --layers, --words, --frame and --batch."""
    parser.add_argument("--width", type=int, default=256, help="of the language model's hidden states")
    parser.add_argument("--layers", type=int, default=4, help="of the language model")
    parser.add_argument("--words", type=int, default=32_000, help="rows of the vocabulary beside the new tokens'")
    parser.add_argument("--frame", type=int, default=168, help="side of the square that the tower reads; 14 a patch")
    parser.add_argument("--batch", type=int, default=8, help="records a step")


@dataclass(frozen=True)
class Workshop:
    """Args: folder: everything lies in it; words: rows of the vocabulary beside the new tokens'."""

    folder: Path
    words: int

    @classmethod
    def build(cls, folder: Path, options: argparse.Namespace, *, generations: int, images: int) -> "Workshop":
        """Writes everything.

        Args:
            folder: empty.
            options: of `add_size_flags`.
            generations: images with a map to write down.
            images: images with marked points, each with a chain and a direct question.
        """
        from llava.model import LlavaLlamaForCausalLM

        from llava_aurora.demo.tiny_llava import TinyLlavaConfig, build_tiny_llava
        from llava_aurora.tokens.vocabulary import PerceptionVocabulary, depth_family, pixel_family
        from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig, build_depth_vqvae
        from llava_aurora.vqvae.checkpoint import save_depth_vqvae

        workshop = cls(folder, options.words)
        generate(workshop.records, generations=generations, images=images)
        records = json.loads(workshop.records.read_text())
        workshop._write_images({record["image"] for record in records}, side=options.frame)
        vocabulary = PerceptionVocabulary((depth_family(), pixel_family()))
        texts = [vocabulary.remove_from(turn["value"]) for record in records for turn in record["conversations"]]
        config = TinyLlavaConfig(
            frame=options.frame,
            patch=14,
            vision_layers=4,
            width=options.width,
            layers=options.layers,
            heads=2 ** (max(1, options.width // 64).bit_length() - 1),  # which divides the width of the tower too
            vocabulary=420,
            max_length=2048,
        )
        build_tiny_llava(workshop.base, corpus=texts, config=config, seed=0)
        model = LlavaLlamaForCausalLM.from_pretrained(workshop.base)
        model.resize_token_embeddings(options.words + TOKENS, mean_resizing=False)
        model.save_pretrained(workshop.base)
        save_depth_vqvae(build_depth_vqvae(DepthVQVAEConfig()), workshop.vqvae)
        return workshop

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def vqvae(self) -> Path:
        return self.folder / "vqvae"

    @property
    def records(self) -> Path:
        return self.folder / "train.json"

    def _write_images(self, names: set[str], *, side: int) -> None:
        from PIL import Image

        rng = np.random.default_rng(0)
        for name in sorted(names):
            path = self.folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            coarse.resize((side, side), Image.Resampling.BICUBIC).save(path)

    # --- tokenizer and data -------------------------------------------------------------------------------------------

    def tokenizer(self) -> Any:
        """As LLaVA's train() loads it."""
        from llava import conversation
        from transformers import AutoTokenizer

        conversation.default_conversation = conversation.conv_templates["v1"]
        tokenizer = AutoTokenizer.from_pretrained(
            self.base, use_fast=False, padding_side="right", model_max_length=2048
        )
        tokenizer.pad_token = tokenizer.unk_token
        return tokenizer

    def data_arguments(self, model: Any, *, cached: bool = False) -> Any:
        """What datasets ask for, LLaVA's and ours."""
        return SimpleNamespace(
            image_folder=str(self.folder / "images"),
            image_processor=model.get_vision_tower().image_processor,
            image_aspect_ratio="pad",
            is_multimodal=True,
            mm_use_im_start_end=False,
            image_cache=str(self.folder / "image_cache") if cached else "",
            image_cache_gb=5.0,
            image_orientation="stored",
        )

    # --- models -------------------------------------------------------------------------------------------------------

    def upstream(self, *, tokens: bool, lora: bool, device: str = "cpu", dtype: Any = None) -> tuple[Any, Any]:
        """LLaVA's own model, and its tokenizer.

        Args:
            tokens: add the tokens the usual way, both whole matrices trained; their rows start as ours do.
            lora: train the language model's layers by LoRA instead of whole.
        """
        from llava.model import LlavaLlamaForCausalLM

        from llava_aurora.model.embeddings import RowStart, initial_rows_of, write_rows
        from llava_aurora.tokens import build_kinds
        from llava_aurora.tokens.perception import PerceptionTokens

        tokenizer = self.tokenizer()
        model = self._loaded(LlavaLlamaForCausalLM, device, dtype)
        if tokens:
            settings = self._model_arguments(tokens=True).kind_settings()
            perception = PerceptionTokens.teach(tokenizer, build_kinds(settings, Path()))
            start = RowStart(method="neighbours", features=perception.code_features())
            ids = perception.token_ids()
            write_rows(model, ids=ids, rows=initial_rows_of(model, ids=ids, start=start))
        if lora:
            model = with_lora(model)
            for matrix in (model.get_input_embeddings(), model.get_output_embeddings()):
                matrix.requires_grad_(tokens)
        return model.train(), tokenizer

    def ours(self, *, tokens: bool, lora: bool, device: str = "cpu", dtype: Any = None) -> tuple[Any, Any]:
        """Our model as train() makes it, and its tokenizer; arguments as for `upstream`. With LoRA the rows alone."""
        from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM

        tokenizer = self.tokenizer()
        model = self._loaded(AuroraLlamaForCausalLM, device, dtype)
        wrapped = with_lora(model) if lora else model
        model.initialize_vision_tokenizer(self._model_arguments(tokens=tokens), tokenizer)
        return wrapped.to(device).train(), tokenizer

    def _model_arguments(self, *, tokens: bool) -> Any:
        from llava_aurora.configuration import ModelArguments

        return ModelArguments(
            model_name_or_path=str(self.base),
            mm_use_im_patch_token=False,
            perception_modalities="depth,box" if tokens else "",
            depth_vqvae=str(self.vqvae) if tokens else None,
        )

    def _loaded(self, model_class: Any, device: str, dtype: Any) -> Any:
        from transformers.utils import logging

        logging.set_verbosity_error()
        model = model_class.from_pretrained(self.base, torch_dtype=dtype, attn_implementation="sdpa")
        model.config.use_cache = False
        tower = model.get_vision_tower()
        if not tower.is_loaded:
            tower.load_model()
        tower.requires_grad_(False)
        tower.to(device=device, dtype=dtype)
        return model.to(device)


def with_lora(model: Any) -> Any:
    """LoRA on the linear maps of the language model's layers; the projector is trained whole."""
    from peft import LoraConfig, get_peft_model

    names = [
        name
        for name, _ in model.named_modules()
        if "vision_tower" not in name and name.rpartition(".")[2] in LORA_TARGETS
    ]
    wrapped = get_peft_model(model, LoraConfig(**LORA, target_modules=names))
    model.get_model().mm_projector.requires_grad_(True)
    return wrapped


class Steps:
    """A model, its optimizer, and steps of training; the same loop for all that is compared.

    Args:
        model: in training mode.
        learning_rate: of AdamW, of whatever is trainable.
    """

    def __init__(self, model: Any, *, learning_rate: float = 1e-4) -> None:
        import torch

        self.model = model
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.trained = sum(parameter.numel() for parameter in trained)
        self.optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)

    def step(self, batch: dict[str, Any]) -> Any:
        """Forward, backward, AdamW; the loss, on its device."""
        device, dtype = next(self.model.parameters()).device, next(self.model.parameters()).dtype
        moved = {name: value.to(device) for name, value in batch.items() if name != "record_indices"}
        moved["images"] = moved["images"].to(dtype)
        loss = self.model(**moved).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def optimizer_bytes(self) -> int:
        """Of its states."""
        states = self.optimizer.state.values()
        return sum(value.numel() * value.element_size() for state in states for value in state.values() if value.dim())
