"""Masking the input codes of maps: inputs change, labels stay, and what follows the map gets no labels."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer

from llava_aurora.model.span_masking import MOST_WRONG, CodeNoise, SpanMasking, masked_spans
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import PerceptionIds, PerceptionVocabulary, TokenFamily

CODES = 9
QUESTION, WORDS, ANSWER = [1, -200, 5, 6], [7, 8], [10, 11, 2]
NONE = -100


@pytest.fixture(scope="module")
def perception(workshop):
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)
    settings = {"depth": {"vqvae": str(workshop.vqvae)}, "box": {"frame": 56}}
    return PerceptionTokens.teach(tokenizer, build_kinds(settings, workshop.folder))


@pytest.fixture
def span(perception):
    """START, codes 0 … 8, END."""
    family = perception.kinds["depth"].family
    return perception.ids.ids(family, range(CODES))


def batch(*answers):
    rows = [(QUESTION + answer, [NONE] * len(QUESTION) + answer) for answer in answers]
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
    return ids, torch.tensor([labels + [NONE] * (width - len(labels)) for _, labels in rows])


def test_inputs_of_codes_are_masked_and_what_follows_is_not_learned(perception, span, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size: torch.zeros(size))  # every span, whole
    input_ids, labels = batch(WORDS + span + ANSWER, WORDS)
    before = input_ids.clone(), labels.clone()
    masked_ids, masked_labels = SpanMasking(perception, probability=1.0)(input_ids, labels)
    start, *codes, end = span
    assert masked_ids[0].tolist() == QUESTION + WORDS + [start] + [end] * CODES + [end] + ANSWER
    learned = [NONE] * len(QUESTION) + WORDS + [start, *codes, end]
    assert masked_labels[0].tolist() == learned + [NONE] * len(ANSWER)
    assert torch.equal(masked_ids[1], input_ids[1])
    assert torch.equal(masked_labels[1], labels[1])
    assert all(torch.equal(*pair) for pair in zip((input_ids, labels), before, strict=True))


def test_spans_of_every_length_are_masked():
    family = TokenFamily("SHORT", 4, (2, 3), delimited=True)
    ids = PerceptionIds(vocabulary=PerceptionVocabulary((family,)), first_ids={"SHORT": 20}, separators={})
    perception = PerceptionTokens(
        kinds={"short": SimpleNamespace(family=family, cell_codes=family.size, allowed_by_place=True)}, ids=ids
    )
    two, three = ids.ids(family, [0, 1]), ids.ids(family, [1, 2, 3])
    torch.manual_seed(0)
    masked_ids, _ = SpanMasking(perception, probability=1.0)(*batch(*[two, three] * 20))
    for row, span in enumerate([two, three] * 20):
        assert masked_ids[row, len(QUESTION) + len(span) - 2 :].tolist()[:2] == [span[-1]] * 2
        assert masked_ids[row, len(QUESTION)] == span[0]


def test_half_of_them_are_masked_whole_and_the_others_from_any_code_on(perception, span):
    torch.manual_seed(0)
    input_ids, labels = batch(*[span] * 2000)
    masked_ids, masked_labels = SpanMasking(perception, probability=1.0)(input_ids, labels)
    hidden = (masked_ids == span[-1])[:, len(QUESTION) : -1]
    counts = torch.bincount(hidden.sum(dim=1), minlength=CODES + 1).tolist()
    assert counts[0] == 0
    assert counts[CODES] == pytest.approx(1000 + 1000 / CODES, rel=0.1)
    assert counts[1:CODES] == pytest.approx([1000 / CODES] * (CODES - 1), rel=0.35)
    assert (hidden.int().diff(dim=1) >= 0).all(), "once hidden, hidden up to the end"
    assert torch.equal(masked_labels, labels)


def test_a_map_in_a_question_or_one_that_is_cut_off_stays(perception, span):
    in_question = torch.tensor([span + WORDS]), torch.tensor([[NONE] * len(span) + WORDS])
    for input_ids, labels in (in_question, batch(WORDS + span[:-1])):
        masked_ids, masked_labels = SpanMasking(perception, probability=1.0)(input_ids, labels)
        assert torch.equal(masked_ids, input_ids)
        assert torch.equal(masked_labels, labels)


def test_the_share_that_is_masked_is_the_probability_and_the_seed_decides_which(perception, span):
    input_ids, labels = batch(*[span] * 1000)
    masking = SpanMasking(perception, probability=0.3)
    shares = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        shares.append((masking(input_ids, labels)[0] != input_ids).any(dim=1))
    assert torch.equal(shares[0], shares[1])
    assert not torch.equal(shares[0], shares[2])
    assert shares[0].float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_a_share_of_them_gets_random_codes_at_rates_of_their_own_instead(perception, span):
    torch.manual_seed(0)
    input_ids, labels = batch(*[span + ANSWER] * 4000)
    changed_ids, changed_labels = SpanMasking(perception, probability=1.0, noise=0.25)(input_ids, labels)
    place = slice(len(QUESTION) + 1, len(QUESTION) + 1 + CODES)
    inputs, codes = changed_ids[:, place], input_ids[0, place]
    masked = (inputs == span[-1]).any(dim=1)
    assert (~masked).float().mean().item() == pytest.approx(0.25, abs=0.03)
    family = perception.kinds["depth"].family
    first = perception.ids.first_code_id(family)
    assert ((inputs[~masked] >= first) & (inputs[~masked] < first + family.size)).all()

    most = MOST_WRONG * (1 - 1 / family.size)  # of those drawn anew, one in `size` is what it was
    wrong = inputs[~masked] != codes
    assert wrong.float().mean(dim=0).tolist() == pytest.approx([most / 2] * CODES, abs=0.05)
    untouched = (1 - (1 - most) ** (CODES + 1)) / ((CODES + 1) * most)  # the mean of (1 - rate) ** CODES over all rates
    assert (~wrong).all(dim=1).float().mean().item() == pytest.approx(untouched, abs=0.03)

    changed_ids[:, place] = codes
    assert torch.equal(changed_ids, input_ids), "only codes are changed"
    learned = [NONE] * len(QUESTION) + span + [NONE] * len(ANSWER)
    assert (changed_labels == torch.tensor(learned)).all(), "labels stay, and nothing is learned behind the map"


@pytest.mark.parametrize("probability", [0.0, 1.1])
def test_a_probability_is_one(perception, probability):
    with pytest.raises(ValueError, match="in \\(0, 1\\]"):
        SpanMasking(perception, probability=probability)


def test_some_spans_are_left_to_be_masked(perception):
    with pytest.raises(ValueError, match=r"in \[0, 1\), not 1\.0"):
        SpanMasking(perception, probability=0.5, noise=1.0)


def test_a_span_knows_what_stands_behind_its_start(perception, span):
    (described,) = masked_spans(perception)
    assert [token in described for token in (*span, 7)] == [False, *[True] * (CODES + 1), False]


def test_codes_are_learned_behind_noise_and_answers_behind_true_codes(perception, span):
    rows = 400
    input_ids, labels = batch(*[WORDS + span + ANSWER] * rows)
    torch.manual_seed(0)
    ids, learned = CodeNoise(perception, probability=0.25)(input_ids, labels)
    begin, end = len(QUESTION) + len(WORDS) + 1, len(QUESTION) + len(WORDS) + 1 + CODES
    codes = (learned[:, begin:end] != NONE).all(dim=1)
    answers = (learned[:, end + 1 :] != NONE).all(dim=1)
    assert torch.equal(codes, ~answers)
    assert 0.18 < codes.float().mean() < 0.32
    changed = ids != input_ids
    assert not changed[answers].any()
    assert not changed[:, :begin].any()
    assert not changed[:, end:].any()
    rates = changed[codes][:, begin:end].float().mean(dim=1)
    assert rates.max() > 0.8
    assert rates.min() < 0.2
    assert torch.equal(learned[codes][:, :end], labels[codes][:, :end])


def test_codes_that_restrict_those_behind_them_get_no_noise(perception):
    spans = CodeNoise(perception, probability=0.5).spans
    assert [each.independent for each in spans] == [True]
    family = TokenFamily("SHORT", 4, (2,), delimited=True)
    ids = PerceptionIds(vocabulary=PerceptionVocabulary((family,)), first_ids={"SHORT": 20}, separators={})
    kind = SimpleNamespace(family=family, cell_codes=family.size, allowed_by_place=False)
    noise = CodeNoise(PerceptionTokens(kinds={"short": kind}, ids=ids), probability=0.5)  # type: ignore[dict-item]
    row = batch(WORDS + ids.ids(family, [0, 1]) + ANSWER)
    assert all(torch.equal(*pair) for pair in zip(noise(*row), row, strict=True))


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_some_maps_and_some_answers_are_learned(perception, probability):
    with pytest.raises(ValueError, match="in \\(0, 1\\)"):
        CodeNoise(perception, probability=probability)
