"""`data pixels`, `reconstruct` and `eval pixels` as a user runs them."""

import json

import numpy as np
import pytest
from command import llava_aurora
from PIL import Image

from llava_aurora.demo.tiny_base import copy_tiny_base


def run(*arguments, code=0):
    done = llava_aurora(*arguments)
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 30)).save(folder / f"{number}.jpg")
    return folder


def test_records_of_a_folder_of_photographs(photos, tmp_path):
    out = tmp_path / "train.json"
    output = run("data", "pixels", "--image-folder", photos, "--out", out, "--per-image", 2)
    assert "4 written, 0 failed" in output
    assert f"--image_folder {photos} --image_aspect_ratio pad" in output
    assert len({record["id"] for record in json.loads(out.read_text())}) == 4
    plain = tmp_path / "plain.json"
    run("data", "pixels", "--image-folder", photos, "--out", plain, "--tasks", "pixel_value_plain=1")
    assert json.loads(plain.read_text())[0]["conversations"][0]["value"].startswith("<image>\n[reconstruct] loc: [")


def test_a_picture_of_what_a_model_sees(photos, tmp_path):
    copy_tiny_base(tmp_path / "base")
    out = tmp_path / "seen"
    image = photos / "0.jpg"
    output = run("reconstruct", "--model", tmp_path / "base", "--image", image, "--size", 4, "--out", out)
    found = json.loads((out / "pixels.json").read_text())
    assert f"RE, a channel, model: {found['errors']['model']:.1f} %" in output
    assert found["errors"]["8 × 8 blur"] < found["errors"]["mean colour"]
    assert Image.open(out / "seen.png").size == (4, 4)
    assert Image.open(out / "reconstruction.png").width > 500


def test_eval_pixels_asks_the_images_of_a_folder(photos, tmp_path, monkeypatch):
    copy_tiny_base(tmp_path / "base")
    asked = {}
    figures = {"images": 2, "unreadable": 0.5, "channel": {}, "sum_of_channels": {}, "published, theirs": {"x": 1}}

    def evaluate(predictor, folder, **settings):
        asked.update(settings, folder=folder, model=predictor.name)
        return figures

    monkeypatch.setattr("llava_aurora.evaluation.pixel_probe.evaluate_pixels", evaluate)
    base, out = tmp_path / "base", tmp_path / "out"
    output = run("eval", "pixels", "--model", base, "--data", photos, "--out", out, "--limit", 2)
    assert "50.0 % of the answers state no colour; 2 images" in output
    assert (asked["folder"], asked["count"], asked["out"], asked["model"]) == (photos, 2, out, str(base))
