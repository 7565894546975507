"""A LLaVA with random weights, images and records for the benchmarks of training: LLaVA's own side and ours.

The vocabulary is as large as a real one, but most of its words are never used: what a row costs does not depend on its
word. Records have the published sizes: maps of 100 codes, questions about four points.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from harness import Parser
from llava import conversation
from llava.model import LlavaLlamaForCausalLM
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer
from transformers.utils import logging

from llava_aurora.configuration import ModelArguments
from llava_aurora.gpu.layer_stack import NEW_TOKENS, build_layer_stack, words_of, write_images, write_records
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.training_loss import TrainingSettings
from llava_aurora.model_sizes import LlavaSizes, VisionSizes
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig, build_depth_vqvae
from llava_aurora.vqvae.checkpoint import save_depth_vqvae

LORA = {"r": 16, "lora_alpha": 32, "task_type": "CAUSAL_LM"}
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def add_size_flags(parser: Parser) -> None:
    """--width, --layers, --words, --frame, --batch, --bf16 and --attention."""
    parser.number("--width", 256, "of the language model's hidden states")
    parser.number("--layers", 4, "of the language model")
    parser.number("--words", 32_000, "rows of the vocabulary beside the new tokens'")
    parser.number("--frame", 168, "side of the square that the vision tower reads; 14 a patch")
    parser.number("--batch", 8, "records a step")
    parser.add_argument("--bf16", action="store_true", help="weights and activations in bfloat16")
    parser.add_argument("--attention", choices=("sdpa", "flash_attention_2", "eager"), default="sdpa", help="kernel")


@dataclass(frozen=True)
class TrainingSetup:
    """Args: folder: everything lies in it; device, dtype, attention: of the models."""

    folder: Path
    device: str
    dtype: torch.dtype | None
    attention: str

    @classmethod
    def build(cls, folder: Path, options: argparse.Namespace, *, generations: int, images: int) -> "TrainingSetup":
        """Writes everything into an empty folder; `options` of `add_size_flags`, numbers as for `write_records`."""
        setup = cls(folder, options.device, torch.bfloat16 if options.bf16 else None, options.attention)
        records = write_records(setup.records, generations=generations, images=images)
        write_images(folder / "images", records, side=options.frame)
        heads = max(1, options.width // 64)
        sizes = LlavaSizes(
            **{"name": "", "hidden": options.width, "intermediate": 2 * options.width, "layers": options.layers},
            **{"heads": heads, "kv_heads": heads, "vocabulary": options.words},
            vision=VisionSizes(hidden=128, intermediate=256, layers=4, image=options.frame),
        )
        saved = {"rows": options.words + NEW_TOKENS, "device": options.device, "dtype": setup.dtype or torch.float32}
        build_layer_stack(setup.base, sizes, texts=words_of(records), **saved)
        save_depth_vqvae(build_depth_vqvae(DepthVQVAEConfig()), folder / "vqvae")
        return setup

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def records(self) -> Path:
        return self.folder / "train.json"

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

    def upstream(self, *, tokens: bool, lora: bool) -> tuple[Any, Any]:
        """LLaVA's own model, and its tokenizer; with whole matrices trained for tokens, or the layers by LoRA."""
        tokenizer = self._tokenizer()
        model = self._loaded(LlavaLlamaForCausalLM)
        if tokens:
            settings = self._model_arguments(tokens=True).kind_settings()
            PerceptionTokens.teach(tokenizer, build_kinds(settings, Path()))
        if lora:
            model = with_lora(model)
            for matrix in (model.get_input_embeddings(), model.get_output_embeddings()):
                matrix.requires_grad_(tokens)
        return model.train(), tokenizer

    def ours(self, *, tokens: bool, lora: bool) -> tuple[Any, Any]:
        """Our model as train() makes it, and its tokenizer; with LoRA the new tokens' rows are trained alone."""
        tokenizer = self._tokenizer()
        model = self._loaded(AuroraLlamaForCausalLM)
        wrapped = with_lora(model) if lora else model
        model.initialize_vision_tokenizer(self._model_arguments(tokens=tokens), tokenizer)
        if tokens:
            model.start_training(TrainingSettings(), tokenizer=tokenizer)
        return wrapped.to(self.device).train(), tokenizer

    def _tokenizer(self) -> Any:
        """As LLaVA's train() loads it."""
        conversation.default_conversation = conversation.conv_templates["v1"]
        settings = {"use_fast": False, "padding_side": "right", "model_max_length": 2048}
        tokenizer = AutoTokenizer.from_pretrained(self.base, **settings)
        tokenizer.pad_token = tokenizer.unk_token
        return tokenizer

    def _model_arguments(self, *, tokens: bool) -> ModelArguments:
        return ModelArguments(
            model_name_or_path=str(self.base),
            mm_use_im_patch_token=False,
            perception_modalities="depth,box" if tokens else "",
            depth_vqvae=str(self.folder / "vqvae") if tokens else None,
        )

    def _loaded(self, model_class: Any) -> Any:
        logging.set_verbosity_error()
        model = model_class.from_pretrained(self.base, torch_dtype=self.dtype, attn_implementation=self.attention)
        model.config.use_cache = False
        tower = model.get_vision_tower()
        if not tower.is_loaded:
            tower.load_model()
        tower.requires_grad_(False)
        tower.to(device=self.device, dtype=self.dtype)
        return model.to(self.device)


def with_lora(model: Any) -> Any:
    """LoRA on the linear maps of the language model's layers; the projector is trained whole."""
    names = [
        name
        for name, _ in model.named_modules()
        if "vision_tower" not in name and name.rpartition(".")[2] in LORA_TARGETS
    ]
    wrapped = get_peft_model(model, LoraConfig(**LORA, target_modules=names))
    model.get_model().mm_projector.requires_grad_(True)
    return wrapped


class Steps:
    """A model in training mode, AdamW over whatever is trainable, and steps of training: the same loop for all."""

    def __init__(self, model: Any) -> None:
        self.model = model
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.trained = sum(parameter.numel() for parameter in trained)
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)

    def step(self, batch: dict[str, Any]) -> torch.Tensor:
        """Forward, backward, AdamW; the loss, on its device."""
        parameter = next(self.model.parameters())
        moved = {name: value.to(parameter.device) for name, value in batch.items() if name != "record_indices"}
        moved["images"] = moved["images"].to(parameter.dtype)
        loss = self.model(**moved).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def optimizer_bytes(self) -> int:
        """Of its states."""
        states = self.optimizer.state.values()
        return sum(value.numel() * value.element_size() for state in states for value in state.values() if value.dim())
