"""Images come out as LLaVA's own dataset gives them, bit for bit, from the file and from the cache."""

import json
import os

import numpy as np
import pytest
import torch
from llava import conversation
from llava.train import train as upstream
from PIL import Image, ImageDraw
from transformers import AutoTokenizer, CLIPImageProcessor, SiglipImageProcessor

from llava_aurora.configuration import DataArguments
from llava_aurora.data.curriculum.sampler import Curriculum, CurriculumSampler
from llava_aurora.data.curriculum.schedule import LinearSchedule
from llava_aurora.data.dataset import AuroraDataset
from llava_aurora.data.images import image_reader
from llava_aurora.data.images.image_reader import ImageReader
from llava_aurora.data.transforms.transform import Transform
from llava_aurora.errors import AuroraError

PROCESSORS = {
    "clip": CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
    "resized": CLIPImageProcessor(size={"height": 56, "width": 56}, do_center_crop=False),
    "siglip": SiglipImageProcessor(size={"height": 56, "width": 56}),
}
SIZES = [
    (90, 60),
    (60, 90),
    (64, 64),
    (30, 200),
    (7, 9),
    (56, 56),
]


def words(image, answer="So."):
    turns = [{"from": "human", "value": "<image>\nHow?"}, {"from": "gpt", "value": answer}]
    return {"id": image, "image": image, "conversations": turns}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of many sizes, modes and formats, and records about them, one of them without an image."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    names = []
    for number, (width, height) in enumerate(SIZES):
        colours = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
        for mode, suffixes in {"RGB": ("jpg", "png", "webp"), "RGBA": ("png",), "L": ("jpg", "png"), "CMYK": ("jpg",),
                               "P": ("png", "gif"), "LA": ("png",), "1": ("png",)}.items():  # fmt: skip
            for suffix in suffixes:
                names.append(f"{number}-{mode}.{suffix}")
                (colours.convert("RGB").convert(mode) if mode in ("CMYK", "P", "1") else colours.convert(mode)).save(
                    folder / names[-1]
                )
    records = [words(name) for name in names]
    records.append(
        {**words("none"), "conversations": [{"from": "human", "value": "How?"}, {"from": "gpt", "value": "So."}]}
    )
    del records[-1]["image"]
    (folder / "train.json").write_text(json.dumps(records))
    return folder


@pytest.fixture
def arguments(pictures):
    def make(*, processor="clip", aspect="pad", **more):
        made = DataArguments(
            data_path=str(pictures / "train.json"), image_folder=str(pictures), is_multimodal=True,
            image_aspect_ratio=aspect,
        )  # fmt: skip
        vars(made).update({"image_processor": PROCESSORS[processor], "mm_use_im_start_end": False, **more})
        return made

    return make


@pytest.fixture
def tokenizer(workshop, monkeypatch):
    monkeypatch.setattr(conversation, "default_conversation", conversation.conv_templates["v1"])
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)
    tokenizer.pad_token = tokenizer.unk_token
    return tokenizer


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for index in range(len(theirs)):
        item, expected = ours[index], theirs[index]
        assert item.pop("record_index") == index
        assert list(item) == list(expected)
        for key, value in expected.items():
            assert item[key].dtype == value.dtype, (index, key)
            assert torch.equal(item[key], value), (index, key)


@pytest.mark.parametrize("aspect", ["pad", "square"])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_items_are_upstreams_with_and_without_a_cache(pictures, arguments, tokenizer, tmp_path, processor, aspect):
    if processor == "siglip":
        PROCESSORS["siglip"].crop_size = PROCESSORS["siglip"].size  # as LLaVA asks for one
    flags = arguments(processor=processor, aspect=aspect)
    theirs = upstream.LazySupervisedDataset(flags.data_path, tokenizer, flags)
    assert_same(AuroraDataset(flags.data_path, tokenizer, flags), theirs)
    cached = arguments(processor=processor, aspect=aspect, image_cache=str(tmp_path / "images"), image_cache_gb=1.0)
    for _ in range(2):
        assert_same(AuroraDataset(flags.data_path, tokenizer, cached), theirs)
    assert len(list((tmp_path / "images").rglob("*.img"))) == len(theirs) - 1


@pytest.mark.parametrize("flags", [{"is_multimodal": False}, {"mm_use_im_start_end": True}])
@pytest.mark.parametrize("version", ["v1", "plain", "llama_2", "mpt", "v0"])
def test_text_is_upstreams_in_every_template(arguments, tokenizer, monkeypatch, flags, version):
    template = conversation.conv_templates["llava_llama_2" if version == "llama_2" else version]
    monkeypatch.setattr(conversation, "default_conversation", template)
    made = arguments(**flags)
    theirs = upstream.LazySupervisedDataset(made.data_path, tokenizer, made)
    ours = AuroraDataset(made.data_path, tokenizer, made)
    if version == "plain":  # takes records with an image alone
        theirs.list_data_dict = theirs.list_data_dict[:-1]
        ours.list_data_dict = ours.list_data_dict[:-1]
        ours.store = ours.store.select(np.arange(len(ours.store) - 1))
    assert_same(ours, theirs)


def opened(monkeypatch):
    """The names of the images that are decoded from now on."""
    names, decode = [], image_reader.open_image
    monkeypatch.setattr(image_reader, "open_image", lambda path, **how: names.append(path.name) or decode(path, **how))
    return names


def test_ten_epochs_of_a_curriculum_decode_each_image_once(workshop, tokenizer, arguments, tmp_path, monkeypatch):
    flags = arguments(image_cache=str(tmp_path / "images"))
    flags.image_folder = str(workshop.images)
    ours = AuroraDataset(str(workshop.records), tokenizer, flags)
    theirs = upstream.LazySupervisedDataset(str(workshop.records), tokenizer, flags)
    names = opened(monkeypatch)
    sampler = CurriculumSampler(Curriculum(ours.store, LinearSchedule()), epochs=10, seed=0)
    for epoch in range(10):
        sampler.set_epoch(epoch)
        for index in list(sampler)[:24]:
            assert torch.equal(ours[index]["image"], theirs[index]["image"])
    assert len(names) == len(set(names)) == 16


def test_settings_and_changed_images_never_get_what_is_not_theirs(pictures, arguments, tokenizer, tmp_path):
    """One folder for several runs: padded or not, other sizes, other means; and a file that is replaced."""
    other = CLIPImageProcessor(size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42}, image_mean=[0.1] * 3)
    for aspect in ("pad", "square"):
        for processor in (PROCESSORS["clip"], other):
            flags = arguments(aspect=aspect, image_processor=processor, image_cache=str(tmp_path))
            assert_same(
                AuroraDataset(flags.data_path, tokenizer, flags),
                upstream.LazySupervisedDataset(flags.data_path, tokenizer, flags),
            )
    image = tmp_path / "changing.png"
    values = []
    for grey in (10, 200):
        Image.new("RGB", (50, 60), (grey,) * 3).save(image)
        os.utime(image, ns=(grey, grey))
        reader = ImageReader(folder=str(tmp_path), processor=other, aspect_ratio="pad", cache=str(tmp_path / "images"))
        values.append(reader.pixel_values("changing.png"))
    assert not torch.equal(*values)


class Marking(Transform):
    """Draws into images and leaves records as they are."""

    def __init__(self, image_change):
        self.image_change = image_change

    from_flags = changes = None

    def __call__(self, record):
        return record


def test_what_is_drawn_anew_bypasses_the_cache(pictures, arguments, tokenizer, tmp_path):
    def mark(image):
        image = image.copy()
        ImageDraw.Draw(image).rectangle((0, 0, 20, 20), fill="red")
        return image

    flags = arguments(image_cache=str(tmp_path / "images"))
    plain = AuroraDataset(flags.data_path, tokenizer, flags)
    marking = Marking(lambda record: mark if record["id"].startswith("0-") else None)
    marked = AuroraDataset(flags.data_path, tokenizer, flags, transforms=[marking])
    for _ in range(2):
        assert not torch.equal(marked[0]["image"], plain[0]["image"])
    assert torch.equal(marked[30]["image"], plain[30]["image"])
    size = {"width": 56, "height": 56}
    square = PROCESSORS["clip"].preprocess(
        image_reader.expand2square(mark(Image.open(pictures / "0-RGB.jpg").convert("RGB")), (122, 116, 104)),
        return_tensors="pt", crop_size=size,
    )["pixel_values"][0]  # fmt: skip
    assert torch.equal(marked[0]["image"], square)


class Sharpening(CLIPImageProcessor):
    """A processor whose values depend on more than the pixel itself."""

    def normalize(self, image, *arguments, **settings):
        return super().normalize(image - image.mean(), *arguments, **settings)


def test_a_processor_that_does_more_is_used_as_it_is_and_has_no_cache(pictures, arguments, tokenizer, tmp_path):
    processor = Sharpening(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    flags = arguments(image_processor=processor)
    assert_same(
        AuroraDataset(flags.data_path, tokenizer, flags),
        upstream.LazySupervisedDataset(flags.data_path, tokenizer, flags),
    )
    with pytest.raises(AuroraError, match="--image_cache does not support Sharpening"):
        ImageReader(folder="", processor=processor, aspect_ratio="pad", cache=str(tmp_path))
    with pytest.raises(AuroraError, match="--image_folder is missing"):
        ImageReader(folder=None, processor=processor, aspect_ratio="pad")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (200, 1), (200, 3), (3, 3), (1, 200), (3, 90)])
def test_images_of_few_rows_are_read_as_height_by_width(tmp_path, width, height):
    """LLaVA takes heights of 1 and 3 for channels. Where all rows are alike their number makes no difference."""
    row = np.random.default_rng(0).integers(0, 256, (1, width, 3), dtype=np.uint8)
    for name, rows in {"small.png": height, "large.png": 64}.items():
        Image.fromarray(np.repeat(row, rows, axis=0)).save(tmp_path / name)
    for table in (True, False):
        reader = ImageReader(folder=str(tmp_path), processor=PROCESSORS["resized"], aspect_ratio="square")
        reader.table = reader.table if table else None
        small, large = reader.pixel_values("small.png"), reader.pixel_values("large.png")
        assert small.shape == (3, 56, 56)
        assert torch.equal(small, large)
    assert ImageReader(folder=str(tmp_path), processor=PROCESSORS["clip"], aspect_ratio="pad").frame("small.png").any()


@pytest.mark.parametrize("cache", ["", "images"])
def test_training_turns_images_only_if_asked_to(arguments, tokenizer, tmp_path, cache):
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.save(tmp_path / "phone.png", exif=exif)
    wide.save(tmp_path / "stored.png")
    wide.rotate(-90, expand=True).save(tmp_path / "upright.png")
    names = ["phone.png", "stored.png", "upright.png"]
    (tmp_path / "train.json").write_text(json.dumps([words(name) for name in names]))
    cached = str(tmp_path / cache) if cache else ""
    shown = {}
    for how in ("stored", "upright"):
        flags = arguments(image_cache=cached, image_folder=str(tmp_path), image_orientation=how)
        dataset = AuroraDataset(str(tmp_path / "train.json"), tokenizer, flags)
        shown[how], stored, upright = (dataset[index]["image"] for index in range(3))
    assert torch.equal(shown["stored"], stored)
    assert torch.equal(shown["upright"], upright)


# --- what a record may not name ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["", "images"])
def test_paths_out_of_the_folder_are_refused_by_record(arguments, tokenizer, tmp_path, cache):
    inside = tmp_path / "folder"
    inside.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    Image.new("RGB", (8, 8)).save(inside / "own.png")
    (inside / "linked").symlink_to(tmp_path)
    names = [str(inside / "own.png"), "linked/secret.png", "a/../own.png", str(tmp_path / "secret.png")]
    path = tmp_path / "train.json"
    path.write_text(json.dumps([words(name) for name in [*names, "bad\0name.png"]]))
    flags = arguments(image_cache=str(tmp_path / cache) if cache else "")
    flags.image_folder = str(inside)
    dataset = AuroraDataset(str(path), tokenizer, flags)
    for index in range(3):
        assert dataset[index]["image"].shape == (3, 56, 56)
    with pytest.raises(AuroraError, match=r"train.json: record 3 \(id .*secret.png\): .* leads out of the folder"):
        dataset[3]
    with pytest.raises(AuroraError, match=r"train.json: record 4 .*: cannot read its image"):
        dataset[4]
    path.write_text(json.dumps([words("../secret.png")]))
    with pytest.raises(AuroraError, match=r"train.json: record 0 .* leads out of the image folder"):
        AuroraDataset(str(path), tokenizer, flags)
