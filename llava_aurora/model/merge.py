"""Writes a model as one whole folder, which unpatched LLaVA loads too: LoRA merged, paths those of its new place."""

from pathlib import Path

import torch

from llava_aurora.errors import AuroraError
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.model.folders import llava_config
from llava_aurora.model.writing import write_merged_folder


def merge(model: str | Path, out: str | Path, *, base: str | None = None, dtype: torch.dtype | None = None) -> Path:
    """Writes the merged model; `out` appears only when it is whole.

    Args:
        model: a folder that training left, or one of its checkpoints: LoRA, projector only, or whole, which is copied
            with the path of its trained vision tower in config.json made right.
        out: the folder to make.
        base: what LoRA or projector were trained on, if it is no longer where the folder says.
        dtype: of the weights; None keeps the base's, as its config.json says.
    Returns `out`.
    Raises AuroraError if `model` cannot be loaded, or `out` is there already.
    """
    source, out = Path(model), Path(out)
    if out.exists():
        raise AuroraError(f"{out}: already exists; choose another --out, or remove it")
    dtype = dtype or getattr(llava_config(source), "dtype", None) or torch.float32
    tokenizer, merged, _, _ = load_pretrained_model(str(source), base, device="cpu", torch_dtype=dtype)
    write_merged_folder(out, model=merged, tokenizer=tokenizer)
    return out
