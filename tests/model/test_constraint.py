"""Constrained decoding: whatever scores a model gives, its spans are well-formed and its text is its own."""

import dataclasses
import gc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_kind import PlainKind
from transformers import AutoTokenizer

from llava_aurora.model import constraint
from llava_aurora.model.constraint import PerceptionLogitsProcessor
from llava_aurora.tokens import build_kinds, register_kind, unregister_kind
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import TokenFamily


@pytest.fixture(scope="module", params=[True, False], ids=["legacy", "not legacy"])
def perception(request, workshop):
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False, legacy=request.param)
    kinds = build_kinds({"depth": {"vqvae": str(workshop.vqvae)}, "box": {"frame": 56}}, workshop.folder)
    return PerceptionTokens.teach(tokenizer, kinds)


def rows(perception: PerceptionTokens) -> int:
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


@settings(max_examples=20)
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
    return len(allowed(perception, list(ids))) > rows(perception) / 2


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
    assert allowed(perception, [], starts=[[start]]) == set(range(first, first + 16))


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


# --- the same rules, written down one token at a time ---------------------------------------------------------------


class Ascending(PlainKind):
    """Three codes between START and END, each greater than the one before it."""

    name = "ascending"
    order = 30

    def __init__(self):
        self.family = TokenFamily("UP", 6, (3,), delimited=True)

    def allowed_codes(self, prefix):
        return range(prefix[-1] + 1, 4 + len(prefix)) if prefix else range(4)


@pytest.fixture(scope="module")
def three(workshop):
    register_kind(Ascending)
    settings = {"depth": {"vqvae": str(workshop.vqvae)}, "box": {"frame": 56}, "ascending": {}}
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)
    yield PerceptionTokens.teach(tokenizer, build_kinds(settings, workshop.folder))
    unregister_kind("ascending")


def forbidden_in_text(perception) -> set[int]:
    ids = perception.ids
    delimited = [family for family in perception.vocabulary.families if family.delimited]
    codes = {ids.first_code_id(family) + code for family in delimited for code in range(family.size)}
    return codes | {ids.end_id(family) for family in delimited}


def forbidden(perception, written: list[int], everything: set[int]) -> set[int]:
    """What may not follow, by going back through the text from its end."""
    for kind in perception.kinds.values():
        look = forbidden_in_delimited if kind.family.delimited else forbidden_in_separated
        found = look(perception, kind, written, everything)
        if found is not None:
            return found
    return forbidden_in_text(perception)


def forbidden_in_delimited(perception, kind, written, everything):
    family, ids = kind.family, perception.ids
    codes = []
    for token in reversed(written[-family.lengths[0] - 1 :]):
        if token == ids.start_id(family):
            if len(codes) == family.lengths[0]:
                return everything - {ids.end_id(family)}
            allowed = kind.allowed_codes(codes[::-1])
            return everything - {ids.first_code_id(family) + code for code in allowed}
        if ids.code(family, token) is None:
            return None
        codes.append(ids.code(family, token))
    return None


def forbidden_in_separated(perception, kind, written, everything):
    """A span is open if a code, and perhaps the beginning of a separator, stands at the end."""
    family, ids = kind.family, perception.ids
    separator, most = list(ids.separators[family.name]), family.lengths[-1]
    every_code = {ids.first_code_id(family) + code for code in range(family.size)}
    rest = written[-most * (1 + len(separator)) :]
    for begun in range(len(separator), -1, -1):
        body = rest[: len(rest) - begun]
        if rest[len(body) :] == separator[:begun] and body and ids.code(family, body[-1]) is not None:
            break
    else:
        return None
    codes = []
    while body and ids.code(family, body[-1]) is not None:
        codes.insert(0, ids.code(family, body.pop()))
        if not body or body[-len(separator) :] != separator:
            break
        body = body[: -len(separator)]
    may_follow = kind.allowed_codes(codes) if len(codes) < most else range(0)
    if begun == len(separator):
        codes_only = everything - {ids.first_code_id(family) + code for code in may_follow}
        return codes_only if may_follow else every_code | forbidden_in_text(perception)
    if len(codes) not in family.lengths:
        return everything - {separator[begun]}
    completes = begun == len(separator) - 1
    return every_code | forbidden_in_text(perception) | ({separator[begun]} if completes and not may_follow else set())


def fragments(perception):
    """Pieces of text, right and wrong, that together come to every state."""
    ids = perception.ids
    pieces = [st.integers(3, 30).map(lambda token: [token])]
    for family in perception.vocabulary.families:
        first = ids.first_code_id(family)
        code = st.integers(first, first + family.size - 1)
        if family.delimited:
            run = st.lists(code, max_size=family.lengths[0] + 1)
            start, end = ids.start_id(family), ids.end_id(family)
            pieces += [run, run.map(lambda codes, start=start: [start, *codes]), st.just([end])]
        else:
            separator = list(ids.separators[family.name])
            parts = st.lists(code, min_size=1, max_size=5)
            join = lambda codes, separator=separator: [t for c in codes for t in (c, *separator)]  # noqa: E731
            pieces += [parts.map(join), parts.map(lambda codes, join=join: join(codes)[:-1]), st.just(separator[:1])]
    return st.lists(st.one_of(pieces), max_size=8).map(lambda lists: [token for part in lists for token in part])


@settings(max_examples=150)
@given(data=st.data())
@pytest.mark.parametrize("most_masks", [512, 3])
def test_masks_say_what_the_rules_say_of_any_text(three, data, most_masks):
    texts = data.draw(st.lists(fragments(three), min_size=1, max_size=6))
    start = data.draw(fragments(three))
    width = min(map(len, texts))
    written = [text[len(text) - width :] for text in texts]
    everything = set(range(three.token_ids().stop))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constraint, "MOST_MASKS", most_masks)
        processor = PerceptionLogitsProcessor(three, starts=[start])
        for length in {0, width // 2, max(0, width - 1), width}:
            ids = torch.tensor([text[:length] for text in written], dtype=torch.long).reshape(len(written), length)
            ruled_out = processor.mask(ids)
            scores = processor(ids, torch.zeros(len(written), len(everything) + 7))
            for row, text in enumerate(written):
                expected = forbidden(three, start + text[:length], everything)
                assert set(ruled_out[row].nonzero()[:, 0].tolist()) == expected
                beyond = (
                    set(range(len(everything), len(everything) + 7)) if len(expected) > len(everything) / 2 else set()
                )
                assert set((scores[row] == -torch.inf).nonzero()[:, 0].tolist()) == expected | beyond


@settings(max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("most_places", [constraint.MOST_PLACES, 3])
def test_a_text_read_step_by_step_is_read_as_if_at_once(three, data, most_places):
    """One processor that sees each step, with rows that change places as beams do, and one that sees only this text."""
    texts = data.draw(st.lists(fragments(three), min_size=2, max_size=5))
    written = [text[: min(map(len, texts))] for text in texts]
    start = data.draw(fragments(three))
    scores = torch.zeros(len(texts), rows(three))
    perception = dataclasses.replace(three)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constraint, "MOST_PLACES", most_places)
        follows = PerceptionLogitsProcessor(perception, starts=[start])
        ids = torch.zeros(len(texts), 0, dtype=torch.long)
        for column in torch.tensor(written, dtype=torch.long).T:
            ids = torch.cat([ids, column[:, None]], dim=1)
            at_once = PerceptionLogitsProcessor(dataclasses.replace(three), starts=[start])(ids, scores)
            assert torch.equal(follows(ids, scores), at_once)
            if data.draw(st.booleans()):
                ids = ids[torch.tensor(data.draw(st.permutations(range(len(texts)))))]
            assert len(constraint._kept_of(perception).places) <= most_places


@settings(max_examples=100)
@given(data=st.data())
def test_along_a_text_every_beginning_is_ruled_as_it_is_alone(three, data):
    written, start = data.draw(fragments(three)), data.draw(fragments(three))
    count = data.draw(st.integers(1, len(written) + 1))
    scores = torch.randn(count, rows(three), generator=torch.Generator().manual_seed(0))
    processor = PerceptionLogitsProcessor(three, starts=[start])
    found = PerceptionLogitsProcessor(three).along(start + written, scores)
    for row in range(count):
        beginning = torch.tensor([written[: len(written) - count + 1 + row]], dtype=torch.long)
        assert torch.equal(found[row], processor(beginning, scores[row : row + 1])[0])


def test_masks_are_kept_but_not_without_limit(perception, monkeypatch):
    perception = dataclasses.replace(perception)
    monkeypatch.setattr(constraint, "MOST_MASKS", 8)
    pixels = perception.vocabulary.families[1]
    first, separator = perception.ids.first_code_id(pixels), list(perception.ids.separators["PIXEL"])
    processor = PerceptionLogitsProcessor(perception)
    texts = torch.tensor([[first + x, *separator, first + 3, *separator] for x in range(50)])
    for rows_at_once in (1, 7, 50):
        for batch in texts.split(rows_at_once):
            alone = [PerceptionLogitsProcessor(dataclasses.replace(perception)).mask(text[None]) for text in batch]
            assert torch.equal(processor.mask(batch), torch.cat(alone))
            (masks,) = constraint._kept_of(perception).masks.values()
            assert len(masks.numbers) <= len(masks.rows) <= max(16, rows_at_once)


def test_masks_go_with_the_model_that_they_were_made_for(perception):
    mine = dataclasses.replace(perception)
    kept = []
    for _ in range(3):
        PerceptionLogitsProcessor(mine).mask(torch.tensor([[3]]))
        kept.append(constraint._KEPT[id(mine)])
    assert kept[0] is kept[1] is kept[2]
    key = id(mine)
    del mine
    gc.collect()
    assert key not in constraint._KEPT


def test_masks_can_be_used_and_added_to_in_and_out_of_inference_mode(perception):
    perception = dataclasses.replace(perception)
    first = perception.ids.first_code_id(perception.vocabulary.families[1])
    comma = perception.ids.separators["PIXEL"]
    for x in range(12):
        with torch.inference_mode(x % 2 == 0):
            ids = torch.tensor([[first + x, *comma, first + 3, *comma], [3] * (2 + 2 * len(comma))])
            scores = torch.zeros(2, rows(perception), requires_grad=x % 2 == 1)
            masked = PerceptionLogitsProcessor(perception)(ids, scores)
            assert masked[0].isfinite().sum() == 56 - x - 1
    masked.clamp(min=-1).sum().backward()


def test_what_was_written_before_the_reach_changes_nothing(perception):
    processor = PerceptionLogitsProcessor(perception)
    ids = torch.from_numpy(np.random.default_rng(0).integers(3, rows(perception), (32, 3 * processor.reach)))
    assert torch.equal(processor.mask(ids), processor.mask(ids[:, -processor.reach :]))
