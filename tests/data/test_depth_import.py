"""Depth from files of every kind: the same numbers, the same map; and which way they run."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from llava_aurora.cli import app
from llava_aurora.data.depth_import import Tilt, import_maps, read_depth_values, tilt, tilt_of_folder
from llava_aurora.data.depth_maps import DepthScale
from llava_aurora.data.photograph import load_photograph
from llava_aurora.data.scenes import SceneConfig, render_scene
from llava_aurora.errors import AuroraError

METRIC = DepthScale(values="metric", closer="lower")


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


def test_an_exr_of_three_equal_channels_or_one_called_z_is_read(tmp_path, depth):
    exr = pytest.importorskip("OpenEXR")
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    for channels in ({"RGB": np.stack([depth] * 3, axis=-1)}, {"depth.Z": depth, "A": depth * 0}):
        exr.File(header, channels).write(str(tmp_path / "map.exr"))
        assert (read_depth_values(tmp_path / "map.exr") == depth).all()
    exr.File(header, {"U": depth, "V": depth * 2}).write(str(tmp_path / "map.exr"))
    with pytest.raises(AuroraError, match=r"expected one channel, or one called Z, found U, V"):
        read_depth_values(tmp_path / "map.exr")


def test_every_format_gives_the_same_map(tmp_path, depth):
    pytest.importorskip("OpenEXR")
    for suffix in (".npy", ".npz", ".exr"):
        save(tmp_path / "in" / suffix[1:] / f"map{suffix}", depth)
    save(tmp_path / "in" / "png" / "map.png", (depth * 5000).astype(np.uint16))
    report = import_maps(maps=tmp_path / "in", out=tmp_path / "out", scale=METRIC, workers=2)
    assert (report.written, report.failures) == (4, {})
    for folder in ("npy", "npz", "exr", "png"):
        with Image.open(tmp_path / "out" / folder / "map.png") as picture:
            assert np.abs(np.asarray(picture).astype(int) - METRIC.relative(depth)).max() <= (folder == "png")


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
        ("map.png", b"no picture", "cannot read the image"),
        ("map.png", png_bomb(12_000, 12_000), "pixels are too many"),
        ("map.png", png_bomb(90_000, 90_000), "decompression bomb"),
        ("map.exr", b"no picture", "not a usable depth map"),
    ],
    ids=range(11),
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
    with pytest.raises(AuroraError, match=r"pip install 'llava-aurora\[exr\]'"):
        read_depth_values(tmp_path / "map.exr")


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
    save(tmp_path / "a.npy", depth)
    (tmp_path / "b.npy").write_bytes(b"")
    assert tilt_of_folder(tmp_path, METRIC).judged == 1


def run(*arguments):
    return CliRunner().invoke(app, ["data", "depth", *map(str, arguments)])


def test_the_command_imports_warns_and_goes_on(tmp_path, depth):
    for number in range(8):
        save(tmp_path / "in" / f"{number}.npy", depth + number)
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
