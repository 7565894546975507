"""The reconstruction loss against the VQ-VAE's own decoder."""

from types import SimpleNamespace

import pytest
import torch
from plain_kind import PlainKind
from torch.nn import functional

from llava_aurora.errors import AuroraError
from llava_aurora.model.labelled_tokens import LabelledTokens
from llava_aurora.model.losses.auxiliary import LossContext
from llava_aurora.model.losses.reconstruction import ReconstructionLoss, pictures
from llava_aurora.tokens import vocabulary_of
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import PerceptionIds, TokenFamily

WORDS = 20  # as in conftest.py


def reconstruction_loss(logits, tokens, perception):
    context = LossContext(hidden=None, labels=None, tokens=tokens, logits=logits, token_losses=None)
    return ReconstructionLoss(model=None, perception=perception)(context)["reconstruction"]


def test_it_is_the_mse_of_decoded_expected_codes(perception, hidden, labels, head):
    tokens = LabelledTokens.of(labels)
    loss = reconstruction_loss(head(hidden[:, :-1][tokens.loss_mask]), tokens, perception)
    vqvae = perception.kinds["depth"].vqvae
    # The map's START is at 5 of row 0: the logits at 5 … 13 predict its codes.
    of_codes = head(hidden)[0, 5:14, WORDS + 2 : WORDS + 18]
    expected_codes = of_codes.softmax(-1) @ vqvae.quantizer.codebook
    written = vqvae.decoder(expected_codes.T.reshape(1, -1, 3, 3))
    true = vqvae.decode(torch.tensor([[[3, 1, 4], [1, 5, 9], [2, 6, 5]]]))
    assert loss > 0.01
    assert torch.allclose(loss, (written - true).square().mean(), rtol=1e-4)


class Stripes(PlainKind):
    """Spans of 1 or 4 codes, whose picture is the probability of code 1 along `width` pixels."""

    has_picture = True

    def __init__(self, name, width):
        self.name, self.width = name.lower(), width
        self.family = TokenFamily(name, 2, (1, 4), delimited=True)

    def reconstruct(self, probabilities):
        return probabilities[:, None, :, 1:].expand(-1, 1, -1, self.width)


def test_each_kind_counts_the_same_and_each_span_by_its_pixels():
    kinds = {kind.name: kind for kind in (Stripes("SMALL", 1), Stripes("LARGE", 100))}
    vocabulary = vocabulary_of(kinds.values())
    ids = PerceptionIds(vocabulary=vocabulary, first_ids={"SMALL": 0, "LARGE": 4}, separators={})
    perception = PerceptionTokens(kinds=kinds, ids=ids)
    small, large = (kind.family for kind in kinds.values())
    row = [9, *ids.ids(small, [1]), *ids.ids(small, [0, 0, 0, 0]), *ids.ids(large, [1]), 9]
    tokens = LabelledTokens.of(torch.tensor([row]))
    logits = torch.zeros(len(row) - 1, 10)  # every code has probability 1/2
    logits[1, 3] = 100.0  # but the first, which is certain
    loss = reconstruction_loss(logits, tokens, perception)
    assert loss == pytest.approx((4 / 5 * 0.25 + 0.25) / 2)
    without_large = LabelledTokens.of(torch.tensor([row[:10]]))
    assert reconstruction_loss(logits[:9], without_large, perception) == pytest.approx(4 / 5 * 0.25)


def test_its_gradient_is_that_of_finite_differences(perception):
    kind = perception.kinds["depth"]
    kind.vqvae.double()
    logits = torch.randn(1, 9, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    codes = torch.arange(9)[None]
    assert torch.autograd.gradcheck(lambda x: functional.mse_loss(*pictures(kind, x, codes)), (logits,))


def test_without_a_map_it_is_zero_and_its_graph_is_there(perception, hidden, labels, head):
    tokens = LabelledTokens.of(labels[1:2])
    loss = reconstruction_loss(head(hidden[1:2, :-1][tokens.loss_mask]), tokens, perception)
    assert loss == 0
    loss.backward()
    assert not head.weight.grad.any()


def test_a_certain_and_right_prediction_has_none(perception, labels):
    tokens = LabelledTokens.of(labels)
    certain = functional.one_hot(tokens.targets, WORDS + perception.token_count).float() * 1e4
    assert reconstruction_loss(certain, tokens, perception) < 1e-9


def test_bf16_logits_are_compared_in_float32(perception, labels):
    tokens = LabelledTokens.of(labels)
    logits = torch.randn(len(tokens.targets), WORDS + perception.token_count).bfloat16().requires_grad_()
    loss = reconstruction_loss(logits, tokens, perception)
    loss.backward()
    assert loss.dtype == torch.float32
    assert logits.grad.isfinite().all()
    assert logits.grad.any()


def test_a_model_without_pictures_is_refused():
    with pytest.raises(AuroraError, match=r"--aux_losses reconstruction.*box"):
        ReconstructionLoss(model=None, perception=SimpleNamespace(kinds={"box": BoxKind(frame=56)}))
