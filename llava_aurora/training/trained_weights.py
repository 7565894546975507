"""The trained weights of a model: read from a file by name, and looked through for NaN."""

from pathlib import Path

import torch
from torch import nn

from llava_aurora.errors import AuroraError


def load_exactly(model: nn.Module, path: Path, *, names: set[str]) -> None:
    """Gives a model the weights of a file.

    Args:
        model: of whose weights the file holds some.
        path: written by torch.save, tensors by name.
        names: what the file must hold, no more and no fewer.

    Raises:
        AuroraError: if the file is missing or holds others.
    """
    if not path.is_file():
        raise AuroraError(
            f"{path}: missing; without it projector and token rows would start anew; resume from another checkpoint,"
            " or start anew with --resume_from_checkpoint False"
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    if names != weights.keys():
        name = min(names ^ weights.keys())
        where = "the file" if name in weights else "this run"
        raise AuroraError(f"{path}: {name} is trained in {where} alone; give the flags of the run that wrote it")
    model.load_state_dict(weights, strict=False)


def first_broken(model: nn.Module, device: torch.device) -> str | None:
    """The first trained weight with a NaN or an infinity on any rank, each looking at what it holds itself.

    A collective operation: every rank gets the same answer.
    """
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    held = [getattr(value, "ds_tensor", value).detach() for _, value in trained]  # under ZeRO-3 a part
    finite = torch.stack([torch.isfinite(part).all().to(device) for part in held]).int()
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(finite, op=torch.distributed.ReduceOp.MIN)
    return None if finite.all() else trained[int(finite.argmin())][0]
