"""Sizes of a LLaVA, from its name or its config.json, without loading it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json_object


@dataclass(frozen=True, kw_only=True)
class VisionSizes:
    """A CLIP vision tower; `image` and `patch` are sides in pixels. Defaults: ViT-L/14 at 336 pixels."""

    hidden: int = 1024
    intermediate: int = 4096
    layers: int = 24
    image: int = 336
    patch: int = 14

    @property
    def patches(self) -> int:
        """Image tokens that the language model gets for one image."""
        return (self.image // self.patch) ** 2

    @property
    def weights(self) -> int:
        """Elements of class, patch and position embeddings and norms; of four maps, MLP, norms and biases a layer."""
        hidden, inner = self.hidden, self.intermediate
        outside = hidden * (1 + 3 * self.patch**2 + self.patches + 1 + 4)
        return outside + self.layers * (4 * hidden**2 + 2 * hidden * inner + 9 * hidden + inner)


@dataclass(frozen=True, kw_only=True)
class LlavaSizes:
    """A Llama with a vision tower. `projector_layers` is 1 for the projector `linear`, 2 for `mlp2x_gelu`."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int = 32000
    tied: bool = False
    projector_layers: int = 2
    vision: VisionSizes = VisionSizes()

    @property
    def maps(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the seven linear maps of a layer, which are those that LoRA adapts."""
        hidden, inner, kv_width = self.hidden, self.intermediate, self.hidden // self.heads * self.kv_heads
        return [(hidden, hidden)] * 2 + [(hidden, kv_width)] * 2 + [(hidden, inner)] * 2 + [(inner, hidden)]

    @property
    def linear(self) -> int:
        """Elements of the linear maps of all layers."""
        return self.layers * sum(into * out for into, out in self.maps)

    @property
    def norms(self) -> int:
        return (2 * self.layers + 1) * self.hidden

    @property
    def projector(self) -> int:
        hidden, more = self.hidden, self.projector_layers - 1
        return hidden * (self.vision.hidden + 1) + more * hidden * (hidden + 1)

    def matrices(self, rows: int) -> int:
        """Elements of embedding and head with so many rows."""
        return rows * self.hidden * (1 if self.tied else 2)

    @property
    def weights(self) -> int:
        """Elements of all."""
        return self.matrices(self.vocabulary) + self.linear + self.norms + self.projector + self.vision.weights


# Vicuna-7B and -13B in LLaVA-1.5, Yi-34B in LLaVA-1.6.
SIZES = {
    "7b": LlavaSizes(name="7b", hidden=4096, intermediate=11008, layers=32, heads=32, kv_heads=32),
    "13b": LlavaSizes(name="13b", hidden=5120, intermediate=13824, layers=40, heads=40, kv_heads=40),
    "34b": LlavaSizes(name="34b", hidden=7168, intermediate=20480, layers=60, heads=56, kv_heads=8, vocabulary=64000),
}
TOWERS = {
    "openai/clip-vit-large-patch14-336": VisionSizes(),
    "openai/clip-vit-large-patch14": VisionSizes(image=224),
}


def find_sizes(model: str) -> LlavaSizes:
    """Sizes by name, or those of a checkpoint.

    Args: model: 7b, 13b, 34b, or a folder with config.json.
    Raises AuroraError if it is neither, or the configuration is not that of a LLaVA on a Llama and a CLIP tower.
    """
    if model in SIZES:
        return SIZES[model]
    path = Path(model) / "config.json"
    if not path.is_file():
        raise AuroraError(f"--model {model}: neither {', '.join(SIZES)} nor a folder with a config.json")
    config = read_json_object(path, what="model's settings")
    if (kind := config.get("model_type")) not in ("llava_llama", "llava", "llama"):
        raise AuroraError(f"{path}: model_type {kind!r} is not supported; only LLaVA and Llama models can be trained")
    projector = config.get("mm_projector_type") or "linear"
    layers = re.fullmatch(r"linear|mlp(\d+)x_gelu", str(projector))
    if layers is None:
        raise AuroraError(f"{path}: mm_projector_type {projector!r} is neither linear nor mlp2x_gelu")
    size = partial(_size, config, path)
    return LlavaSizes(
        name=Path(model).name,
        hidden=size("hidden_size"),
        intermediate=size("intermediate_size"),
        layers=size("num_hidden_layers"),
        heads=size("num_attention_heads"),
        kv_heads=size("num_key_value_heads", size("num_attention_heads")),
        vocabulary=size("vocab_size"),
        tied=bool(config.get("tie_word_embeddings", False)),
        projector_layers=int(layers[1] or 1),
        vision=_vision(str(config.get("mm_vision_tower") or next(iter(TOWERS))), Path(model)),
    )


def _size(config: Mapping[str, Any], path: Path, name: str, default: int | None = None) -> int:
    """A number of a configuration, at least 1. Raises AuroraError if it is anything else, or missing."""
    value = config.get(name)
    value = default if value is None else value
    if type(value) is not int or not 0 < value < 2**31:
        raise AuroraError(f"{path}: {name} is {value!r}; expected an integer")
    return value


def _vision(tower: str, model: Path) -> VisionSizes:
    """Of a known name, of a folder, or of the folder vision_tower in the model's."""
    if tower in TOWERS:
        return TOWERS[tower]
    for path in (Path(tower) / "config.json", model / "vision_tower" / "config.json"):
        if os.path.isfile(path):  # which a name that is too long is not, while Path.is_file raises
            config = read_json_object(path, what="model's settings")
            inner = config.get("vision_config")
            size = partial(_size, inner if isinstance(inner, dict) else config, path)
            # CLIPVisionConfig leaves out of the file what has these values.
            return VisionSizes(
                hidden=size("hidden_size", 768),
                intermediate=size("intermediate_size", 3072),
                layers=size("num_hidden_layers", 12),
                image=size("image_size", 224),
                patch=size("patch_size", 32),
            )
    raise AuroraError(
        f"{model}/config.json: mm_vision_tower {tower} is neither a folder with config.json nor one of"
        f" {', '.join(TOWERS)}"
    )
