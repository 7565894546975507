"""Constrained decoding: whatever scores a model gives, its spans are well-formed and its text is its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llava_aurora.generation.constraint import PerceptionLogitsProcessor
from llava_aurora.modalities import build_modalities
from llava_aurora.perception import Perception


@pytest.fixture(scope="module", params=[True, False], ids=["legacy", "not legacy"])
def perception(request, workshop):
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False, legacy=request.param)
    modalities = build_modalities({"depth": {"vqvae": str(workshop.vqvae)}, "box": {"frame": 56}}, workshop.folder)
    return Perception.teach(tokenizer, modalities)


def rows(perception: Perception) -> int:
    return perception.ids.first_ids["PIXEL"] + 56


def random_walk(perception, *, steps: int, batch: int, seed: int, eager: float) -> list[list[int]]:
    """Samples under the constraint from random scores that like perception tokens by `eager`."""
    generator = torch.Generator().manual_seed(seed)
    processor = PerceptionLogitsProcessor(perception)
    ids = torch.zeros(batch, 0, dtype=torch.long)
    tokens = list(perception.id_ranges().values())
    likes = list(perception.ids.separators["PIXEL"])
    for _ in range(steps):
        scores = torch.randn(batch, rows(perception), generator=generator)
        for ids_of_family in tokens:
            scores[:, ids_of_family.start : ids_of_family.stop] += eager
        scores[:, likes] += eager
        scores = processor(ids, scores)
        assert scores.isfinite().any(dim=1).all(), "something may always come next"
        ids = torch.cat([ids, torch.multinomial(scores.softmax(-1), 1, generator=generator)], dim=1)
    return ids.tolist()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), eager=st.sampled_from([0.0, 2.0, 5.0]))
def test_every_span_of_a_random_text_is_well_formed(perception, seed, eager):
    depth, pixels = perception.vocabulary.families
    for written in random_walk(perception, steps=60, batch=8, seed=seed, eager=eager):
        closing = len(written)
        while closing and not _closed(perception, written[:closing]):
            closing -= 1  # the walk may end inside a span
        for span in perception.ids.spans(depth, written[:closing]):
            assert len(span.codes) == 9
        for span in perception.ids.spans(pixels, written[:closing]):
            if len(span.codes) == 4:
                x1, y1, x2, y2 = span.codes
                assert x1 < x2
                assert y1 < y2


def _closed(perception, ids) -> bool:
    processor = PerceptionLogitsProcessor(perception)
    return not processor._choice(list(ids)).only


def allowed(perception, ids: list[int], **options) -> set[int]:
    processor = PerceptionLogitsProcessor(perception, **options)
    scores = processor(torch.tensor([ids], dtype=torch.long), torch.zeros(1, rows(perception)))
    return set(scores.isfinite().nonzero()[:, 1].tolist())


def test_text_outside_of_spans_is_untouched(perception):
    depth, _ = perception.vocabulary.families
    codes = set(range(perception.ids.first_code_id(depth), perception.ids.first_code_id(depth) + 16))
    ruled_out = codes | {perception.ids.end_id(depth)}
    assert allowed(perception, []) == set(range(rows(perception))) - ruled_out
    assert allowed(perception, [5, 6, 7]) == set(range(rows(perception))) - ruled_out


def test_a_map_is_exactly_nine_codes_then_its_end(perception):
    depth, _ = perception.vocabulary.families
    whole = perception.ids.ids(depth, range(9))
    for length in range(1, 10):
        first = perception.ids.first_code_id(depth)
        assert allowed(perception, [3, *whole[:length]]) == set(range(first, first + 16))
    assert allowed(perception, [3, *whole[:10]]) == {perception.ids.end_id(depth)}
    assert perception.ids.start_id(depth) in allowed(perception, whole)


def test_words_put_into_the_models_mouth_count(perception):
    depth, _ = perception.vocabulary.families
    first = perception.ids.first_code_id(depth)
    start = perception.ids.start_id(depth)
    assert allowed(perception, [], answer_start=[start]) == set(range(first, first + 16))


def test_the_second_corner_lies_right_of_and_below_the_first(perception):
    _, pixels = perception.vocabulary.families
    first, separator = perception.ids.first_code_id(pixels), list(perception.ids.separators["PIXEL"])

    def coordinates(*codes: int) -> list[int]:
        return [part for code in codes for part in (first + code, *separator)]

    assert allowed(perception, coordinates(7)[:1]) == {separator[0]}
    assert allowed(perception, coordinates(7)) == set(range(first, first + 56))
    assert allowed(perception, coordinates(7, 9)) == set(range(first + 8, first + 56))
    assert allowed(perception, coordinates(7, 9, 8)) == set(range(first + 10, first + 56))
    no_room = allowed(perception, coordinates(55, 9)[: -len(separator)])
    assert len(separator) > 1 or separator[0] not in no_room


def test_rows_of_a_batch_do_not_see_each_other(perception):
    depth, _ = perception.vocabulary.families
    whole = perception.ids.ids(depth, range(9))
    together = torch.tensor([[3] * 5 + whole[:4], whole[:9], [3] * 9])
    processor = PerceptionLogitsProcessor(perception)
    scores = torch.randn(3, rows(perception), generator=torch.Generator().manual_seed(0))
    for row in range(3):
        alone = processor(together[row : row + 1], scores[row : row + 1])
        assert torch.equal(processor(together, scores)[row], alone[0])
