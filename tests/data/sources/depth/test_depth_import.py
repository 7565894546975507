"""Depth from files of every kind: the same map; and which way the numbers run."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from llava_aurora.cli.__main__ import app
from llava_aurora.data.sources.depth.depth_import import Tilt, import_maps, tilt, tilt_of_folder
from llava_aurora.data.sources.depth.depth_maps import DepthScale
from llava_aurora.data.sources.scenes.photograph import load_photograph
from llava_aurora.data.sources.scenes.scene import SceneConfig, render_scene
from llava_aurora.errors import AuroraError

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


def test_rooms_and_a_photograph_are_closer_at_the_bottom():
    scenes = [render_scene(seed=seed, config=SceneConfig(frame=48, shadows=False)).depth for seed in range(12)]
    depths = [*scenes, load_photograph(frame=96).depth]
    right = tilt(METRIC.relative(depth) for depth in depths)
    assert right.judged == 13
    assert right.closer_below >= 12
    assert right.verdict("lower").endswith("as photographs are")
    wrong = tilt(DepthScale(values="relative", closer="higher").relative(depth) for depth in depths)
    assert wrong == Tilt(closer_below=13 - right.closer_below, judged=13)
    assert "warning: " in wrong.verdict("higher")
    assert wrong.verdict("higher").endswith("closer is very likely lower")


@pytest.mark.parametrize(
    ("below", "judged", "start", "end"),
    [
        (0, 0, "0 of 0", "no telling whether closer is higher"),
        (2, 4, "2 of 4", "no telling whether closer is higher"),
        (1, 4, "warning", "closer may be lower"),
        (0, 6, "warning", "closer may be lower"),
        (0, 7, "warning", "closer is very likely lower"),
        (20, 64, "warning", "closer is very likely lower"),
        (30, 64, "warning", "closer may be lower"),
        (40, 64, "40 of 64", "as photographs are"),
    ],
)
def test_the_verdict_says_how_sure_it_is(below, judged, start, end):
    verdict = Tilt(closer_below=below, judged=judged).verdict("higher")
    assert verdict.startswith(start)
    assert verdict.endswith(end)


def test_maps_that_say_nothing_are_not_judged():
    unknown_above = np.pad(np.full((2, 6), 9, np.uint8), ((4, 0), (0, 0)))
    assert tilt([np.full((6, 6), 9, np.uint8), unknown_above, np.ones((2, 2), np.uint8)]) == Tilt(0, 0)


def test_broken_maps_are_passed_over_when_the_folder_is_looked_at(tmp_path, depth):
    np.save(tmp_path / "a.npy", depth)
    (tmp_path / "b.npy").write_bytes(b"")
    assert tilt_of_folder(tmp_path, METRIC).judged == 1


def run(*arguments):
    return CliRunner().invoke(app, ["data", "depth", *map(str, arguments)])


def test_the_command_imports_warns_and_goes_on(tmp_path, depth):
    (tmp_path / "in").mkdir()
    for number in range(8):
        np.save(tmp_path / "in" / f"{number}.npy", depth + number)
    (tmp_path / "in" / "broken.npy").write_bytes(b"")
    flags = ("--maps", tmp_path / "in", "--out", tmp_path / "out", "--values", "relative", "--closer", "higher")
    result = run(*flags)
    assert result.exit_code == 1
    assert "warning: 0 of 8 maps are closer at the bottom than at the top" in result.stderr
    assert "broken.npy: not a usable depth map" in result.stderr
    assert "8 maps written" in result.stdout
    assert "0 were there; 1 failed" in result.stdout
    (tmp_path / "in" / "broken.npy").unlink()
    result = run(*flags)
    assert result.exit_code == 0
    assert "0 maps written; 8 were there; 0 failed" in result.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give either --images"),
        (["--maps", "x", "--images", "x"], "give either --images"),
        (["--maps", "x"], "--maps needs --values"),
        (["--maps", "x", "--values", "metric"], "--maps needs --values"),
        (["--maps", "x", "--values", "metric", "--closer", "nearer"], "--closer is higher or lower"),
        (["--maps", "x", "--values", "metric", "--closer", "higher"], "lower where it is closer"),
        (["--maps", "x", "--bits", "9"], "--bits is 8 or 16"),
        (["--images", "x", "--closer", "lower"], "are about --maps"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(tmp_path, flags, message):
    result = run("--out", tmp_path / "out", *flags)
    assert isinstance(result.exception, AuroraError)
    assert message in str(result.exception)
