"""Boxes land where LLaVA's own image processing puts their pixels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from llava.train import train as upstream
from PIL import Image
from transformers import CLIPImageProcessor

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.images.image_reader import ImageReader, asked_pixels
from llava_aurora.errors import AuroraError
from llava_aurora.tokens.box import BoxKind

FRAME = 336
PAINT = (255, 0, 255)
PROCESSOR = CLIPImageProcessor(size={"shortest_edge": FRAME}, crop_size={"height": FRAME, "width": FRAME})


def photograph(name, *, portrait, odd):
    """A photograph of 600 × 400 or 451 × 300 pixels, turned and cut by one pixel as asked."""
    data = pytest.importorskip("skimage.data")
    image = getattr(data, name)()
    image = image.transpose(1, 0, 2) if portrait else image
    image = image[:-1, :-1] if odd else image
    return Image.fromarray(np.ascontiguousarray(image))


def painted(image, box):
    copy = image.copy()
    copy.paste(PAINT, (box[0], box[1], box[2], box[3]))
    return copy


def where_painted(pixels):
    """First and one behind the last column and row of paint in what the vision tower is given, (3, H, W)."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (PROCESSOR.image_mean, PROCESSOR.image_std))
    colors = (pixels * std + mean).numpy()
    paint = (colors[0] > 0.75) & (colors[1] < 0.25) & (colors[2] > 0.75)
    rows, columns = np.flatnonzero(paint.any(axis=1)), np.flatnonzero(paint.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def when_answering(image, aspect_ratio, tmp_path):
    return asked_pixels([image], PROCESSOR, SimpleNamespace(image_aspect_ratio=aspect_ratio))[0]


def when_training(image, aspect_ratio, tmp_path, monkeypatch):
    """Upstream's dataset, without its tokenizer; it does not know "resize"."""
    if aspect_ratio == "resize":
        image.save(tmp_path / "image.png")
        reader = ImageReader(folder=str(tmp_path), processor=PROCESSOR, aspect_ratio=aspect_ratio)
        return reader.pixel_values("image.png")
    monkeypatch.setattr(upstream, "preprocess_multimodal", lambda sources, _: sources)
    monkeypatch.setattr(upstream, "preprocess", lambda *_, **__: {"input_ids": [0], "labels": [0]})
    image.save(tmp_path / "image.png")
    dataset = object.__new__(upstream.LazySupervisedDataset)
    dataset.tokenizer = None
    dataset.list_data_dict = [{"image": "image.png", "conversations": []}]
    dataset.data_args = SimpleNamespace(
        image_folder=str(tmp_path), image_processor=PROCESSOR, image_aspect_ratio=aspect_ratio
    )
    return dataset[0]["image"]


@pytest.mark.parametrize("way", ["answering", "training"])
@pytest.mark.parametrize("aspect_ratio", ["pad", "square", "resize"])
@pytest.mark.parametrize("portrait", [False, True])
@pytest.mark.parametrize(("name", "odd"), [("coffee", False), ("coffee", True), ("chelsea", True)])
def test_a_box_is_where_the_model_sees_it(name, odd, portrait, aspect_ratio, way, tmp_path, monkeypatch):
    image = photograph(name, portrait=portrait, odd=odd)
    width, height = image.size
    boxes = [
        (width // 3, height // 3, width // 3 + 60, height // 3 + 40),
        (width // 2 - 7, height // 2 + 3, width // 2 + 100, height // 2 + 50),
        (int(width * 0.45), int(height * 0.7), int(width * 0.45) + 25, int(height * 0.7) + 33),
    ]
    transform = FrameTransform.of(width=width, height=height, frame=FRAME, aspect_ratio=aspect_ratio)
    for box in boxes:
        shown = painted(image, box)
        arguments = shown, aspect_ratio, tmp_path
        pixels = when_answering(*arguments) if way == "answering" else when_training(*arguments, monkeypatch)
        moved, share = transform.box(box)
        codes = BoxKind(frame=FRAME).encode(moved)
        assert share == pytest.approx(1)
        assert np.abs(np.subtract(where_painted(pixels), codes)).max() <= 1


@pytest.mark.parametrize("portrait", [False, True])
def test_resized_images_are_those_of_auroras_code(portrait, tmp_path, monkeypatch):
    """It resizes each image by nearest neighbour, and leaves the square to LLaVA."""
    image = photograph("coffee", portrait=portrait, odd=True)
    theirs = when_training(image.resize((FRAME, FRAME), Image.Resampling.NEAREST), "pad", tmp_path, monkeypatch)
    assert torch.equal(when_training(image, "resize", tmp_path, monkeypatch), theirs)
    assert torch.equal(when_answering(image, "resize", tmp_path), theirs)


def test_padding_and_resizing_keep_all_of_an_image_and_cutting_the_middle():
    for aspect_ratio, kept in (("pad", 1), ("resize", 1), ("square", 0.5)):
        transform = FrameTransform.of(width=800, height=400, frame=FRAME, aspect_ratio=aspect_ratio)
        assert transform.box((0, 0, 800, 400))[1] == pytest.approx(kept)
    assert transform.box((0, 0, 100, 100))[1] == 0
    assert transform.box((150, 0, 250, 100))[1] == pytest.approx(0.5)


def test_what_is_impossible_is_refused():
    with pytest.raises(AuroraError, match="0 × 5 pixels has no area"):
        FrameTransform.of(width=0, height=5, frame=FRAME, aspect_ratio="pad")
    with pytest.raises(AuroraError, match="unknown aspect ratio 'anyres'; available: pad, square, resize"):
        FrameTransform.of(width=5, height=5, frame=FRAME, aspect_ratio="anyres")


@pytest.mark.parametrize("aspect_ratio", ["pad", "square", "resize"])
@pytest.mark.parametrize("size", [(800, 400), (451, 300), (96, 96), (40, 90)])
def test_a_point_lies_in_the_pixel_of_the_frame_that_shows_it(aspect_ratio, size):
    transform = FrameTransform.of(width=size[0], height=size[1], frame=FRAME, aspect_ratio=aspect_ratio)
    rng = np.random.default_rng(0)
    for point in rng.integers(0, size, (50, 2)).tolist():
        box, share = transform.box((point[0], point[1], point[0] + 1, point[1] + 1))
        x, y = transform.pixel(point)
        if share > 0:
            middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            assert np.abs(np.subtract(middle, (x + 0.5, y + 0.5))).max() <= 0.5 + max(transform.scale) / 2
        else:
            assert x in (0, FRAME - 1) or y in (0, FRAME - 1)
