"""Training files are checked when they are opened, and items and batches are upstream's but for their indices."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from llava import conversation
from llava.train import train as upstream
from transformers import AutoTokenizer, CLIPImageProcessor

from llava_aurora.configuration import DataArguments
from llava_aurora.data.dataset import AuroraCollator, AuroraDataset, make_supervised_data_module, read_records
from llava_aurora.errors import AuroraError
from llava_aurora.tokens.vocabulary import PerceptionVocabulary, depth_family

DEPTH = depth_family(codebook_size=16, codes_per_map=9)


def record(answer="fine", question="<image>\nHow?", **more):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "x1", "image": "0.png", "conversations": turns, **more}


def turns(*speakers):
    return [{"from": speaker, "value": f"{number}?"} for number, speaker in enumerate(speakers)]


def spelled(codes):
    return DEPTH.start + "".join(f"<DEPTH_{code}>" for code in codes) + DEPTH.end


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "not LLaVA's format: a JSON list"),
        ([], "with at least one"),
        ([record(), {"id": "x2", "text": "?"}], r"record 1 \(id x2\): not LLaVA's format"),
        ([record(conversations=[])], r"record 0 \(id x1\): a conversation has at least a question and an answer"),
        ([record(conversations=turns("gpt", "human"))], "a conversation has at least a question and an answer"),
        ([record(conversations=turns("gpt", "human", "human"))], "turn 2 is from 'human'"),
        ([record(answer="a \udc80")], r"turn 1 has '\\udc80', half a surrogate pair"),
        ([record(conversations=turns("system", "human", "gpt"))], "turn 0 is from 'system'"),
        ([record(conversations=[{"from": "human"}, {"from": "gpt", "value": "b"}])], "turn 0 has no text"),
        ([record(question="no place")], "has an image and 0 places"),
        ([record(image=["0.png", 1])], r"its image is \['0.png', 1\], not a path or a list of paths"),
        ([record(image=["0.png", "1.png"])], "has 2 images and 1 <image>; one for each is expected"),
        ([record(image=["0.png", "1.png"], question="<image>\n<image>\nHow?")], "a question has 2 <image>"),
        ([record(image=["0.png", "../1.png"])], "its image ../1.png leads out of the image folder"),
        ([record(answer="<image>")], "<image> is in an answer"),
        ([record(answer="<DEPTH_START><DEPTH_003><DEPTH_END>")], "turn 1: <DEPTH_003> at .* is an unknown token"),
        ([record(answer=spelled([1] * 8))], r"record 0 \(id x1\): turn 1: the DEPTH span at character 0 has 8 codes"),
        ([record(answer=spelled([1] * 8 + [16]))], "turn 1: code 16, number 8 of the DEPTH span"),
    ],
)
def test_bad_files_are_refused(tmp_path, content, message):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    with pytest.raises(AuroraError, match=f"train.json: .*{message}"):
        read_records(path, families=[DEPTH])


@pytest.fixture
def tokenizer(workshop):
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)
    tokenizer.pad_token = tokenizer.unk_token
    return tokenizer


@pytest.fixture
def data_args(workshop):
    arguments = DataArguments(
        data_path=str(workshop.records), image_folder=str(workshop.images), is_multimodal=True, lazy_preprocess=True
    )
    arguments.image_processor = CLIPImageProcessor.from_pretrained(workshop.base / "vision_tower")
    arguments.mm_use_im_start_end = False
    return arguments


@pytest.fixture
def dataset(tokenizer, data_args):
    def build(path, families=()):
        if families:
            PerceptionVocabulary(tuple(families)).add_to(tokenizer)
        return AuroraDataset(str(path), tokenizer, data_args, families=families)

    return build


@pytest.mark.parametrize(("image", "content"), [("gone.png", None), ("broken.png", b"no picture")])
def test_a_missing_or_broken_image_names_file_and_record(dataset, workshop, tmp_path, image, content):
    if content is not None:
        (workshop.images / image).write_bytes(content)
    path = tmp_path / "train.json"
    path.write_text(json.dumps([record(image=image)]))
    with pytest.raises(AuroraError, match=rf"train.json: record 0 \(id x1\): cannot read its image .*{image}"):
        dataset(path)[0]


def test_a_map_counts_with_all_its_tokens_when_batches_are_grouped_by_length(dataset, tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([record(answer=f"map {spelled([1] * 9)}"), record(answer="map x")]))
    with_map, without = dataset(path, families=[DEPTH]).modality_lengths
    assert with_map == without + 11


@pytest.mark.parametrize("legacy", [True, False])
def test_the_label_mask_covers_exactly_the_answer(dataset, workshop, monkeypatch, legacy):
    """LLaVA's mask arithmetic holds when an answer begins or ends with a perception token."""
    monkeypatch.setattr(conversation, "default_conversation", conversation.conv_templates["v1"])
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False, legacy=legacy)
    tokenizer.pad_token = tokenizer.unk_token
    PerceptionVocabulary((DEPTH,)).add_to(tokenizer)
    for answer in (spelled([1] * 9), f"The map is {spelled([2] * 9)}. Good.", "(A)"):
        sources = [record(answer=answer)["conversations"]]
        item = upstream.preprocess(sources, tokenizer, has_image=True)
        learned = item["labels"][0][item["labels"][0] != -100].tolist()
        text = tokenizer.decode(learned, spaces_between_special_tokens=False)
        assert text.replace("</s>", "").replace(" ", "") == answer.replace(" ", "")  # legacy adds blanks of its own
        assert learned[-1] == tokenizer.eos_token_id


def test_items_and_batches_are_upstreams_and_know_their_records(dataset, workshop, tokenizer, data_args):
    ours = dataset(workshop.records)
    theirs = upstream.LazySupervisedDataset(str(workshop.records), tokenizer, data_args)
    assert len(ours) == len(theirs) == 64
    assert ours.modality_lengths == theirs.modality_lengths
    assert ours.lengths == theirs.lengths
    assert set(vars(theirs)) <= set(vars(ours))
    indices = [5, 0, 63]
    items = [ours[index] for index in indices]
    assert [item.pop("record_index") for item in items] == indices
    expected = [theirs[index] for index in indices]
    for item, other in zip(items, expected, strict=True):
        assert list(item) == list(other)
        assert all(torch.equal(item[key], other[key]) for key in other)
    batch = AuroraCollator(tokenizer=tokenizer)([ours[index] for index in indices])
    assert torch.equal(batch.pop("record_indices"), torch.tensor(indices))
    other = upstream.DataCollatorForSupervisedDataset(tokenizer=tokenizer)(expected)
    assert list(batch) == list(other)
    assert all(torch.equal(batch[key], other[key]) for key in other)


def test_what_llava_trains_on_is_trained_on_alike(dataset, tokenizer, data_args, tmp_path, monkeypatch):
    """A first turn from gpt is skipped, and <image> in a record without an image is text."""
    monkeypatch.setattr(conversation, "default_conversation", conversation.conv_templates["v1"])
    text = {"id": "t", "conversations": record()["conversations"]}
    first = {"id": "f", "conversations": turns("gpt", "human", "gpt")}
    with_image = record(conversations=[{"from": "gpt", "value": "Hello"}, *record()["conversations"]])
    path = tmp_path / "train.json"
    path.write_text(json.dumps([text, first, with_image]))
    theirs = upstream.LazySupervisedDataset(str(path), tokenizer, data_args)
    ours = dataset(path, families=[DEPTH])
    assert ours.modality_lengths == theirs.modality_lengths
    for index in range(3):
        for key in ("input_ids", "labels"):
            assert torch.equal(ours[index][key], theirs[index][key])
        assert (ours[index]["labels"] != -100).sum() > 2
    path.write_text(json.dumps([{**text, "image": None, "aurora": None}]))
    assert torch.equal(dataset(path)[0]["input_ids"], theirs[0]["input_ids"])


def test_blanks_inside_spans_are_removed_when_a_record_is_read_for_training(dataset, tmp_path):
    written = f"map {spelled([1] * 9)} and so on"
    path = tmp_path / "train.json"
    path.write_text(json.dumps([record(answer=text) for text in (written, written.replace("><", ">\n <"))]))
    read = dataset(path, families=[DEPTH])
    assert read[0]["input_ids"].tolist() == read[1]["input_ids"].tolist()
    assert read.modality_lengths[0] == read.modality_lengths[1]


def test_without_a_flag_there_is_no_curriculum_and_no_evaluation(tokenizer, data_args):
    module = make_supervised_data_module(tokenizer, data_args)
    assert set(module) == {"train_dataset", "eval_dataset", "data_collator"}
    assert module["train_dataset"].curriculum is None
    assert module["eval_dataset"] is None


def test_a_cache_that_cannot_be_used_is_told_before_training(tokenizer, data_args, tmp_path):
    (tmp_path / "file").touch()
    data_args.image_cache = str(tmp_path / "file" / "cache")
    with pytest.raises(AuroraError, match=r"cannot write images there \(--image_cache\)"):
        make_supervised_data_module(tokenizer, data_args)


def test_the_flags_choose_tasks_and_curriculum_of_training_and_ablations_of_both(tokenizer, data_args, workshop):
    flags = {"curriculum": "linear", "train_tasks": "atomic,depth_chain", "plain_coordinates": True}
    flags |= {"coordinate_step": False, "eval_data_path": str(workshop.records)}
    module = make_supervised_data_module(tokenizer, with_flags(data_args, **flags))
    train, held_out = module["train_dataset"], module["eval_dataset"]
    assert train.curriculum.counts == {"depth_generation": 16, "depth_chain": 16}
    assert (len(train), len(held_out), held_out.curriculum) == (32, 64, None)
    for records in (train.list_data_dict, held_out.list_data_dict):
        answers = {record["id"]: record["conversations"][1]["value"] for record in records}
        assert "The depth map is <DEPTH_START>" in answers["0/depth_chain"]
        assert answers["0/depth_chain"].startswith("The depth map")
        assert "PIXEL" not in "".join(answers.values())
    assert "(1,2,30,40)" in held_out.list_data_dict[7]["conversations"][1]["value"]


def test_evaluation_has_a_folder_of_its_own_which_is_tried_before_training(
    tokenizer, data_args, workshop, tmp_path, monkeypatch
):
    shutil.copytree(workshop.images, tmp_path / "images")
    flags = {"eval_data_path": str(workshop.records), "eval_image_folder": str(tmp_path / "images")}
    module = make_supervised_data_module(tokenizer, with_flags(data_args, **flags))
    assert module["train_dataset"].images.folder == str(workshop.images)
    assert module["eval_dataset"].images.folder == str(tmp_path / "images")
    (tmp_path / "images" / "7.png").unlink()
    with pytest.raises(AuroraError, match=r"train.json: record \d+ \(id 7/\w+\): cannot read its image 7.png"):
        make_supervised_data_module(tokenizer, with_flags(data_args, **flags))


def test_coordinates_without_tokens_of_their_own_are_no_mistake_of_the_file(tokenizer, data_args, workshop):
    """With plain coordinates a model needs depth tokens alone; those of the file are as they are."""
    tokenizer.perception = SimpleNamespace(vocabulary=PerceptionVocabulary((DEPTH,)), kinds={})
    plain = with_flags(data_args, plain_coordinates=True)
    train = make_supervised_data_module(tokenizer, plain)["train_dataset"]
    assert "PIXEL" not in "".join(turn["value"] for record in train.list_data_dict for turn in record["conversations"])


def test_a_selected_record_is_named_by_its_place_in_the_file(tokenizer, data_args, tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([record(), record(image="gone.png", aurora={"task": "depth_direct"})]))
    chosen = with_flags(data_args, data_path=str(path), train_tasks="direct")
    train = make_supervised_data_module(tokenizer, chosen)["train_dataset"]
    with pytest.raises(AuroraError, match=r"train.json: record 1 \(id x1\): cannot read its image .*gone.png"):
        train[0]


def with_flags(data_args, **changes):
    """The arguments with other flags; upstream adds attributes that are no fields, which stay."""
    changed = dataclasses.replace(data_args, **changes)
    vars(changed).update({name: value for name, value in vars(data_args).items() if name not in vars(changed)})
    return changed
