"""Which way depth runs, and values that mark unknown depth: found in maps, said by every command that takes maps."""

import numpy as np
import pytest
from command import llava_aurora
from PIL import Image

from llava_aurora.data.sources.depth.depth_import import import_maps
from llava_aurora.data.sources.scenes.photograph import load_photograph
from llava_aurora.data.sources.scenes.scene import SceneConfig, render_scene
from llava_aurora.errors import AuroraError
from llava_aurora.vqvae import DepthVQVAEConfig, build_depth_vqvae, save_depth_vqvae
from llava_aurora.vqvae.depth_checks import Tilt, check_depth, likely_markers, tilt
from llava_aurora.vqvae.depth_scale import DepthScale

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
        (0, 0, "0 of 0", "does not show whether closer is higher"),
        (2, 4, "2 of 4", "does not show whether closer is higher"),
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


# --- the doors through which depth maps come in -----------------------------------------------------------------------

DOORS = ["vqvae train", "vqvae encode", "data hardblink"]
SHAPE = ["--image-size", 16, "--channels", "4,8", "--code-dim", 4, "--codebook-size", 16, "--epochs", 1]


@pytest.fixture
def kitti(tmp_path):
    """Eight images with depth in metres × 256, the ground close: as relative depth, all is the wrong way round."""
    for name in ("maps", "images"):
        (tmp_path / name).mkdir()
    for number in range(8):
        depth = (ramp(250, 50 + number, np.float32) * 256).astype(np.uint16)
        depth[:10] = 0  # no echo from the sky
        Image.fromarray(depth).save(tmp_path / "maps" / f"{number}.png")
        Image.new("RGB", (40, 40)).save(tmp_path / "images" / f"{number}.png")
    save_depth_vqvae(build_depth_vqvae(TINY, seed=0), tmp_path / "vqvae")
    return tmp_path


def enter(door, folder, maps, *options):
    """Runs a command on a folder of maps; its output is the file or folder out.parquet."""
    out = ["--out", folder / "out.parquet"]
    arguments = {
        "vqvae train": [maps, *out, *SHAPE],
        "vqvae encode": [maps, *out, "--vqvae", folder / "vqvae"],
        "data hardblink": ["--images", folder / "images", "--depth", maps, *out],
    }
    return llava_aurora(*door.split(), *arguments[door], *options)


def written(folder):
    """The output and its content; without the times that a training took and its state."""
    out = folder / "out.parquet"
    files = [out] if out.is_file() else sorted(out.rglob("*.*"))
    return {
        path.name: path.read_bytes() for path in files if path.name not in ("training_log.jsonl", "training_state.pt")
    }


@pytest.mark.parametrize("door", DOORS)
def test_reversed_depth_is_refused_until_its_polarity_is_said(kitti, door):
    result = enter(door, kitti, kitti / "maps")
    assert isinstance(result.exception, AuroraError)
    assert "0 of 8 maps" in str(result.exception)
    assert "closer is very likely lower. Say what the values are: --values metric" in str(result.exception)
    assert not (kitti / "out.parquet").exists()
    result = enter(door, kitti, kitti / "maps", "--closer", "higher")
    assert (result.exit_code, "warning: 0 of 8 maps" in result.stderr) == (0, True)
    assert written(kitti)


@pytest.mark.parametrize("door", DOORS)
def test_maps_read_by_their_scale_are_the_converted_ones(kitti, door):
    scale = ["--values", "metric", "--closer", "lower", "--unknown", "65535"]
    result = llava_aurora("data", "depth", "--maps", kitti / "maps", "--out", kitti / "converted", *scale)
    assert result.exit_code == 0, result.output
    assert enter(door, kitti, kitti / "converted").exit_code == 0
    converted = written(kitti)
    (kitti / "out.parquet").rename(kitti / "first")
    result = enter(door, kitti, kitti / "maps", *scale)
    assert (result.exit_code, "warning" in result.stderr) == (0, False)
    assert written(kitti) == converted


@pytest.mark.parametrize("door", DOORS)
def test_what_a_command_of_this_project_wrote_has_its_polarity(kitti, door):
    """Photographs of a ceiling: unusual, and right all the same."""
    for path in (kitti / "maps").iterdir():
        Image.fromarray(np.ascontiguousarray(np.array(Image.open(path))[::-1])).save(path)
    scale = DepthScale(values="metric", closer="lower")
    import_maps(maps=kitti / "maps", out=kitti / "converted", scale=scale)
    result = enter(door, kitti, kitti / "converted")
    assert (result.exit_code, "closer is very likely lower" in result.stderr) == (0, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--closer", "lower"], "need --values"),
        (["--unknown", "0"], "need --values"),
        (["--values", "metric", "--closer", "higher"], "lower where it is closer"),
        (["--values", "metric", "--unknown", "x"], "numbers separated by commas"),
        (["--values", "relative"], "needs --closer"),
    ],
)
def test_options_that_do_not_say_what_the_values_are(kitti, options, message):
    result = enter("vqvae encode", kitti, kitti / "maps", *options)
    assert isinstance(result.exception, AuroraError)
    assert message in str(result.exception)
    assert not (kitti / "out.parquet").exists()


def test_a_vqvae_goes_on_with_the_scale_it_began_with(kitti):
    metric = ["--values", "metric"]
    assert enter("vqvae train", kitti, kitti / "maps", *metric).exit_code == 0
    for options in ([], ["--values", "relative", "--closer", "lower"]):
        result = enter("vqvae train", kitti, kitti / "maps", "--closer", "higher", "--resume", *options)
        assert "was trained with depth" in str(result.exception)
    assert enter("vqvae train", kitti, kitti / "maps", *metric, "--resume").exit_code == 0
