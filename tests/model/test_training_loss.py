"""What training asks of a model with tokens, each part against a second way to compute it."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from llava_aurora.model.labelled_tokens import LabelledTokens
from llava_aurora.model.reconstruction_loss import pictures, reconstruction_loss
from llava_aurora.model.training_loss import TrainingLoss
from llava_aurora.tokens import vocabulary_of
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import PerceptionIds
from llava_aurora.vqvae.checkpoint import load_depth_vqvae

WORDS, DIMENSION = 20, 12


@pytest.fixture
def perception(workshop) -> PerceptionTokens:
    vqvae = load_depth_vqvae(workshop.vqvae)
    with torch.no_grad():
        vqvae.decoder[-1].weight.mul_(1000)  # an untrained decoder's pictures hardly differ
    kinds = {"depth": DepthKind(vqvae=vqvae), "box": BoxKind(frame=56)}
    vocabulary = vocabulary_of(kinds.values())
    ids = PerceptionIds(vocabulary=vocabulary, first_ids={"DEPTH": WORDS, "PIXEL": WORDS + 18}, separators={})
    return PerceptionTokens(kinds=kinds, ids=ids)


@pytest.fixture
def labels(perception) -> torch.Tensor:
    """Three rows: a question and an answer with a map; an answer without; a map that is cut off."""
    depth = perception.kinds["depth"].family
    span = perception.ids.ids(depth, [3, 1, 4, 1, 5, 9, 2, 6, 5])
    rows = [[-100] * 4 + [7, *span, 8], [-100] * 4 + [5] * 12, [-100] * 10 + [7, *span[:6]]]
    return torch.tensor([(row + [-100] * 20)[:17] for row in rows])


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(3, 17, DIMENSION, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def head(perception) -> torch.nn.Linear:
    torch.manual_seed(1)
    return torch.nn.Linear(DIMENSION, WORDS + perception.token_count, bias=False)


@pytest.mark.parametrize("guide", ["copy", "lookup"])
def test_what_is_asked_is_read_only_where_something_is_copied_from_it(perception, hidden, labels, head, guide):
    training_loss, read = TrainingLoss(perception), []
    nothing = SimpleNamespace(looks={guide: []}, answers=[])
    training_loss.stated_points = SimpleNamespace(read=lambda labels, ids: read.append(ids) or nothing)

    class Head(SimpleNamespace):
        def __call__(self, looks, attention_mask):
            return None

    training_loss.guided = [Head(guide=guide, weight=1.0)]
    ids = labels.masked_fill(labels == -100, 3)
    training_loss.loss(hidden, labels, head=head, ids=ids)
    assert read[0] is (ids if guide == "copy" else None)


def test_the_loss_is_the_usual_one_over_all_positions(perception, hidden, labels, head):
    training_loss = TrainingLoss(perception)
    loss = training_loss.loss(hidden, labels, head=head)
    logits = head(hidden)[:, :-1].flatten(0, 1)
    expected = functional.cross_entropy(logits, labels[:, 1:].flatten())
    assert torch.allclose(loss, expected)
    (found,) = torch.autograd.grad(loss, hidden)
    (wanted,) = torch.autograd.grad(expected, hidden)
    assert torch.allclose(found, wanted, atol=1e-7)
    parts = training_loss.parts.read()
    depth = (labels[:, 1:] >= WORDS).flatten()
    each = functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="none")
    assert parts["depth"] == pytest.approx(each[depth].mean().item(), rel=1e-5)
    assert set(parts) == {"text", "depth"}


def test_a_batch_without_a_label_has_a_loss_of_zero_and_finite_gradients(perception, hidden, head):
    training_loss = TrainingLoss(perception)
    training_loss.reconstruction_weight = 1.0
    loss = training_loss.loss(hidden, torch.full((3, 17), -100), head=head)
    loss.backward()
    assert loss == 0
    assert not hidden.grad.any()
    assert not head.weight.grad.any()


def test_spans_are_found_whole_or_not_at_all(perception, labels):
    tokens = LabelledTokens.of(labels)
    numbers, codes = tokens.spans(start_id=WORDS, first_code=WORDS + 2, codes=16, length=9)
    assert codes.tolist() == [[3, 1, 4, 1, 5, 9, 2, 6, 5]]
    assert tokens.targets[numbers].sub(WORDS + 2).tolist() == codes.tolist()


def test_the_reconstruction_loss_is_the_mse_of_decoded_expected_codes(perception, hidden, labels, head):
    tokens = LabelledTokens.of(labels)
    logits = head(hidden[:, :-1][tokens.told])
    loss = reconstruction_loss(logits, tokens, perception)
    vqvae = perception.kinds["depth"].vqvae
    # The map's START stands at 5 of row 0: the logits at 5 … 13 predict its codes.
    of_codes = head(hidden)[0, 5:14, WORDS + 2 : WORDS + 18]
    expected_codes = of_codes.softmax(-1) @ vqvae.quantizer.codebook
    written = vqvae.decoder(expected_codes.T.reshape(1, -1, 3, 3))
    true = vqvae.decode(torch.tensor([[[3, 1, 4], [1, 5, 9], [2, 6, 5]]]))
    assert loss > 0.01
    assert torch.allclose(loss, (written - true).square().mean(), rtol=1e-4)


def test_its_gradient_is_that_of_finite_differences(perception):
    kind = perception.kinds["depth"]
    kind.vqvae.double()
    logits = torch.randn(1, 9, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    codes = torch.arange(9)[None]
    assert torch.autograd.gradcheck(lambda x: functional.mse_loss(*pictures(kind, x, codes)), (logits,))


def test_without_a_map_it_is_zero_and_its_graph_is_there(perception, hidden, labels, head):
    tokens = LabelledTokens.of(labels[1:2])
    logits = head(hidden[1:2, :-1][tokens.told])
    loss = reconstruction_loss(logits, tokens, perception)
    assert loss == 0
    loss.backward()
    assert not head.weight.grad.any()


def test_sure_and_right_has_no_reconstruction_loss_and_the_weight_counts(perception, labels):
    tokens = LabelledTokens.of(labels)
    sure = functional.one_hot(tokens.targets, WORDS + perception.token_count).float() * 1e4
    assert reconstruction_loss(sure, tokens, perception) < 1e-9
    training_loss = TrainingLoss(perception)
    losses, flat = {}, torch.zeros(3, 17, WORDS + perception.token_count)
    for weight in (0.0, 1.0, 3.0):
        training_loss.reconstruction_weight = weight
        losses[weight] = training_loss.loss(flat, labels, head=lambda hidden: hidden)
        assert ("reconstruction" in training_loss.parts.read()) is bool(weight)
    assert losses[3.0] - losses[0.0] == pytest.approx(3 * (losses[1.0] - losses[0.0]).item(), rel=1e-4)


def test_bf16_logits_are_compared_in_float32(perception, labels):
    tokens = LabelledTokens.of(labels)
    logits = torch.randn(len(tokens.targets), WORDS + perception.token_count).bfloat16().requires_grad_()
    loss = reconstruction_loss(logits, tokens, perception)
    loss.backward()
    assert loss.dtype == torch.float32
    assert logits.grad.isfinite().all()
    assert logits.grad.any()


def test_the_decoder_is_no_part_of_the_model(perception):
    model = SimpleNamespace(training_loss=TrainingLoss(perception))
    assert not isinstance(model.training_loss, torch.nn.Module)
    assert not any(parameter.requires_grad for parameter in perception.kinds["depth"].vqvae.parameters())
