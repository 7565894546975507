"""Which way depth runs, and values that mark unknown depth: found in maps, said by every command that takes maps."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from llava_aurora.cli.__main__ import app
from llava_aurora.data.sources.depth.depth_maps import DepthScale
from llava_aurora.data.sources.scenes.photograph import load_photograph
from llava_aurora.data.sources.scenes.scene import SceneConfig, render_scene
from llava_aurora.vqvae import DepthVQVAEConfig, build_depth_vqvae, save_depth_vqvae
from llava_aurora.vqvae.depth_checks import Tilt, check_depth, likely_markers, tilt

METRIC = DepthScale(values="metric", closer="lower")
TINY = DepthVQVAEConfig(image_size=16, channels=(4, 8), residual_blocks=1, code_dim=4, codebook_size=16)


def test_rooms_and_a_photograph_are_closer_at_the_bottom():
    scenes = [render_scene(seed=seed, config=SceneConfig(frame=48, shadows=False)).depth for seed in range(12)]
    depths = [*scenes, load_photograph(frame=96).depth]
    right = tilt(METRIC.relative(depth) for depth in depths)
    assert right.judged == 13
    assert right.closer_below >= 12
    assert right.verdict("lower").endswith("as in photographs")
    wrong = tilt(DepthScale(values="relative", closer="higher").relative(depth) for depth in depths)
    assert wrong == Tilt(closer_below=13 - right.closer_below, judged=13)
    assert "warning: " in wrong.verdict("higher")
    assert wrong.verdict("higher").endswith("closer is very likely lower")


@pytest.mark.parametrize(
    ("below", "judged", "start", "end"),
    [
        (0, 0, "0 of 0", "does not tell whether closer is higher"),
        (2, 4, "2 of 4", "does not tell whether closer is higher"),
        (1, 4, "warning", "closer may be lower"),
        (0, 6, "warning", "closer may be lower"),
        (0, 7, "warning", "closer is very likely lower"),
        (20, 64, "warning", "closer is very likely lower"),
        (30, 64, "warning", "closer may be lower"),
        (40, 64, "40 of 64", "as in photographs"),
    ],
)
def test_the_verdict_says_how_sure_it_is(below, judged, start, end):
    verdict = Tilt(closer_below=below, judged=judged).verdict("higher")
    assert verdict.startswith(start)
    assert verdict.endswith(end)


def test_maps_that_say_nothing_are_not_judged():
    unknown_above = np.pad(np.full((2, 6), 9, np.uint8), ((4, 0), (0, 0)))
    assert tilt([np.full((6, 6), 9, np.uint8), unknown_above, np.ones((2, 2), np.uint8)]) == Tilt(0, 0)


# --- values that mark unknown depth -----------------------------------------------------------------------------------


def ramp(low, high, dtype):
    """(40, 40), closer at the bottom."""
    return np.linspace(low, high, 1600).reshape(40, 40).astype(dtype)


@pytest.mark.parametrize(
    ("values", "marker"),
    [
        (ramp(500, 20_000, np.uint16), 65535),
        (ramp(10, 200, np.uint8), 255),
        (ramp(10, 200, np.uint8), 0),
        (ramp(0.1, 1, np.float32), -1),
        (ramp(0.1, 80, np.float32), 1e10),
    ],
)
def test_usual_markers_are_recognized_where_they_are_common_and_apart(values, marker):
    assert likely_markers(values) == []
    values[0, :3] = marker
    assert likely_markers(values) == []
    values[:8] = marker
    assert likely_markers(values) == [marker]


def test_the_depth_of_scenes_and_of_a_photograph_holds_no_markers():
    scenes = [render_scene(seed=seed, config=SceneConfig(frame=48, shadows=False)).depth for seed in range(12)]
    for depth in [*scenes, load_photograph(frame=96).depth]:
        relative = METRIC.relative(depth)
        assert likely_markers(relative[relative > 0]) == []
        assert likely_markers(depth[depth > 0]) == []


def test_a_folder_is_checked_and_unreadable_maps_are_skipped(tmp_path):
    values = ramp(10, 200, np.uint8)
    values[:8] = 255
    values[-1] = 0
    np.save(tmp_path / "a.npy", values)
    (tmp_path / "b.npy").write_bytes(b"")
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    found = check_depth(paths)
    assert (found.checked, found.tilt.judged, found.markers, found.unknown) == (1, 1, {255: 1}, 1 / 40)
    assert "--unknown 255" in found.lines()[-1]
    scale = DepthScale(values="relative", closer="higher", unknown=(0, 255))
    found = check_depth(paths, relative=scale.relative)
    assert (found.markers, found.unknown) == ({}, 9 / 40)


@pytest.mark.parametrize("door", ["vqvae train", "vqvae encode", "data hardblink"])
def test_every_command_that_takes_depth_maps_warns_of_reversed_depth(tmp_path, door):
    """Depth in metres × 256 (KITTI), the ground close: every pixel is read the wrong way round."""
    for name in ("maps", "images"):
        (tmp_path / name).mkdir()
    for number in range(8):
        depth = (ramp(80, 4 + number, np.float32) * 256).astype(np.uint16)
        Image.fromarray(depth).save(tmp_path / "maps" / f"{number}.png")
        Image.new("RGB", (40, 40)).save(tmp_path / "images" / f"{number}.png")
    save_depth_vqvae(build_depth_vqvae(TINY, seed=0), tmp_path / "vqvae")
    shape = ["--image-size", 16, "--channels", "4,8", "--code-dim", 4, "--codebook-size", 16, "--epochs", 1]
    arguments = {
        "vqvae train": [tmp_path / "maps", "--out", tmp_path / "trained", *shape],
        "vqvae encode": [tmp_path / "maps", "--out", tmp_path / "codes.jsonl", "--vqvae", tmp_path / "vqvae"],
        "data hardblink": ["--images", tmp_path / "images", "--depth", tmp_path / "maps", "--out", tmp_path / "out"],
    }
    result = CliRunner().invoke(app, [*door.split(), *map(str, arguments[door])])
    assert "warning: 0 of 8 maps" in result.stderr
    assert "closer is very likely lower" in result.stderr
