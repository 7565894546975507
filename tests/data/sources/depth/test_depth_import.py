"""Depth files of every kind are converted to the same map, by function and by command."""

import numpy as np
import pytest
from command import llava_aurora
from PIL import Image

from llava_aurora.data.sources.depth.depth_import import import_maps
from llava_aurora.data.sources.scenes.scene import SceneConfig, render_scene
from llava_aurora.errors import AuroraError
from llava_aurora.vqvae.depth_scale import DepthScale

METRIC = DepthScale(values="metric", closer="lower")


@pytest.fixture(scope="module")
def depth():
    """Metres, float32 (48, 48)."""
    return render_scene(seed=1, config=SceneConfig(frame=48, shadows=False)).depth.astype(np.float32)


def test_maps_keep_their_places_and_are_scaled(tmp_path, depth):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    np.savez(tmp_path / "in" / "a.npz", depth)
    Image.fromarray((depth * 5000).astype(np.uint16)).save(tmp_path / "in" / "sub" / "b.png")
    report = import_maps(maps=tmp_path / "in", out=tmp_path / "out", scale=METRIC, workers=2)
    assert (report.written, report.failures) == (2, {})
    for name in ("a.png", "sub/b.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert np.abs(np.asarray(picture).astype(int) - METRIC.relative(depth)).max() <= (name != "a.png")


def run(*arguments):
    return llava_aurora("data", "depth", *arguments)


def test_the_command_imports_warns_and_goes_on(tmp_path, depth):
    (tmp_path / "in").mkdir()
    for number in range(8):
        np.save(tmp_path / "in" / f"{number}.npy", depth + number)
    (tmp_path / "in" / "broken.npy").write_bytes(b"")
    (tmp_path / "in" / "notes.txt").write_bytes(b"")
    flags = ("--maps", tmp_path / "in", "--out", tmp_path / "out", "--values", "relative", "--closer", "higher")
    result = run(*flags)
    assert result.exit_code == 1
    assert "warning: 0 of 8 maps are closer at the bottom than at the top" in result.stderr
    assert "broken.npy: not a usable depth map" in result.stderr
    assert "8 maps written" in result.stdout
    assert "0 already done; 1 failed; passed over: 1 .txt files" in result.stdout
    (tmp_path / "in" / "broken.npy").unlink()
    result = run(*flags)
    assert result.exit_code == 0
    assert "0 maps written; 8 already done; 0 failed" in result.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give either --image-folder"),
        (["--maps", "x", "--images", "x"], "give either --image-folder"),
        (["--maps", "x"], "--maps needs --values"),
        (["--maps", "x", "--values", "metric"], "--maps needs --values"),
        (["--maps", "x", "--values", "metric", "--closer", "higher"], "lower where it is closer"),
        (["--maps", "x", "--values", "metric", "--closer", "lower", "--bits", "9"], "8 or 16 bits"),
        (["--images", "x", "--closer", "lower"], "are for --maps only"),
        (["--maps", "x", "--values", "metric", "--closer", "lower", "--unknown", "0;9"], "--unknown 0;9"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(tmp_path, flags, message):
    result = run("--out", tmp_path / "out", *flags)
    assert isinstance(result.exception, AuroraError)
    assert message in str(result.exception)
