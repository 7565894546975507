"""Imports the checkpoint that the authors of AURORA released.

It is a folder of unmerged LoRA weights on LLaVA. Its non_lora_trainables.bin holds the projector and both whole
vocabulary matrices, whose last rows are those of the perception tokens; it has no tokenizer, no VQ-VAE and no `aurora`
block in config.json.
"""

from pathlib import Path
from typing import Any

import torch

from llava_aurora.errors import AuroraError
from llava_aurora.model.checkpoint import check_tower, load_base, load_tower, load_trained, merge_lora
from llava_aurora.model.folders import (
    LORA_CONFIG,
    NON_LORA_WEIGHTS,
    find_base,
    llava_config,
    load_tokenizer,
    vocabulary_rows,
)
from llava_aurora.model.writing import write_merged_folder
from llava_aurora.tokens import TokenKind, build_kinds, vocabulary_of
from llava_aurora.tokens.perception import PerceptionTokens


def import_aurora(
    folder: str | Path,
    out: str | Path,
    *,
    base: str | None = None,
    depth_vqvae: str | Path | None = None,
    frame: int = 336,
    dtype: torch.dtype | None = None,
) -> Path:
    """Writes a whole folder in our layout: LoRA merged, tokens in the tokenizer, VQ-VAE and `aurora` block added.

    Args:
        out: the folder to write; it appears only when it is complete.
        base: the LLaVA model that it was trained on; None takes the name in adapter_config.json.
        depth_vqvae: a published .pt file or a folder of `vqvae train`; needed unless it has coordinate tokens only.
        frame: side in pixels of the frame of its coordinates; there is one token a pixel.
        dtype: of the weights; None keeps that of config.json.
    Returns `out`.
    Raises AuroraError if `out` exists, a file is missing or damaged, or the new rows are those of no known tokens.
    """
    source, out = Path(folder), Path(out)
    if out.exists():
        raise AuroraError(f"{out}: already exists; choose another --out, or remove it")
    config = llava_config(source)
    rows = vocabulary_rows(source)
    if rows is None or not (source / LORA_CONFIG).is_file() or (source / "tokenizer_config.json").is_file():
        raise AuroraError(
            f"{source}: not in AURORA's released form ({LORA_CONFIG}, {NON_LORA_WEIGHTS} with both vocabulary matrices,"
            " no tokenizer); a folder that llava_aurora wrote needs no import"
        )
    check_tower(source, config)
    base = find_base(source, base)
    tokenizer = load_tokenizer(base)
    kinds = _kinds(rows - len(tokenizer), depth_vqvae=depth_vqvae, frame=frame, where=f"{source} on {base}")
    perception = PerceptionTokens.teach(tokenizer, kinds)

    dtype = dtype or getattr(config, "dtype", None) or torch.float32
    config.vocab_size = rows
    config.image_aspect_ratio = "resize"  # it says pad, but the released code resizes every image to a square before
    model = load_base(base, config, {"torch_dtype": dtype, "device_map": {"": "cpu"}})
    load_trained(model, source / NON_LORA_WEIGHTS, base=base)
    model = merge_lora(model, source)
    load_tower(model, dtype=dtype)
    model.attach_perception(perception)
    write_merged_folder(out, model=model, tokenizer=tokenizer)
    return out


def _kinds(new: int, *, depth_vqvae: str | Path | None, frame: int, where: str) -> dict[str, TokenKind]:
    """The token kinds that have `new` tokens together: depth, coordinates, or both, in this order."""
    settings: dict[str, dict[str, Any]] = {"box": {"frame": frame}}
    if depth_vqvae is not None:
        settings = {"depth": {"vqvae": str(Path(depth_vqvae).absolute())}, **settings}
    built = build_kinds(settings, Path())
    choices = [built, *({name: kind} for name, kind in built.items())]
    counts = [len(vocabulary_of(kinds.values()).tokens) for kinds in choices]
    if new not in counts:
        known = ", ".join(f"{count} ({' and '.join(kinds)})" for count, kinds in zip(counts, choices, strict=True))
        remedy = "is that the base, and --frame the side of its frame?" if depth_vqvae else "give --depth_vqvae"
        raise AuroraError(f"{where}: {new} rows more than the base's vocabulary, expected {known}; {remedy}")
    return choices[counts.index(new)]
