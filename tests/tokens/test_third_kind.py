"""A new kind of perception token is one class: everything else (vocabulary, decoding, checkpoint) takes it as it is."""

import numpy as np
import pytest
import torch
from brightness import Brightness
from transformers import AutoTokenizer

from llava_aurora.errors import AuroraError
from llava_aurora.model.constraint import PerceptionLogitsProcessor
from llava_aurora.tokens import (
    build_kinds,
    kind_class,
    register_kind,
    unregister_kind,
)
from llava_aurora.tokens.perception import PerceptionTokens


@pytest.fixture
def brightness():
    register_kind(Brightness)
    yield Brightness(levels=8)
    unregister_kind("brightness")


def test_the_registry_matches_exactly_and_refuses_duplicates(brightness):
    assert kind_class("brightness") is Brightness
    with pytest.raises(ValueError, match="registered already"):
        register_kind(Brightness)
    with pytest.raises(AuroraError, match="unknown token kind 'bright'; there are: box, brightness, depth"):
        kind_class("bright")


def test_it_goes_the_whole_way(brightness, workshop, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)
    settings = {"brightness": {"levels": 8}, "box": {"frame": 56}}
    perception = PerceptionTokens.teach(tokenizer, build_kinds(settings, tmp_path))
    assert list(perception.kinds) == ["box", "brightness"]  # by order, not as they were named
    block = perception.config()
    again = PerceptionTokens.from_config(block, folder=tmp_path, tokenizer=tokenizer)
    assert again.config() == block

    image = np.zeros((8, 8), np.uint8)
    image[:4, 4:] = 255
    text = brightness.text(image)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    (span,) = perception.ids.spans(brightness.family, ids)
    assert list(span.codes) == brightness.encode(image) == [0, 7, 0, 0]
    assert brightness.read(text)[0].tolist() == [[0, 255], [0, 0]]

    processor = PerceptionLogitsProcessor(perception)
    written = torch.tensor([ids[-6:-1]])  # START and four codes: only END may follow
    allowed = processor(written, torch.zeros(1, len(tokenizer))).isfinite().nonzero()[:, 1].tolist()
    assert allowed == [perception.ids.end_id(brightness.family)]
