"""Loads trained weights from a file by name, and finds weights that are not finite."""

from pathlib import Path

import torch
from torch import nn

from llava_aurora.compatibility import present_tower_names
from llava_aurora.errors import AuroraError
from llava_aurora.model.writing import TOWER_PREFIX


def load_exactly(model: nn.Module, path: Path, *, names: set[str]) -> None:
    """Loads some of a model's weights.

    Args: model: to load into; names: the weights that the file must hold, exactly.
    Raises AuroraError if the file is missing or holds other weights.
    """
    if not path.is_file():
        raise AuroraError(
            f"{path}: missing; without it projector and token rows would be random; resume from another checkpoint,"
            " or start over with --resume_from_checkpoint False"
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    weights = present_tower_names(weights, TOWER_PREFIX)
    if names != weights.keys():
        name = min(names ^ weights.keys())
        where = "the file" if name in weights else "this run"
        raise AuroraError(f"{path}: {name} is trained in {where} only; give the flags of the run that wrote it")
    model.load_state_dict(weights, strict=False)


def first_broken(model: nn.Module, device: torch.device) -> str | None:
    """The name of a trained weight with a NaN or an infinity on any rank; None if there is none.

    A collective operation: each rank checks the part that it holds, and every rank gets the same answer.
    """
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    held = [getattr(value, "ds_tensor", value).detach() for _, value in trained]  # under ZeRO-3 a part
    finite = torch.stack([torch.isfinite(part).all().to(device) for part in held]).int()
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(finite, op=torch.distributed.ReduceOp.MIN)
    return None if finite.all() else trained[int(finite.argmin())][0]
