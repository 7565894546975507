"""The tiny LLaVA that comes with the package: whole, small, as its card says, and an ordinary checkpoint."""

import configparser
import hashlib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from llava.conversation import conv_templates
from PIL import Image

from llava_aurora.data.sources.scenes.raycaster import CEILING, FLOOR
from llava_aurora.data.sources.scenes.scene import SceneConfig, render_scene
from llava_aurora.demo.tiny_base import TINY_BASE, TINY_VQVAE, copy_tiny_base, tiny_frame
from llava_aurora.generation.predictor import Predictor
from llava_aurora.vqvae.checkpoint import load_depth_vqvae

FILES = sorted(path for path in TINY_BASE.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "base"
    copy_tiny_base(folder)
    return Predictor.from_pretrained(folder)


def test_it_is_small_and_its_card_has_its_hashes():
    assert sum(path.stat().st_size for path in FILES) < 8_000_000
    card = (TINY_BASE / "README.md").read_text(encoding="utf-8")
    for path in FILES:
        if path.suffix == ".safetensors" and TINY_VQVAE not in path.parents:
            assert hashlib.sha256(path.read_bytes()).hexdigest() in card, path


def test_an_installed_wheel_has_all_of_it():
    settings = configparser.ConfigParser()
    settings.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    patterns = settings["options.package_data"]["llava_aurora"].split()
    for path in FILES:
        name = path.relative_to(TINY_BASE.parent).as_posix()
        assert any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns), name


def test_it_has_no_perception_tokens_and_answers_what_it_was_pretrained_on(predictor):
    assert predictor.perception is None
    assert predictor.image_size == tiny_frame()
    scene = render_scene(seed=1, config=SceneConfig(frame=tiny_frame(), shadows=False, variety=0.5))
    rooms = {FLOOR: "floor", CEILING: "ceiling"}
    corners = [rooms.get(scene.faces[y, x], "wall") for x, y in ((8, 104), (104, 8))]
    asked = {
        "The values are A 71, B 25, C 33. Which number is the largest?": "The value is highest at A. (A)",
        "What is at the places A (8,104), B (104,8)?": "A (8,104) {}, B (104,8) {}".format(*corners),
    }
    images = [Image.fromarray(scene.image)] * len(asked)
    assert [said.text for said in predictor.write(images, list(asked), max_new_tokens=20)] == list(asked.values())
    template = conv_templates["vicuna_v1"].copy()
    template.append_message(template.roles[0], "Which is larger, 71 or 25?")  # in text alone, as it was taught
    template.append_message(template.roles[1], None)
    ids = torch.tensor([predictor.tokenizer(template.get_prompt()).input_ids])
    written = predictor.model.generate(ids, max_new_tokens=5, do_sample=False)[0]
    assert predictor.tokenizer.decode(written, skip_special_tokens=True).strip().endswith("71")


def test_its_weights_are_finite(predictor):
    assert all(torch.isfinite(each).all() for each in predictor.model.parameters())


def test_its_vqvae_has_a_code_for_each_cell():
    config = load_depth_vqvae(TINY_VQVAE).config
    assert config.image_size == tiny_frame()
    assert (config.grid, config.codebook_size) == (7, 32)
