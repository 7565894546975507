"""Shapes of every weight of a LLaVA, from the numbers in its config.json, and which of them a run trains.

Nothing is loaded, and torch is not needed. plan.py needs shapes, not sums: ZeRO-3 rounds each weight up to the number
of ranks, and keeps small ones whole.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llava_aurora.errors import AuroraError


@dataclass(frozen=True)
class Weight:
    """Weights of one shape.

    Args:
        part: embedding, head, linear (of a language model's layer), norm, projector, tower, rows or lora.
        shape: as in the checkpoint.
        copies: how many there are.
    """

    part: str
    shape: tuple[int, ...]
    copies: int = 1

    @property
    def numel(self) -> int:
        """Elements of one copy."""
        return math.prod(self.shape)


def count(weights: Iterable[Weight]) -> int:
    """Elements of all."""
    return sum(weight.numel * weight.copies for weight in weights)


@dataclass(frozen=True, kw_only=True)
class LanguageSizes:
    """A Llama: width, width between gate and down projection, layers, heads, rows of the vocabulary matrices."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = False

    @property
    def kv_width(self) -> int:
        """Of keys, and of values."""
        return self.hidden // self.heads * self.kv_heads

    def layer_linears(self) -> list[Weight]:
        """The seven linear maps of all layers, (out, in); the ones LoRA stands beside."""
        hidden, intermediate, layers = self.hidden, self.intermediate, self.layers
        return [
            Weight("linear", (hidden, hidden), 2 * layers),  # queries, output
            Weight("linear", (self.kv_width, hidden), 2 * layers),  # keys, values
            Weight("linear", (intermediate, hidden), 2 * layers),  # gate, up
            Weight("linear", (hidden, intermediate), layers),  # down
        ]

    def weights(self) -> list[Weight]:
        matrix = self.vocabulary, self.hidden
        return [
            Weight("embedding", matrix),
            *([] if self.tied else [Weight("head", matrix)]),
            *self.layer_linears(),
            Weight("norm", (self.hidden,), 2 * self.layers + 1),
        ]


@dataclass(frozen=True, kw_only=True)
class VisionSizes:
    """A CLIP vision tower."""

    hidden: int
    intermediate: int
    layers: int
    image: int
    patch: int

    @property
    def patches(self) -> int:
        """Image tokens that the language model sees of one image."""
        return (self.image // self.patch) ** 2

    def weights(self) -> list[Weight]:
        hidden, intermediate, layers = self.hidden, self.intermediate, self.layers
        return [
            Weight("tower", (hidden,)),  # the class embedding
            Weight("tower", (hidden, 3, self.patch, self.patch)),
            Weight("tower", (self.patches + 1, hidden)),
            Weight("tower", (hidden,), 4),  # the norms around the layers
            Weight("tower", (hidden, hidden), 4 * layers),
            Weight("tower", (hidden,), (4 + 4 + 1) * layers),  # biases, norms, the second bias of the MLP
            Weight("tower", (intermediate, hidden), layers),
            Weight("tower", (hidden, intermediate), layers),
            Weight("tower", (intermediate,), layers),
        ]


@dataclass(frozen=True, kw_only=True)
class LlavaSizes:
    """A LLaVA; `projector_layers` is 1 for `linear`, 2 for `mlp2x_gelu`."""

    name: str
    language: LanguageSizes
    vision: VisionSizes
    projector_layers: int = 2

    def projector(self) -> list[Weight]:
        hidden, more = self.language.hidden, self.projector_layers - 1
        return [
            Weight("projector", (hidden, self.vision.hidden)),
            Weight("projector", (hidden,), 1 + more),
            *([Weight("projector", (hidden, hidden), more)] if more else []),
        ]

    def weights(self) -> list[Weight]:
        return [*self.language.weights(), *self.projector(), *self.vision.weights()]


MODES = ("full", "lora", "qlora", "projector")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is trained, on what.

    Args:
        model: shapes.
        mode: full (language model and projector), lora, qlora (LoRA on 4-bit weights), or projector (alone).
        lora_r: rank of LoRA.
        new_tokens: perception tokens added to the vocabulary.
        whole_vocabulary: outside `full`, train the words' rows too (--train_base_vocabulary).
        batch: records on one GPU.
        length: tokens of a record, image tokens included.
        answer: those of them with a label; with perception tokens, logits are computed only there.
        checkpointing: recompute activations instead of keeping them (--gradient_checkpointing).
        element: bytes of a weight: 2 for bfloat16, 4 for float32.
        gpus: ranks.
    """

    model: LlavaSizes
    mode: str
    lora_r: int = 128
    new_tokens: int = 466
    whole_vocabulary: bool = False
    batch: int = 16
    length: int = 2048
    answer: int = 512
    checkpointing: bool = True
    element: int = 2
    gpus: int = 8

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise AuroraError(f"--mode {self.mode}: there are {', '.join(MODES)}")

    @property
    def vocabulary(self) -> int:
        return self.model.language.vocabulary + self.new_tokens

    @cached_property
    def trained(self) -> list[Weight]:
        """Weights with a gradient. The vision tower has none."""
        language, projector = self.model.language, self.model.projector()
        matrices = 1 if language.tied else 2
        matrix = Weight("embedding", (self.vocabulary, language.hidden), matrices)
        if self.mode == "full":
            return [matrix, *(w for w in language.weights() if w.part in ("linear", "norm")), *projector]
        rows = Weight("rows", (self.new_tokens, language.hidden), matrices)
        new = [matrix] if self.whole_vocabulary else [rows] if self.new_tokens else []
        adapters = [
            Weight("lora", shape, linear.copies)
            for linear in (language.layer_linears() if "lora" in self.mode else [])
            for shape in ((self.lora_r, linear.shape[1]), (linear.shape[0], self.lora_r))
        ]
        return [*new, *adapters, *projector]

    @cached_property
    def frozen(self) -> list[Weight]:
        """Weights without a gradient, in `element` bytes each; not those that are quantized."""
        if self.mode == "full":
            return self.model.vision.weights()
        left_out = {"linear"} if self.mode == "qlora" else set()
        left_out |= {"embedding", "head"} if self.whole_vocabulary else set()
        return [w for w in self.model.language.weights() if w.part not in left_out] + self.model.vision.weights()

    @property
    def quantized(self) -> int:
        """Elements in 4 bits."""
        return count(self.model.language.layer_linears()) if self.mode == "qlora" else 0


CLIP_LARGE_336 = VisionSizes(hidden=1024, intermediate=4096, layers=24, image=336, patch=14)
TOWERS = {
    "openai/clip-vit-large-patch14-336": CLIP_LARGE_336,
    "openai/clip-vit-large-patch14": VisionSizes(hidden=1024, intermediate=4096, layers=24, image=224, patch=14),
}

# Vicuna-7B and -13B in LLaVA-1.5, Yi-34B in LLaVA-1.6.
SIZES = {
    sizes.name: sizes
    for sizes in (
        LlavaSizes(
            name="7b",
            language=LanguageSizes(hidden=4096, intermediate=11008, layers=32, heads=32, kv_heads=32, vocabulary=32000),
            vision=CLIP_LARGE_336,
        ),
        LlavaSizes(
            name="13b",
            language=LanguageSizes(hidden=5120, intermediate=13824, layers=40, heads=40, kv_heads=40, vocabulary=32000),
            vision=CLIP_LARGE_336,
        ),
        LlavaSizes(
            name="34b",
            language=LanguageSizes(hidden=7168, intermediate=20480, layers=60, heads=56, kv_heads=8, vocabulary=64000),
            vision=CLIP_LARGE_336,
        ),
    )
}


def find_sizes(model: str) -> LlavaSizes:
    """Sizes by name, or those of a checkpoint.

    Args:
        model: 7b, 13b, 34b, or a folder with config.json.

    Raises:
        AuroraError: if it is neither, or the configuration is not that of a LLaVA on a Llama and a CLIP tower.
    """
    if model in SIZES:
        return SIZES[model]
    if not (Path(model) / "config.json").is_file():
        raise AuroraError(f"--model {model}: neither {', '.join(SIZES)} nor a folder with a config.json")
    config = _read(Path(model) / "config.json")
    tower = config.get("mm_vision_tower") or next(iter(TOWERS))
    kind = config.get("mm_projector_type") or "linear"
    layers = 1 if kind == "linear" else int(found[1]) if (found := re.fullmatch(r"mlp(\d+)x_gelu", kind)) else None
    if layers is None:
        raise AuroraError(f"{model}/config.json: mm_projector_type {kind!r} is neither linear nor mlp2x_gelu")
    return LlavaSizes(
        name=Path(model).name,
        language=_language(config, Path(model) / "config.json"),
        vision=_vision(tower, Path(model)),
        projector_layers=layers,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AuroraError(f"{path}: no valid JSON: {error}") from error


def _language(config: Mapping[str, Any], path: Path) -> LanguageSizes:
    try:
        return LanguageSizes(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            vocabulary=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise AuroraError(f"{path}: has no {error.args[0]}, which the configuration of a Llama has") from error


def _vision(tower: str, model: Path) -> VisionSizes:
    """Of a known name, of a folder, or of the folder vision_tower inside the model's."""
    if tower in TOWERS:
        return TOWERS[tower]
    for path in (Path(tower) / "config.json", model / "vision_tower" / "config.json"):
        if path.is_file():
            config = _read(path)
            config = config.get("vision_config", config)
            # What CLIPVisionConfig leaves out of the file has these values.
            return VisionSizes(
                hidden=config.get("hidden_size", 768),
                intermediate=config.get("intermediate_size", 3072),
                layers=config.get("num_hidden_layers", 12),
                image=config.get("image_size", 224),
                patch=config.get("patch_size", 32),
            )
    raise AuroraError(
        f"{model}/config.json: mm_vision_tower {tower} is neither a folder with config.json nor one of"
        f" {', '.join(TOWERS)}"
    )
