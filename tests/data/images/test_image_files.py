"""Which paths are images of a folder, which files are opened, and how every mode becomes 8-bit RGB."""

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageOps

from llava_aurora.data.images.image_files import FORMATS, open_image, opened_image, orientation, path_inside
from llava_aurora.errors import AuroraError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 20), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "train2017/a.png", "a..b/c.png", "./a.png", "2024-05-01T10:30:00.jpg"])
def test_names_inside_are_found(name, tmp_path):
    assert path_inside(tmp_path, name).is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "names no file"),
        (".", "names no file"),
        ("a\0b.png", "names no file"),
        ("a" * 300, "names no file"),
        ("/etc/passwd", "leads out"),
        ("../a.png", "leads out"),
        ("a/../../b.png", "leads out"),
        ("..", "leads out"),
        ("sub\\a.png", "backslash"),
        ("C:\\a.png", "backslash"),
        ("http://example.org/a.png", "is a URL"),
    ],
)
def test_other_names_are_refused_for_what_they_are(name, reason, tmp_path):
    with pytest.raises(AuroraError, match=reason):
        path_inside(tmp_path, name)


def test_an_absolute_path_may_lead_into_the_folder_by_a_link(tmp_path):
    folder, link = tmp_path / "images", tmp_path / "link"
    (folder / "sub").mkdir(parents=True)
    link.symlink_to(folder)
    for root in (folder, link):
        for name in (folder / "sub" / "a.png", link / "sub" / "a.png"):
            assert path_inside(root, str(name)).parent.samefile(folder / "sub")
        with pytest.raises(AuroraError, match="leads out"):
            path_inside(root, str(tmp_path / "a.png"))


def test_what_is_no_image_is_named(tmp_path):
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, format="PNG")
    (tmp_path / "half.png").write_bytes(whole.getvalue()[:1500])
    (tmp_path / "text.png").write_text("not a picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "postscript.jpg", format="EPS")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("gone.png", "half.png", "text.png", "postscript.jpg", "pipe.png", "folder.png"):
        with pytest.raises(AuroraError, match=name) as raised:
            open_image(tmp_path / name)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("error", [IndexError, KeyError, EOFError, SyntaxError, MemoryError])
def test_whatever_a_reader_raises_names_the_image(error, tmp_path, monkeypatch):
    Image.new("L", (8, 8)).save(tmp_path / "odd.png")

    def fail(*_):
        raise error("strange")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(AuroraError, match=r"odd.png: .*strange"):
        open_image(tmp_path / "odd.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [6000, 3000])  # Pillow only warns above its limit and refuses above twice of it
def test_bombs_are_refused_before_they_are_decoded(limit, tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    not_decoded = Image.open(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr(Image.Image, "convert", None)
    for source in (tmp_path / "bomb.png", not_decoded):
        with pytest.raises(AuroraError, match=r"bomb\.png: cannot .*pixels"):
            open_image(source)


def test_formats_are_opened_whatever_the_suffix(tmp_path):
    for name in FORMATS:
        Image.fromarray(GREY).convert("RGB").save(tmp_path / "image.jpg", format=name)
        assert open_image(tmp_path / "image.jpg").size == (20, 12)
    with opened_image(io.BytesIO((tmp_path / "image.jpg").read_bytes()), name="row 3") as image:
        assert image.size == (20, 12)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_an_image_is_turned_upright_when_a_model_is_asked(turned, suffix, tmp_path):
    upright = Image.fromarray(np.kron(GREY, np.ones((16, 16), np.uint8))).convert("RGB")
    # Each of the first five transpositions, and the turn by half, is its own inverse.
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[turned]) if turned in undo else upright
    exif = Image.Exif()
    exif[0x0112] = turned
    stored.save(tmp_path / f"image.{suffix}", exif=exif)
    shown = open_image(tmp_path / f"image.{suffix}")
    assert shown.size == upright.size
    assert np.abs(np.asarray(shown, np.int16) - np.asarray(upright)).mean() < 12
    assert open_image(Image.open(tmp_path / f"image.{suffix}")) == shown
    assert open_image(shown) == shown
    if suffix != "tif":  # which Pillow turns while decoding
        assert open_image(tmp_path / f"image.{suffix}", upright=False).size == stored.size
    assert orientation(ImageOps.exif_transpose(Image.open(tmp_path / f"image.{suffix}"))) == 1


def test_a_damaged_exif_block_turns_nothing(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "image.jpg", exif=b"Exif\0\0nonsense")
    assert open_image(tmp_path / "image.jpg").size == (20, 12)


def test_deep_images_are_scaled(tmp_path):
    expected = Image.fromarray(GREY).convert("RGB")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(GREY.astype(np.int32) * 257).save(tmp_path / "integers.tif")
    for name, top in {"unit": 1, "bytes": 255, "words": 65535}.items():
        Image.fromarray((GREY / 255 * top).astype(np.float32)).save(tmp_path / f"{name}.tif")
    for path in tmp_path.iterdir():
        assert open_image(path) == expected, path
        assert open_image(path, upright=False, on_white=False) == expected, path


@pytest.mark.parametrize("value", [-1, 70000, np.nan, np.inf])
def test_values_of_no_known_range_are_refused(value, tmp_path):
    Image.fromarray(np.array([[0, value]], dtype=np.float32)).save(tmp_path / "odd.tif")
    with pytest.raises(AuroraError, match=r"odd.tif: .* mode F"):
        open_image(tmp_path / "odd.tif")


def test_transparent_parts_are_white_when_a_model_is_asked(tmp_path):
    """By mode: alpha beside colours or grey, one transparent colour, and a palette."""
    cut = Image.new("RGBA", (20, 10), (0, 255, 0, 0))
    cut.paste((200, 0, 0, 255), (0, 0, 10, 10))
    images = {"RGBA": cut, "LA": cut.convert("LA"), "P": cut.quantize(4)}
    for mode, image in images.items():
        image.save(tmp_path / f"{mode}.png")
    Image.new("RGB", (20, 10), (0, 255, 0)).save(tmp_path / "RGB.png", transparency=(0, 255, 0))
    for path in tmp_path.iterdir():
        assert open_image(path).getpixel((19, 9)) == (255, 255, 255), path
    assert open_image(tmp_path / "RGBA.png").getpixel((0, 0)) == (200, 0, 0)
    assert open_image(tmp_path / "RGBA.png", on_white=False).getpixel((19, 9)) == (0, 255, 0)
