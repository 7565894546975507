"""Asking for every pixel: the colours that one question at a time gives, and the reconstruction error of the paper."""

import json

import numpy as np
import pytest
from PIL import Image

from llava_aurora.demo.tiny_base import copy_tiny_base
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.pixel_probe import error_of, evaluate_pixels, probe, summary, yardsticks
from llava_aurora.generation.predictor import Predictor
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.model.embeddings import RowStart, grow_embeddings
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import color_family, pixel_family

SIDE = 4


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "tiny"
    copy_tiny_base(folder)
    return folder


@pytest.fixture(scope="module")
def colored(base):
    """The tiny base with untrained colour tokens: what it sees is arbitrary, but it depends on pixel and image."""
    tokenizer, model, processor, _ = load_pretrained_model(str(base), device="cpu")
    perception = PerceptionTokens.teach(tokenizer, build_kinds({"box": {"frame": 112}, "color": {}}, base))
    start = RowStart(method="words", descriptions=perception.descriptions(tokenizer))
    grow_embeddings(model, rows=len(tokenizer), ids=perception.token_ids(), start=start)
    model.attach_perception(perception)
    return Predictor(tokenizer=tokenizer, model=model, image_processor=processor, name=str(base))


def picture(seed, size=(48, 32)):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)


def test_a_pixel_has_the_colour_of_its_own_question(colored):
    image, seen = picture(0), set()
    probed = probe(colored, image, side=SIDE)
    assert probed.said[probed.true[..., 0] >= 0].all()
    for row, column in np.argwhere(probed.true[..., 0] >= 0):
        place = [int((cell + 0.5) * 112 / SIDE) for cell in (column, row)]
        question = f"What colour is the pixel {pixel_family(frame=112).text(place)}?"
        (alone,) = colored.write([image], [question], answer_start=color_family().start)
        color = colored.perception.kinds["color"].read(alone.text)[0]
        assert tuple(probed.seen[row, column]) == color
        seen.add(color)
    assert probed.token_passes > 0


def test_a_model_without_colour_tokens_is_asked_in_plain_text(base):
    probed = probe(Predictor.from_pretrained(base, device="cpu"), picture(0, (32, 32)), side=2)
    assert probed.unreadable == 1 - probed.said.mean()
    assert not probed.seen[~probed.said].any()


def test_the_error_is_the_papers_sum():
    rng = np.random.default_rng(1)
    seen, true = (rng.integers(0, 256, (SIDE, SIDE, 3)) for _ in range(2))
    total = sum(
        abs(int(seen[i, j, c]) - int(true[i, j, c])) for i in range(SIDE) for j in range(SIDE) for c in range(3)
    )
    assert error_of(seen, true) == pytest.approx(100 * total / (SIDE * SIDE * 255) / 3)
    true[0] = -1  # beside the image
    assert error_of(seen, true) == pytest.approx(np.abs(seen[1:] - true[1:]).mean() / 2.55)


def test_a_finer_blur_is_nearer():
    image = picture(2, (64, 64))
    true = np.asarray(image.resize((64, 64)), np.int16)
    errors = {name: error_of(colors, true) for name, colors in yardsticks(image, true, aspect_ratio="resize").items()}
    assert errors["32 × 32 blur"] < errors["8 × 8 blur"] < errors["mean colour"]


def test_an_evaluation_over_images_resumes_and_gives_both_readings(colored, tmp_path, monkeypatch):
    for number in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        picture(number).save(tmp_path / "images" / f"{number}.png")
    out = tmp_path / "out"
    results = evaluate_pixels(colored, tmp_path / "images", out=out, side=SIDE)
    assert results == json.loads((out / "pixels.json").read_text())
    for name in ("model", "mean colour", "8 × 8 blur", "one colour for all images"):
        channel, total = results["channel"][name], results["sum_of_channels"][name]
        assert channel["low"] <= channel["value"] <= channel["high"]
        assert total["value"] == pytest.approx(3 * channel["value"])
    single = [probe(colored, picture(number), side=SIDE).error for number in range(3)]
    assert results["channel"]["model"]["value"] == pytest.approx(np.mean(single))
    assert results["channel"]["mean colour"]["value"] <= results["channel"]["one colour for all images"]["value"]
    assert "published, theirs" in summary(results)
    assert {path.name for path in out.glob("*.png")} == {"0.png", "1.png", "2.png"}
    monkeypatch.setattr(colored, "write", None)  # nothing is asked again
    assert evaluate_pixels(colored, tmp_path / "images", out=out, side=SIDE) == results
    with pytest.raises(AuroraError, match="choose another folder with --out"):
        evaluate_pixels(colored, tmp_path, out=out, side=SIDE)
    Image.new("L", (9, 9)).save(out / "seen" / "0.png")
    with pytest.raises(AuroraError, match="no picture of 4 × 4 cells with transparency"):
        evaluate_pixels(colored, tmp_path / "images", out=out, side=SIDE)
