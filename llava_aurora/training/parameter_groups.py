"""Optimizer groups with a learning rate for each part of the model: new tokens' rows, projector, vision tower, rest."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn

from llava_aurora.model.perception_head import ROWS

PARTS = {"perception_lr": ROWS, "mm_projector_lr": "mm_projector", "mm_vision_tower_lr": "vision_tower"}


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    rates: Mapping[str, float | None],
    decayed: Collection[str],
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer, none of them empty; those without a rate of their own come first.

    Args:
        parameters: by name; frozen ones are left out.
        rates: the rate of each of PARTS; None leaves a part to the optimizer's general rate.
    """
    groups: dict[tuple[float | None, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            rate = next((rates[flag] for flag, part in PARTS.items() if part in name), None)
            groups.setdefault((rate, name in decayed), []).append(parameter)
    return [
        {
            "params": members,
            "weight_decay": weight_decay if decays else 0.0,
            **({} if rate is None else {"lr": rate}),
        }
        for (rate, decays), members in sorted(groups.items(), key=lambda group: group[0][0] is not None)
    ]
