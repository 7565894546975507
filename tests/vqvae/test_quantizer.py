"""The codebook: gradients, moving averages against plain numpy, dead codes, and several ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_aurora.vqvae import EMAQuantizer, perplexity


def make(**options) -> EMAQuantizer:
    return EMAQuantizer(**{"codebook_size": 8, "code_dim": 4, "initialise_from_data": False, **options})


def two_codes() -> EMAQuantizer:
    quantizer = make(codebook_size=2, code_dim=2, revival_threshold=0.0)
    quantizer.codebook.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    quantizer.cluster_sum.copy_(quantizer.codebook)
    return quantizer


def as_grid(rows: list[list[float]]) -> torch.Tensor:
    """Vectors (N, D) as encoder output (1, D, 1, N)."""
    return torch.tensor(rows).T[None, :, None, :].contiguous()


@settings(max_examples=25)
@given(batch=st.integers(1, 3), height=st.integers(1, 4), width=st.integers(1, 4), seed=st.integers(0, 99))
def test_every_vector_gets_its_nearest_code(batch: int, height: int, width: int, seed: int):
    quantizer = make().eval()
    z = torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(seed))
    quantized, indices, commit_loss = quantizer(z)
    distances = torch.cdist(z.permute(0, 2, 3, 1).double().reshape(-1, 4), quantizer.codebook.double())
    assert indices.dtype == torch.int64
    assert indices.shape == (batch, height, width)
    assert torch.equal(indices.flatten(), distances.argmin(1))
    torch.testing.assert_close(quantized.permute(0, 2, 3, 1), quantizer.lookup(indices))
    torch.testing.assert_close(commit_loss, 0.25 * (z - quantized).square().mean())


def test_the_gradient_passes_straight_through():
    z = torch.randn(2, 4, 3, 3, requires_grad=True)
    quantized, _, _ = make().eval()(z)
    weights = torch.randn_like(quantized)
    (quantized * weights).sum().backward()
    assert torch.equal(z.grad, weights)


def test_the_commitment_loss_moves_the_encoder_only():
    quantizer = two_codes().eval()
    z = as_grid([[0.0, 0.2]]).requires_grad_()
    _, _, commit_loss = quantizer(z)
    commit_loss.backward()
    assert commit_loss.item() == pytest.approx(0.25 * 0.04 / 2)
    torch.testing.assert_close(z.grad.flatten(), torch.tensor([0.0, 0.25 * 0.2]))
    assert not list(quantizer.parameters())


def test_two_codes_by_hand():
    quantizer = two_codes()
    quantized, indices, _ = quantizer(as_grid([[0.1, 0.1], [0.9, 1.3], [1.1, 0.7]]))
    assert indices.tolist() == [[[0, 1, 1]]]
    torch.testing.assert_close(quantized, as_grid([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]))
    torch.testing.assert_close(quantizer.cluster_size, torch.tensor([1.0, 1.01]))
    torch.testing.assert_close(quantizer.cluster_sum, torch.tensor([[0.001, 0.001], [1.01, 1.01]]))
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[0.001, 0.001], [1.0, 1.0]]), atol=1e-5, rtol=0)


def test_moving_averages_equal_a_plain_numpy_computation():
    quantizer = make(decay=0.9, epsilon=1e-2, revival_threshold=0.0)
    codebook = quantizer.codebook.double().numpy().copy()
    size, total = np.ones(8), codebook.copy()
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        z = torch.randn(3, 4, 2, 2, generator=generator)
        _, indices, _ = quantizer(z)
        vectors = z.permute(0, 2, 3, 1).reshape(-1, 4).double().numpy()
        nearest = ((vectors[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)
        assert indices.flatten().tolist() == nearest.tolist()
        for code in range(8):
            mine = vectors[nearest == code]
            size[code] = 0.9 * size[code] + 0.1 * len(mine)
            total[code] = 0.9 * total[code] + 0.1 * mine.sum(0)
        smoothed = (size + 1e-2) / (size.sum() + 8 * 1e-2) * size.sum()  # Laplace
        codebook = total / smoothed[:, None]
        np.testing.assert_allclose(quantizer.cluster_size.numpy(), size, rtol=1e-5)
        np.testing.assert_allclose(quantizer.codebook.numpy(), codebook, rtol=1e-4, atol=1e-6)


def test_laplace_smoothing_keeps_an_empty_cluster_finite():
    quantizer = two_codes()
    quantizer.cluster_size.zero_()
    quantizer.cluster_sum.zero_()
    quantizer(as_grid([[0.0, 0.0]]))
    assert torch.isfinite(quantizer.codebook).all()


def test_nothing_moves_outside_training():
    quantizer = make().eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(torch.randn(2, 4, 3, 3))
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


def test_the_first_codebook_can_come_from_the_data():
    z = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(3))
    quantizer = make(initialise_from_data=True, decay=0.0)
    quantizer._take_codebook_from(z.permute(0, 2, 3, 1).reshape(-1, 4))
    rows = {tuple(row) for row in z.permute(0, 2, 3, 1).reshape(-1, 4).tolist()}
    chosen = [tuple(row) for row in quantizer.codebook.tolist()]
    assert len(set(chosen)) == 8
    assert set(chosen) <= rows


@pytest.mark.parametrize("vectors", [1, 3])
def test_a_first_batch_smaller_than_the_codebook_is_enough(vectors: int):
    quantizer = make(initialise_from_data=True)
    _, indices, _ = quantizer(torch.randn(1, 4, 1, vectors))
    assert torch.isfinite(quantizer.codebook).all()
    assert indices.max() < 8


def test_dead_codes_return_as_vectors_of_the_batch_the_same_under_one_seed():
    def revived() -> EMAQuantizer:
        quantizer = make(revival_threshold=0.1, seed=5)
        quantizer.codebook[3:] = 1e3  # never nearest
        quantizer.cluster_sum.copy_(quantizer.codebook)
        quantizer.cluster_size[3:] = 1e-4
        quantizer(z)
        return quantizer

    z = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(4))
    quantizer = revived()
    rows = [tuple(row) for row in z.permute(0, 2, 3, 1).reshape(-1, 4).tolist()]
    assert all(tuple(row) in rows for row in quantizer.codebook[3:].tolist())
    assert (quantizer.cluster_size[3:] > 0.1 * quantizer.cluster_size.mean()).all()
    torch.testing.assert_close(
        quantizer.cluster_sum / quantizer.cluster_size[:, None], quantizer.codebook, rtol=1e-3, atol=1e-3
    )
    assert torch.equal(quantizer.codebook, revived().codebook)


def test_a_one_hot_soft_lookup_is_a_lookup():
    quantizer = make()
    indices = torch.randint(0, 8, (2, 5), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(indices, 8).float()
    torch.testing.assert_close(quantizer.soft_lookup(one_hot), quantizer.lookup(indices))


def test_soft_lookup_is_the_expected_code_and_differentiable():
    quantizer = two_codes()
    probabilities = torch.tensor([[0.25, 0.75]], requires_grad=True)
    expected = quantizer.soft_lookup(probabilities)
    torch.testing.assert_close(expected, torch.tensor([[0.75, 0.75]]))
    expected.sum().backward()
    torch.testing.assert_close(probabilities.grad, torch.tensor([[0.0, 2.0]]))


def test_perplexity_of_uniform_and_single_codes():
    assert perplexity(torch.arange(8).repeat(3), 8) == pytest.approx(8)
    assert perplexity(torch.full((4, 4), 2), 8) == pytest.approx(1)
    assert perplexity(torch.tensor([0, 0, 1, 1]), 8) == pytest.approx(2)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (4, 4), (2, 4, 4)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"expected encoder output \(B, 4, h, w\)"):
        make()(torch.zeros(shape))


def test_probabilities_over_other_codes_are_refused():
    with pytest.raises(ValueError, match="expected probabilities over 8 codes, found 7"):
        make().soft_lookup(torch.zeros(2, 7))


def _batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(6, 4, 2, 2, generator=generator) for _ in range(4)]


def _distributed_quantizer() -> EMAQuantizer:
    return make(codebook_size=16, initialise_from_data=True, revival_threshold=0.5, decay=0.8, seed=2)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    quantizer = _distributed_quantizer()
    for batch in _batches():
        quantizer(batch[:2] if rank == 0 else batch[2:])  # unequal shares
    torch.save(quantizer.state_dict(), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_equal_one_process_on_the_whole_batch(tmp_path: Path):
    mp.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    alone = _distributed_quantizer()
    for batch in _batches():
        alone(batch)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in alone.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, msg=name)
