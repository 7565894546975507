"""The demo in small: every stage runs, the report and its pictures are there, and a second call does nothing twice."""

import re
from pathlib import Path

import pytest
from PIL import Image

from llava_aurora.cli.shared import model_or_demo
from llava_aurora.errors import AuroraError

pytestmark = [pytest.mark.deepspeed, pytest.mark.slow]


@pytest.fixture(scope="module")
def demo(forked, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo_output"
    run = forked("-m", "llava_aurora.cli", "demo", "--preset", "smoke", "--out", out)
    return out, run


def test_the_report_holds_every_number_and_picture(demo):
    out, run = demo
    report = (out / "report.md").read_text()
    for heading in ("## What it has learned", "## Does it use its map?", "## Cases", "## How it was made"):
        assert heading in report
    for line in (
        "closest of 3 to 5 marked points",
        "answer computed from its map",
        "how many there are",
        "the goal of 0.5 is",
    ):
        assert line in report
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", report)
    assert len(pictures) >= 4
    assert "photograph_motorcycle.png" in pictures
    for picture in pictures:
        with Image.open(out / picture) as opened:
            assert min(opened.size) > 300
    assert "scripts/finetune_aurora.sh" in report
    assert re.search(r"depth_chain: \d+ questions, blind \d+% \(.*\),\s+chance \d+%", run.output), (
        "said while it is made"
    )


def test_the_model_is_found_where_no_other_is_given(demo, monkeypatch):
    monkeypatch.chdir(demo[0].parent)
    assert model_or_demo(None) == Path("demo_output/work/model")
    assert model_or_demo(Path("other")) == Path("other")
    monkeypatch.chdir("/")
    with pytest.raises(AuroraError, match="give --model"):
        model_or_demo(None)


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
