"""A learning rate for each part of the model."""

import torch

from llava_aurora.training.parameter_groups import parameter_groups

NAMES = (
    "model.layers.0.mlp.weight",
    "model.norm.weight",
    "model.embed_tokens.perception_rows",
    "lm_head.perception_rows",
    "lm_head.words.weight",
    "model.mm_projector.0.weight",
    "model.mm_projector.0.bias",
    "model.vision_tower.vision_tower.layer.weight",
)


def test_each_part_has_its_rate_and_nothing_is_twice_or_missing():
    parameters = {name: torch.nn.Parameter(torch.zeros(1)) for name in NAMES}
    parameters["lm_head.words.weight"].requires_grad_(False)
    names = {id(parameter): name for name, parameter in parameters.items()}
    groups = parameter_groups(
        parameters.items(),
        rates={"perception_lr": 1e-3, "mm_projector_lr": None, "mm_vision_tower_lr": 1e-6},
        decayed=[name for name in NAMES if "bias" not in name and "norm" not in name],
        weight_decay=0.1,
    )
    found = [
        (group.get("lr"), group["weight_decay"], sorted(names[id(parameter)] for parameter in group["params"]))
        for group in groups
    ]
    assert found == [
        (None, 0.1, ["model.layers.0.mlp.weight", "model.mm_projector.0.weight"]),
        (None, 0.0, ["model.mm_projector.0.bias", "model.norm.weight"]),
        (1e-3, 0.1, ["lm_head.perception_rows", "model.embed_tokens.perception_rows"]),
        (1e-6, 0.1, ["model.vision_tower.vision_tower.layer.weight"]),
    ]
