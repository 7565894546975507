"""Points drawn anew inside the dataset: other items each epoch, the same in a worker as in the process itself."""

import re
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer, CLIPImageProcessor, TrainerState

from llava_aurora.configuration import DataArguments
from llava_aurora.data.dataset import make_supervised_data_module
from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.data.sources.scenes.scene_records import SceneTasks, write_scene_records
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.annotated import Drawing
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import depth_family, pixel_family
from llava_aurora.training.trainer import StartEpoch
from llava_aurora.vqvae.checkpoint import load_depth_vqvae

FRAME, COUNT = 56, 4
DEPTH, PIXELS = depth_family(codebook_size=16, codes_per_map=9), pixel_family(frame=FRAME)


TASKS = ("depth_chain", "depth_generation")


def task_of(items, index):
    return items.store[index]["aurora"]["task"]


@pytest.fixture
def dataset(workshop, tmp_path):
    write_scenes(out=tmp_path / "scenes", count=COUNT, seed=5, config=SceneConfig(frame=112, shadows=False))
    writer = RecordWriter(prompts=Prompts(), families=(DEPTH, PIXELS))
    write_scene_records(
        tmp_path / "train.json",
        scenes=tmp_path / "scenes",
        codes={f"{number:06d}": [number] * 9 for number in range(COUNT)},
        writer=writer,
        tasks=SceneTasks(shares={"depth_chain": 1.0, "depth_generation": 1.0}, drawing=Drawing(frame=FRAME)),
    )
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)
    tokenizer.pad_token = tokenizer.unk_token
    kinds = {"depth": DepthKind(vqvae=load_depth_vqvae(workshop.vqvae)), "box": BoxKind(frame=FRAME)}
    tokenizer.perception = PerceptionTokens.teach(tokenizer, kinds)
    arguments = DataArguments(
        data_path=str(tmp_path / "train.json"),
        image_folder=str(tmp_path / "scenes"),
        is_multimodal=True,
        fresh_points=True,
    )
    arguments.image_processor = CLIPImageProcessor.from_pretrained(workshop.base / "vision_tower")
    arguments.mm_use_im_start_end = False
    items = make_supervised_data_module(tokenizer, arguments)["train_dataset"]
    fresh, _ = items.transforms  # the other one changes records about pixels
    return items, fresh


def test_items_change_with_the_epoch_and_are_the_same_in_any_worker(dataset):
    items, fresh = dataset
    chains, others = ([i for i in range(len(items)) if task_of(items, i) == task] for task in TASKS)
    assert chains
    assert others
    epochs = []
    for epoch in range(2):
        fresh.set_epoch(epoch)
        alone = [items[index] for index in range(len(items))]
        loader = torch.utils.data.DataLoader(items, batch_size=1, num_workers=2, collate_fn=lambda batch: batch[0])
        for one, other in zip(alone, loader, strict=True):
            assert one["record_index"] == other["record_index"]
            assert all(torch.equal(one[name], other[name]) for name in ("input_ids", "labels", "image"))
        epochs.append(alone)
    first, second = epochs
    for index in chains:
        assert not torch.equal(first[index]["image"], second[index]["image"])
        assert first[index]["input_ids"].tolist() != second[index]["input_ids"].tolist()
    for index in others:
        assert torch.equal(first[index]["image"], second[index]["image"])
        assert first[index]["input_ids"].tolist() == second[index]["input_ids"].tolist()


def test_the_trainer_says_which_epoch_it_is(dataset):
    items, fresh = dataset
    callback = StartEpoch(items)
    for epoch, expected in ((0, 0), (1.0, 1), (2.5, 2)):  # a run resumed within an epoch knows a part of one
        callback.on_epoch_begin(None, TrainerState(epoch=epoch), None)
        assert fresh.epoch == expected


def test_records_that_cannot_be_drawn_anew_are_refused(workshop, dataset):
    items, _ = dataset
    arguments = replace(items.data_args, data_path=str(workshop.records), image_folder=str(workshop.images))
    with pytest.raises(AuroraError, match="no record says what its points were drawn from"):
        make_supervised_data_module(items.tokenizer, arguments)
    del items.tokenizer.perception
    with pytest.raises(AuroraError, match="--fresh_points needs depth and box tokens"):
        make_supervised_data_module(items.tokenizer, arguments)


def test_values_are_stated_in_the_chains_that_are_read(workshop, dataset):
    items, _ = dataset
    arguments = replace(items.data_args, fresh_points=False, value_step="interpolated")
    arguments.image_processor, arguments.mm_use_im_start_end = items.data_args.image_processor, False
    valued = make_supervised_data_module(items.tokenizer, arguments)["train_dataset"].list_data_dict
    for before, after in zip(items.store, valued, strict=True):
        stated = re.findall(r"\(<PIXEL_\d+>,<PIXEL_\d+>\) \d\d", after["conversations"][1]["value"])
        assert len(stated) == (len(before["aurora"]["points"]) if "points" in before["aurora"] else 0)
