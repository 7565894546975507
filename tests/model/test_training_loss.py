"""The training loss: next-token loss, its parts, and the auxiliary losses that are added."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from llava_aurora.model.code_metrics import CodeMetrics
from llava_aurora.model.labelled_tokens import LabelledTokens
from llava_aurora.model.losses.auxiliary import AuxiliaryLoss, AuxWeight, _registry
from llava_aurora.model.training_loss import TrainingLoss, TrainingSettings

WORDS = 20  # as in conftest.py


class Toy(AuxiliaryLoss):
    """The mean of the hidden states, and their number."""

    name = "toy"
    parts = {"mean": 1.0, "number": 0.5}  # noqa: RUF012
    needs_ids = True

    def __call__(self, context):
        return {"mean": context.hidden.mean(), "number": torch.tensor(float(context.hidden.numel()))}


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(_registry, "toy", Toy)


def training_loss(perception, **aux_losses) -> TrainingLoss:
    settings = TrainingSettings(aux_losses={name: AuxWeight(*weight) for name, weight in aux_losses.items()})
    return TrainingLoss(settings, model=SimpleNamespace(perception=perception), tokenizer=None)


def test_the_loss_is_the_usual_one_over_all_positions(perception, hidden, labels, head):
    ours = training_loss(perception)
    loss = ours.loss(hidden, labels, head=head)
    logits = head(hidden)[:, :-1].flatten(0, 1)
    expected = functional.cross_entropy(logits, labels[:, 1:].flatten())
    assert torch.allclose(loss, expected)
    (found,) = torch.autograd.grad(loss, hidden)
    (wanted,) = torch.autograd.grad(expected, hidden)
    assert torch.allclose(found, wanted, atol=1e-7)
    parts = ours.meter.read()
    depth = (labels[:, 1:] >= WORDS).flatten()
    each = functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="none")
    assert parts["depth"] == pytest.approx(each[depth].mean().item(), rel=1e-5)
    assert set(parts) == {"text", "depth"}


def test_a_batch_without_a_label_has_a_loss_of_zero_and_finite_gradients(perception, hidden, head):
    loss = training_loss(perception, reconstruction=(1.0,)).loss(hidden, torch.full((3, 17), -100), head=head)
    loss.backward()
    assert loss == 0
    assert not hidden.grad.any()
    assert not head.weight.grad.any()


def test_an_auxiliary_loss_is_added_from_its_first_step_on_and_not_in_evaluations(
    perception, hidden, labels, head, toy
):
    plain = training_loss(perception).loss(hidden, labels, head=head)
    ours = training_loss(perception, toy=(3.0, 2))
    for step in (0, 1, 2):
        ours.step = step
        assert ours.needs_ids is (step == 2)
        loss, parts = ours.loss(hidden, labels, head=head), ours.meter.read()
        added = hidden.mean() + 0.5 * hidden.numel() if step == 2 else 0.0
        assert torch.allclose(loss, plain + 3.0 * added)
        assert ({"mean", "number"} <= set(parts)) is (step == 2)
    ours.metrics = CodeMetrics(perception)
    assert not ours.needs_ids
    assert torch.equal(ours.loss(hidden, labels, head=head), plain)


def test_spans_are_found_whole_or_not_at_all(perception, labels):
    tokens = LabelledTokens.of(labels)
    places, codes = tokens.spans(start_id=WORDS, first_code=WORDS + 2, codes=16, length=9)
    assert codes.tolist() == [[3, 1, 4, 1, 5, 9, 2, 6, 5]]
    assert tokens.targets[places].sub(WORDS + 2).tolist() == codes.tolist()
    for other in (5, 8, 10):  # of a family with several lengths, a span has one; row 2 is cut off after five codes
        found = tokens.spans(start_id=WORDS, first_code=WORDS + 2, codes=16, length=other)[1]
        assert found.tolist() == ([[3, 1, 4, 1, 5]] if other == 5 else [])


def test_the_training_loss_and_its_decoder_are_no_part_of_the_model(perception):
    ours = training_loss(perception, reconstruction=(1.0,))
    assert not isinstance(ours, torch.nn.Module)
    assert not any(parameter.requires_grad for parameter in perception.kinds["depth"].vqvae.parameters())
