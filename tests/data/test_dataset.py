"""Training files are checked when they are opened; what is wrong is said by file and record."""

import json
from types import SimpleNamespace

import pytest
from llava.train import train as upstream
from transformers import AutoTokenizer, CLIPImageProcessor

from llava_aurora.data.dataset import AuroraDataset, read_records
from llava_aurora.errors import AuroraError
from llava_aurora.vocabulary import PerceptionVocabulary, depth_family

DEPTH = depth_family(codebook_size=16, codes_per_map=9)


def record(answer="fine", question="<image>\nHow?", **more):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "x1", "image": "0.png", "conversations": turns, **more}


def spelled(codes):
    return DEPTH.start + "".join(f"<DEPTH_{code}>" for code in codes) + DEPTH.end


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "not LLaVA's format: a JSON list"),
        ([], "with at least one"),
        ([record(), {"id": "x2", "text": "?"}], r"record 1 \(id x2\): not LLaVA's format"),
        ([record(conversations=[])], r"record 0 \(id x1\): a conversation has at least a question and an answer"),
        (
            [record(conversations=[{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}])],
            "turn 0 is from 'gpt'",
        ),
        ([record(conversations=[{"from": "human"}, {"from": "gpt", "value": "b"}])], "turn 0 has no text"),
        ([record(question="no place")], "has an image and 0 places"),
        ([{k: v for k, v in record().items() if k != "image"}], "has <image> in its text but no image"),
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
def dataset(workshop):
    def build(path, families=()):
        tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)
        tokenizer.pad_token = tokenizer.unk_token
        if families:
            PerceptionVocabulary(tuple(families)).add_to(tokenizer)
        arguments = SimpleNamespace(
            image_folder=str(workshop.images),
            image_processor=CLIPImageProcessor.from_pretrained(workshop.base / "vision_tower"),
            is_multimodal=True,
            image_aspect_ratio="square",
            mm_use_im_start_end=False,
        )
        return AuroraDataset(str(path), tokenizer, arguments, families=families)

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
    from llava import conversation

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
