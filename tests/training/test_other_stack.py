"""The other stack of libraries (scripts/setup_stack.sh) trains the same, and each ends what the other began."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llava_aurora import Predictor, load_pretrained_model

OTHER = os.environ.get("LLAVA_AURORA_OTHER_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(OTHER is None, reason="needs the other stack: bash scripts/test.sh --with-upstream"),
]
PYTHONS = {"here": sys.executable, "there": OTHER}
STEPS, SAVED = 20, 10
QUESTIONS = ["Write down the depth map of this image.", "How many red cubes are in the image? Think step by step."]
# One side's answers, asked of the other.
ASK = """
import json, sys
from pathlib import Path
sys.path.insert(0, "tests/training")
from test_other_stack import answers
Path(sys.argv[2]).write_text(json.dumps(answers(sys.argv[1])))
"""


def answers(model: str | Path) -> list[list[int]]:
    """Greedy tokens, under the constraint and free."""
    tokenizer, loaded, image_processor, _ = load_pretrained_model(str(model), device="cpu")
    predictor = Predictor(tokenizer=tokenizer, model=loaded, image_processor=image_processor)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 56, 3), dtype=np.uint8))
    written = [
        predictor.write([image], [question], max_new_tokens=24, constrained=constrained)[0].ids
        for question in QUESTIONS
        for constrained in (True, False)
    ]
    return [[int(number) for number in ids] for ids in written]


@pytest.fixture(scope="module")
def train(workshop, start, tmp_path_factory):
    """Trains on one of the stacks: LoRA, rows of new tokens and the vision tower, in one process."""
    folder = tmp_path_factory.mktemp("stacks")

    def run(side: str, name: str, **changes: object) -> Path:
        flags = workshop.perception_flags() | {
            "use_cpu": True,
            "max_steps": STEPS,
            "save_strategy": "steps",
            "save_steps": SAVED,
            "warmup_ratio": 0.1,
            "lora_enable": True,
            "lora_r": 8,
            "lora_alpha": 16,
            "unfreeze_mm_vision_tower": True,
            "aux_losses": "reconstruction=2@2,attention=0.2",
        }
        flags = workshop.flags(folder / name, **flags | changes)
        start(PYTHONS[side], "scripts/finetune_aurora.sh", *flags)
        return folder / name

    return run


@pytest.fixture(scope="module")
def trained(train) -> dict[str, Path]:
    return {side: train(side, side) for side in PYTHONS}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All that was trained, as files name it."""
    others = torch.load(folder / "non_lora_trainables.bin", weights_only=True)
    adapter, tower = (
        load_file(folder / name) for name in ("adapter_model.safetensors", "vision_tower/model.safetensors")
    )
    return adapter | others | tower


def assert_equal(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])] == []


def logged(folder: Path) -> list[tuple[float, float, float]]:
    history = json.loads((folder / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())["log_history"]
    return [(step["loss"], step["grad_norm"], step["learning_rate"]) for step in history if "loss" in step]


def test_losses_and_weights_are_the_same(trained):
    here, there = (logged(folder) for folder in trained.values())
    assert len(here) == STEPS
    assert np.allclose(here, there, rtol=0, atol=6e-5)  # transformers 4.57 rounds losses to four digits
    assert_equal(*trained.values())


@pytest.mark.parametrize("side", PYTHONS)
def test_what_one_began_the_other_ends_as_if_unbroken(train, trained, side):
    (begun,) = (folder for name, folder in trained.items() if name != side)
    ended = train(side, f"{side}-resumed", resume_from_checkpoint=begun / f"checkpoint-{SAVED}")
    assert_equal(ended, begun)


def test_they_write_the_same_tokens(trained, start, tmp_path):
    start(OTHER, "-c", ASK, trained["here"], tmp_path / "answers.json")
    assert json.loads((tmp_path / "answers.json").read_text()) == answers(trained["here"])
