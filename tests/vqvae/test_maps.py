"""Reading relative depth maps: the kinds of files that are accepted, and what is refused by name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.vqvae.maps import DepthMapFolder, read_depth_map

RAMP = np.arange(256, dtype=np.uint8).reshape(8, 32)


@pytest.mark.parametrize(
    "values",
    [RAMP, RAMP.astype(np.uint16) * 257, RAMP / 255, (RAMP / 255).astype(np.float32)],
    ids=["uint8", "uint16", "float64", "float32"],
)
def test_arrays_of_every_kind_read_the_same(tmp_path: Path, values: np.ndarray):
    np.save(tmp_path / "map.npy", values)
    assert np.array_equal(read_depth_map(tmp_path / "map.npy"), RAMP)


@pytest.mark.parametrize(
    "picture",
    [RAMP, RAMP.astype(np.uint16) * 257, np.repeat(RAMP[..., None], 3, axis=2)],
    ids=["8 bits", "16 bits", "grey as colour"],
)
def test_pictures_of_every_kind_read_the_same(tmp_path: Path, picture: np.ndarray):
    Image.fromarray(picture).save(tmp_path / "map.png")
    depth = read_depth_map(tmp_path / "map.png")
    assert depth.dtype == np.uint8
    assert np.array_equal(depth, RAMP)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 4), np.uint8), "all zero"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4), 7.5), r"expected relative depth in \[0, 1\], found 7.5"),
        (np.ones((4, 4, 3), np.uint8), "expected height x width"),
        (np.ones((0, 4), np.uint8), "expected height x width"),
        (np.ones((4, 4), np.int64), "expected uint8, uint16 or float, found int64"),
        (np.array([[{"code": 1}]], dtype=object), "not a usable depth map"),
    ],
)
def test_arrays_that_are_no_map_are_refused(tmp_path: Path, values: np.ndarray, message: str):
    np.save(tmp_path / "map.npy", values)
    with pytest.raises(AuroraError, match=message) as caught:
        read_depth_map(tmp_path / "map.npy")
    assert str(tmp_path / "map.npy") in str(caught.value)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_coloured_pictures_are_refused(tmp_path: Path, mode: str):
    Image.new("RGB", (4, 4), "red").convert(mode).save(tmp_path / "map.png")
    with pytest.raises(AuroraError, match=r"map\.png: .*expected a grey picture"):
        read_depth_map(tmp_path / "map.png")


@pytest.mark.parametrize("name", ["map.png", "map.npy"])
@pytest.mark.parametrize("content", [b"", b"neither", b"\x89PNG\r\n\x1a\n cut off"])
def test_files_that_are_damaged_or_missing_are_refused(tmp_path: Path, name: str, content: bytes):
    with pytest.raises(AuroraError, match=name):
        read_depth_map(tmp_path / name)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AuroraError, match=name):
        read_depth_map(tmp_path / name)


def test_a_folder_lists_its_maps_sorted_and_reads_them_when_asked(tmp_path: Path):
    (tmp_path / "room").mkdir()
    Image.fromarray(RAMP).save(tmp_path / "room" / "b.png")
    np.save(tmp_path / "a.npy", RAMP)
    (tmp_path / "notes.txt").write_text("no map")
    maps = DepthMapFolder(tmp_path)
    assert [path.name for path in maps.paths] == ["a.npy", "b.png"]
    assert len(maps) == 2
    assert np.array_equal(maps[1], RAMP)


def test_folders_without_maps_are_refused(tmp_path: Path):
    with pytest.raises(AuroraError, match="holds none of"):
        DepthMapFolder(tmp_path)
    with pytest.raises(AuroraError, match="no such folder"):
        DepthMapFolder(tmp_path / "nowhere")
