"""Names that lead out of a folder, files that are no images, and bombs."""

import pytest
from PIL import Image

from llava_aurora.data.images.image_files import opened_image, path_inside
from llava_aurora.errors import AuroraError


@pytest.mark.parametrize("name", ["a.png", "train2017/a.png", "a..b/c.png", "./a.png"])
def test_names_inside_are_found(name, tmp_path):
    assert path_inside(tmp_path, name).is_relative_to(tmp_path)


@pytest.mark.parametrize(
    "name", ["", ".", "/etc/passwd", "../a.png", "a/../../b.png", "..", "a\\..\\b.png", "C:/a.png", "a\0b.png"]
)
def test_names_that_lead_out_are_refused(name, tmp_path):
    with pytest.raises(AuroraError, match="leads out of the folder"):
        path_inside(tmp_path, name)


def test_what_is_no_image_is_named(tmp_path):
    with pytest.raises(AuroraError, match=r"gone\.png: there is no such image"), opened_image(tmp_path / "gone.png"):
        pass
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(AuroraError, match=r"text\.png: cannot read the image"), opened_image(tmp_path / "text.png"):
        pass
    whole = tmp_path / "whole.png"
    Image.effect_noise((64, 64), 50).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:1500])
    with pytest.raises(AuroraError, match=r"half\.png: cannot read"), opened_image(tmp_path / "half.png") as picture:
        picture.convert("RGB")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [6000, 3000])  # Pillow only warns above its limit and refuses above twice of it
def test_bombs_are_refused(limit, tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(AuroraError, match=r"bomb\.png: cannot .*pixels"), opened_image(tmp_path / "bomb.png"):
        pass
