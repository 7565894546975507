"""A LLaVA with random weights, images and records for the benchmarks of training: LLaVA's own side and ours.

The vocabulary is as large as a real one, but most of its words are never used: what a row costs does not depend on its
word. Records have the published sizes: maps of 100 codes, questions about four points.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from harness import Parser
from llava import conversation
from llava.model import LlavaLlamaForCausalLM
from peft import LoraConfig, get_peft_model
from PIL import Image
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from transformers import AutoTokenizer
from transformers.utils import logging

from llava_aurora.configuration import ModelArguments
from llava_aurora.demo.tiny_llava import TinyLlavaConfig, build_tiny_llava
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.training_loss import TrainingSettings
from llava_aurora.tasks.depth import DepthFacts
from llava_aurora.tasks.points import letter_points
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import PerceptionVocabulary, depth_family, pixel_family
from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig, build_depth_vqvae
from llava_aurora.vqvae.checkpoint import save_depth_vqvae

FAMILIES = (depth_family(), pixel_family())
NEW_TOKENS = sum(len(family.tokens) for family in FAMILIES)
LORA = {"r": 16, "lora_alpha": 32, "task_type": "CAUSAL_LM"}
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def add_size_flags(parser: Parser) -> None:
    """--width, --layers, --words, --frame, --batch and --bf16."""
    parser.number("--width", 256, "of the language model's hidden states")
    parser.number("--layers", 4, "of the language model")
    parser.number("--words", 32_000, "rows of the vocabulary beside the new tokens'")
    parser.number("--frame", 168, "side of the square that the vision tower reads; 14 a patch")
    parser.number("--batch", 8, "records a step")
    parser.add_argument("--bf16", action="store_true", help="weights and activations in bfloat16")


def write_records(path: Path, *, generations: int, images: int) -> list[dict[str, Any]]:
    """Writes a record for each of `generations` images with a map, and a chain and a direct question about `images`."""
    writer = RecordWriter(prompts=Prompts(), families=FAMILIES)
    rng, records = np.random.default_rng(0), []
    for number in range(generations):
        about = {"name": f"map_{number}", "image": f"map_{number}.jpg", "rng": rng}
        records.append(writer.write("depth_generation", DepthFacts((), rng.integers(0, 128, 100).tolist()), **about))
    for number in range(images):
        about = {"name": f"points_{number}", "image": f"points_{number}.jpg", "rng": rng}
        places = [(int(x), int(y)) for x, y in rng.integers(0, 336, (4, 2))]
        points = letter_points(places, rng.permutation(256)[:4].tolist(), rng)
        records.append(writer.write("depth_chain", DepthFacts(points, rng.integers(0, 128, 100).tolist()), **about))
        records.append(writer.write("depth_direct", DepthFacts(points), **about))
    path.write_text(json.dumps(records), encoding="utf-8")
    return records


def words_of(records: list[dict[str, Any]]) -> list[str]:
    """The text of records without perception tokens, for a tokenizer to be trained on."""
    vocabulary = PerceptionVocabulary(FAMILIES)
    return [vocabulary.remove_from(turn["value"]) for record in records for turn in record["conversations"]]


@dataclass(frozen=True)
class TrainingSetup:
    """Args: folder: everything lies in it; device, dtype: of the models."""

    folder: Path
    device: str
    dtype: torch.dtype | None

    @classmethod
    def build(cls, folder: Path, options: argparse.Namespace, *, generations: int, images: int) -> "TrainingSetup":
        """Writes everything into an empty folder; `options` of `add_size_flags`, numbers as for `write_records`."""
        setup = cls(folder, options.device, torch.bfloat16 if options.bf16 else None)
        records = write_records(setup.records, generations=generations, images=images)
        (folder / "images").mkdir()
        rng = np.random.default_rng(0)
        for name in sorted({record["image"] for record in records}):
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            side = (options.frame, options.frame)
            coarse.resize(side, Image.Resampling.BICUBIC).save(folder / "images" / name, quality=92)
        config = TinyLlavaConfig(
            frame=options.frame,
            patch=14,
            vision_layers=4,
            width=options.width,
            layers=options.layers,
            heads=2 ** (max(1, options.width // 64).bit_length() - 1),  # divides the width of the tower too
            vocabulary=420,
            max_length=2048,
        )
        build_tiny_llava(setup.base, corpus=words_of(records), config=config, seed=0)
        setup._fill_tokenizer(options.words)
        model = LlavaLlamaForCausalLM.from_pretrained(setup.base)
        model.resize_token_embeddings(options.words + NEW_TOKENS, mean_resizing=False)
        model.save_pretrained(setup.base)
        save_depth_vqvae(build_depth_vqvae(DepthVQVAEConfig()), folder / "vqvae")
        return setup

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def records(self) -> Path:
        return self.folder / "train.json"

    def _fill_tokenizer(self, words: int) -> None:
        """Adds unused pieces, so that the matrices' rows are those of the tokenizer's words and of the new tokens."""
        path = self.base / "tokenizer.model"
        model = ModelProto.FromString(path.read_bytes())
        for number in range(words - len(model.pieces)):
            model.pieces.add(piece=f"<unused_{number}>", score=0.0, type=ModelProto.SentencePiece.UNUSED)
        path.write_bytes(model.SerializeToString())

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
        model = model_class.from_pretrained(self.base, torch_dtype=self.dtype, attn_implementation="sdpa")
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
