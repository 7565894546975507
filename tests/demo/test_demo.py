"""The demo in small: every stage runs, the report and its pictures are there, and a second call does nothing twice."""

import json
import re
from dataclasses import replace

import pytest
from PIL import Image

from llava_aurora.data.transforms.values import ValueStep
from llava_aurora.demo.pipeline import Demo
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.vqvae.checkpoint import load_depth_vqvae

pytestmark = [pytest.mark.deepspeed, pytest.mark.slow]


@pytest.fixture(scope="module")
def demo(forked, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo_output"
    run = forked("-m", "llava_aurora.cli", "demo", "--preset", "smoke", "--out", out)
    return out, run


def test_the_report_holds_every_number_and_picture(demo):
    out, _ = demo
    report = (out / "report.md").read_text()
    for heading in (
        "## Depth maps",
        "## Answers",
        "## Does it use its maps?",
        "## Pictures",
        "## Training",
        "## Reproduce",
    ):
        assert heading in report
    for line in ("decoded by the VQ-VAE", "written by the trained model", "mean map", "before training"):
        assert line in report
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", report)
    assert len(pictures) >= 4
    assert "photograph_motorcycle.png" in pictures
    for picture in pictures:
        with Image.open(out / picture) as opened:
            assert min(opened.size) > 300
    assert "scripts/finetune_aurora.sh" in report


def test_numbers_are_within_their_ranges(demo):
    numbers = json.loads((demo[0] / "report.json").read_text())
    assert all(0 <= value <= 1 for value in numbers["depth_mse"].values())
    assert all(0 <= row["value"] <= 1 for row in numbers["answers"])
    behind = numbers["behind_other_maps"]  # nothing where no chain has a whole map, see test_measure.py
    assert all(0 <= each["right"] <= 1 and each["questions"] > 0 for each in behind.values())
    assert numbers["loss"][-1]["loss"] > 0


def test_chains_that_contradict_their_values_can_be_left_out(demo, tmp_path):
    made = Demo(name="smoke", out=demo[0])
    made.preset = replace(made.preset, sound_chains=True)
    made._records(tmp_path / "records")
    values = ValueStep(depth=DepthKind(vqvae=load_depth_vqvae(made.work / "vqvae")), frame=56)
    everything, sound = (
        json.loads((folder / "records" / "train.json").read_text()) for folder in (made.work, tmp_path)
    )
    assert sound == [record for record in everything if values.bears_out(record)]
    assert len(sound) < len(everything)


def test_what_is_done_is_not_done_again(demo, forked):
    out, first = demo
    before = (out / "work" / "model" / "model.safetensors").stat().st_mtime_ns
    again = forked("-m", "llava_aurora.cli", "demo", "--preset", "smoke", "--out", out)
    assert (out / "work" / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert "Report:" in first.output
    assert "Report:" in again.output


def test_a_folder_of_other_sizes_is_refused(demo, forked):
    run = forked("-m", "llava_aurora.cli", "demo", "--preset", "demo", "--out", demo[0], code=1)
    assert "holds a demo of other sizes" in run.output
