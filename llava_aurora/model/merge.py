"""One folder out of a base model and what was trained beside it: LoRA or a projector, and the rows of new tokens.

The folder is an ordinary whole LLaVA checkpoint, which unpatched upstream LLaVA loads, and still describes itself.
"""

from pathlib import Path

import torch

from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_folder
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.model.folders import llava_config
from llava_aurora.model.writing import write_perception_files


def merge(model: str | Path, out: str | Path, *, base: str | None = None, dtype: torch.dtype | None = None) -> Path:
    """Writes the merged model; `out` appears only when it is whole.

    Args:
        model: a folder of LoRA or of a projector, as training left it, or one of its checkpoints.
        out: the folder to make.
        base: what it was trained on; a LoRA folder knows that itself.
        dtype: of the weights; None keeps the base's, as its config.json says.

    Returns:
        `out`.

    Raises:
        AuroraError: if `model` is no such folder, or `out` is there already.
    """
    source, out = Path(model), Path(out)
    if out.exists():
        raise AuroraError(f"{out}: is there already; name another folder, or remove this one")
    dtype = dtype or getattr(llava_config(source), "dtype", None) or torch.float32
    tokenizer, merged, _, _ = load_pretrained_model(str(source), base, device="cpu", torch_dtype=dtype)
    with atomic_folder(out) as folder:
        merged.config.use_cache = True
        merged.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_perception_files(folder, model=merged, weights=merged.state_dict(), final_folder=out)
    return out
