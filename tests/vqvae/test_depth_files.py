"""Depth as numbers from files of every kind, and what is refused."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from llava_aurora.data.sources.scenes.scene import SceneConfig, render_scene
from llava_aurora.errors import AuroraError
from llava_aurora.vqvae.depth_files import read_depth_values


@pytest.fixture(scope="module")
def depth():
    """Metres, float32 (48, 48)."""
    return render_scene(seed=1, config=SceneConfig(frame=48, shadows=False)).depth.astype(np.float32)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, depth=values, mask=values > 0)
    elif path.suffix == ".exr":
        exr = pytest.importorskip("OpenEXR")
        header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
        exr.File(header, {"Z": values.astype(np.float32)}).write(str(path))
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".exr"])
def test_float_files_keep_their_numbers(tmp_path, depth, suffix):
    values = read_depth_values(save(tmp_path / f"map{suffix}", depth))
    assert values.dtype.kind == "f"
    assert (values == depth).all()


def test_pngs_keep_their_numbers(tmp_path, depth):
    for values in ((depth * 20).astype(np.uint8), (depth * 1000).astype(np.uint16)):
        read = read_depth_values(save(tmp_path / "map.png", values))
        assert read.dtype == values.dtype
        assert (read == values).all()
    grey = np.repeat((depth * 20).astype(np.uint8)[..., None], 3, axis=2)
    assert (read_depth_values(save(tmp_path / "map.png", grey)) == grey[..., 0]).all()


def test_a_png_that_is_stored_turned_is_refused(tmp_path, depth):
    picture = Image.fromarray((depth * 20).astype(np.uint8))
    exif = picture.getexif()
    for orientation in range(1, 9):
        exif[ExifTags.Base.Orientation] = orientation
        picture.save(tmp_path / "map.png", exif=exif)
        if orientation == 1:
            read_depth_values(tmp_path / "map.png")
        else:
            with pytest.raises(AuroraError, match=rf"map\.png: .*EXIF orientation {orientation}"):
                read_depth_values(tmp_path / "map.png")


def test_an_exr_of_three_equal_channels_or_one_called_z_is_read(tmp_path, depth):
    exr = pytest.importorskip("OpenEXR")
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    for channels in ({"RGB": np.stack([depth] * 3, axis=-1)}, {"depth.Z": depth, "A": depth * 0}):
        exr.File(header, channels).write(str(tmp_path / "map.exr"))
        assert (read_depth_values(tmp_path / "map.exr") == depth).all()
    exr.File(header, {"U": depth, "V": depth * 2}).write(str(tmp_path / "map.exr"))
    with pytest.raises(AuroraError, match=r"expected one channel, or one called Z, found U, V"):
        read_depth_values(tmp_path / "map.exr")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was read')",)


def npy_header(shape, dtype="'<f4'"):
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def npz_of(content, name="depth.npy"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def png_bomb(width, height):
    """A small grey PNG that claims this size."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(1000)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("map.npy", b"", "not a usable depth map"),
        ("map.npy", npy_header("(40, 40)"), "not a usable depth map"),
        ("map.npy", npy_header("(40, 40)", "'|O'"), "expected numbers, found object"),
        ("map.npy", npy_header("(900000, 900000)"), "pixels are too many"),
        ("map.npz", npz_of(npy_header("(900000, 900000)")), "pixels are too many"),
        ("map.npz", npz_of(b"", "a.txt"), "expected one array"),
        ("map.npz", b"PK", "not a usable depth map"),
        ("map.npz", npz_of(npy_header("(4, 4)") + bytes(64)).replace(b"\xa2", b"\x00"), "not a usable depth map"),
        ("map.jpg", b"", r"expected \.png"),
        ("map.png", b"no picture", "not a usable depth map"),
        ("map.png", png_bomb(12_000, 12_000), "pixels are too many"),
        ("map.png", png_bomb(90_000, 90_000), "decompression bomb"),
        ("map.exr", b"no picture", "not a usable depth map"),
    ],
    ids=range(13),
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_broken_files_bombs_and_pickles_are_refused(tmp_path, name, content, message):
    if name.endswith("exr"):
        pytest.importorskip("OpenEXR")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AuroraError, match=rf"{name}: .*{message}"):
        read_depth_values(tmp_path / name)


def test_a_pickle_is_never_read(tmp_path):
    np.save(tmp_path / "map.npy", np.array([[Evil()]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "map.npz", depth=np.array([[Evil()]], dtype=object))
    for name in ("map.npy", "map.npz"):
        with pytest.raises(AuroraError, match="expected numbers, found object"):
            read_depth_values(tmp_path / name)


def test_exr_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    (tmp_path / "map.exr").write_bytes(b"")
    with pytest.raises(AuroraError, match=r"pip install 'llava-aurora\[data\]'"):
        read_depth_values(tmp_path / "map.exr")
