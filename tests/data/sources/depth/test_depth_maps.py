"""Relative depth maps: their scale, and a folder of them that is whole whatever happens on the way."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_aurora.data.sources.depth.depth_maps import (
    Share,
    refuse_inside,
    write_maps,
)
from llava_aurora.data.sources.scenes.scene import SceneConfig, relative_depth, render_scene
from llava_aurora.errors import AuroraError
from llava_aurora.found_files import find_files
from llava_aurora.vqvae.depth_scale import DepthScale
from llava_aurora.vqvae.maps import read_depth_map

HIGHER = DepthScale(values="relative", closer="higher")


def test_metric_depth_is_scaled_as_the_scenes_are():
    depth = render_scene(seed=3, config=SceneConfig(frame=64, shadows=False)).depth
    assert (DepthScale(values="metric", closer="lower").relative(depth) == relative_depth(depth)).all()


def test_the_order_of_depths_stays_and_ends_are_1_and_255():
    values = np.random.default_rng(0).normal(size=(20, 30))
    higher, lower = (DepthScale(values="relative", closer=closer).relative(values) for closer in ("higher", "lower"))
    assert (higher.min(), higher.max(), higher.dtype) == (1, 255, np.uint8)
    assert (np.diff(higher.ravel()[np.argsort(values, axis=None)].astype(int)) >= 0).all()
    assert (np.abs(256 - higher.astype(int) - lower) <= 1).all()


def test_unknown_depth_is_zero_and_does_not_shift_the_scale():
    depth = np.array([[0.0, 1.0, 2.0], [np.nan, np.inf, -3.0]])
    assert DepthScale(values="metric", closer="lower").relative(depth).tolist() == [[0, 255, 1], [0, 0, 0]]
    assert HIGHER.relative(depth[:1]).tolist() == [[1, 128, 255]]
    for unknown, expected in [((0,), [0, 1, 255]), ((0, 2), [0, 0, 0]), ((2, 9), [1, 255, 0])]:
        scale = DepthScale(values="relative", closer="higher", unknown=unknown)
        if unknown != (0, 2):
            assert scale.relative(depth[:1]).tolist() == [expected]


def test_16_bits_read_as_8_are_the_8_bit_map(tmp_path):
    values = np.random.default_rng(1).uniform(size=(40, 40))
    wide = DepthScale(values="relative", closer="higher", bits=16).relative(values)
    assert (wide.dtype, wide.min(), wide.max()) == (np.uint16, 257, 65535)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert np.abs(read_depth_map(tmp_path / "wide.png").astype(int) - HIGHER.relative(values)).max() <= 1


def test_clipping_keeps_one_wrong_pixel_from_squeezing_the_others():
    values = np.linspace(0, 1, 1000).reshape(20, 50)
    values[3, 4] = 1e6
    assert np.unique(HIGHER.relative(values)).size == 2
    assert np.unique(DepthScale(values="relative", closer="higher", clip=0.5).relative(values)).size == 255


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"values": "metric", "closer": "higher"}, "lower where it is closer"),
        ({"values": "metres", "closer": "lower"}, "metric or relative"),
        ({"values": "relative", "closer": "higher", "clip": 50}, "percentage"),
        ({"values": "relative", "closer": "higher", "bits": 12}, "8 or 16 bits"),
    ],
)
def test_scales_that_contradict_themselves_are_refused(settings, message):
    with pytest.raises(AuroraError, match=message):
        DepthScale(**settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((3, 3)), "the same everywhere"),
        (np.full((3, 3), np.nan), "it has no known depth"),
        (np.ones((3, 3, 3)), "height x width"),
        (np.ones((3, 3), complex), "expected numbers"),
    ],
)
def test_arrays_without_depth_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        HIGHER.relative(values)


def gradient(path: Path) -> tuple[Path, np.ndarray | AuroraError]:
    """A map for each input, but for those called bad."""
    if path.stem == "bad":
        return path, AuroraError(f"{path}: is bad")
    return path, HIGHER.relative(np.arange(12.0).reshape(3, 4))


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "a.png", "sub/b.c.jpg", "sub/bad.jpg", ".half-written.jpg", "notes.txt"):
        (folder / name).write_bytes(b"")
    return folder


def write(folder, out, *, settings=None, produce=None, share=Share()):  # noqa: B008  it is frozen
    return write_maps(
        folder=folder,
        found=find_files(folder, (".jpg", ".png")),
        out=out,
        settings=settings or {"model": "m"},
        produce=produce or (lambda paths: map(gradient, paths)),
        share=share,
    )


def test_each_input_has_one_map_or_a_line_that_says_why_not(inputs, tmp_path):
    out = tmp_path / "out"
    report = write(inputs, out)
    assert (report.written, report.kept) == (2, 0)
    assert report.passed_over == {"hidden entries": 1, ".txt files": 1}
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == ["a.png", "sub/b.c.png"]
    assert report.failures == {
        str(inputs / "a.png"): "differs only in its suffix from a.jpg, whose map has this name",
        str(inputs / "sub/bad.jpg"): "is bad",
    }
    listed = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert {each["file"]: each["error"] for each in listed} == report.failures


def test_a_stopped_run_goes_on_and_leaves_no_half_file(inputs, tmp_path):
    out = tmp_path / "out"

    def stopped(paths):
        yield gradient(paths[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(inputs, out, produce=stopped)
    assert [path.name for path in out.rglob("*.png")] == ["a.png"]
    before = (out / "a.png").stat().st_mtime_ns
    asked = []
    report = write(inputs, out, produce=lambda paths: asked.extend(paths) or map(gradient, paths))
    assert [path.name for path in asked] == ["b.c.jpg", "bad.jpg"]
    assert (report.written, report.kept) == (1, 1)
    assert (out / "a.png").stat().st_mtime_ns == before


def test_a_map_that_cannot_be_saved_leaves_nothing(inputs, tmp_path, monkeypatch):
    def full(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(AuroraError, match="disk full"):
        write(inputs, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["depth_maps.json"]


def test_the_list_of_failures_goes_when_they_do(inputs, tmp_path):
    write(inputs, tmp_path / "out")
    (inputs / "a.png").unlink()
    (inputs / "sub/bad.jpg").unlink()
    assert write(inputs, tmp_path / "out").failures == {}
    assert not (tmp_path / "out" / "failures.jsonl").exists()


def test_maps_made_otherwise_are_not_mixed(inputs, tmp_path):
    write(inputs, tmp_path / "out")
    with pytest.raises(AuroraError, match="holds depth maps made with model m, not n"):
        write(inputs, tmp_path / "out", settings={"model": "n"})
    with pytest.raises(AuroraError, match="holds depth maps made with model m, not None"):
        write(inputs, tmp_path / "out", settings={"bits": 8})


def test_shares_cover_every_input_once_whatever_is_done_already(inputs, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("llava_aurora.data.sources.depth.depth_maps._gathered", lambda report, share: report)
    for index in range(2):
        produce = lambda paths: asked.append([path.name for path in paths]) or map(gradient, paths)  # noqa: E731
        report = write(inputs, tmp_path / "out", produce=produce, share=Share(index=index, count=2))
        assert report.main == (index == 0)
    assert asked == [["a.jpg", "bad.jpg"], ["b.c.jpg"]]


def test_outputs_among_the_inputs_are_refused(tmp_path):
    for out in (tmp_path, tmp_path / "depth", tmp_path / "x" / ".." / "depth"):
        with pytest.raises(AuroraError, match="would be taken for inputs"):
            refuse_inside(out, tmp_path)
    refuse_inside(tmp_path.parent / "depth", tmp_path)
