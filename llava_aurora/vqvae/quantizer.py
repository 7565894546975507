"""The codebook: gives each vector its nearest code, and is learned by an exponential moving average.

Stands between the encoder and the decoder of the depth VQ-VAE. Source: van den Oord et al., arXiv 1711.00937,
appendix A.1 (moving averages, Laplace smoothing); the settings are those of AURORA's depth VQ-VAE.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class EMAQuantizer(nn.Module):
    """Nearest-neighbour quantizer with a codebook kept by moving averages.

    Contract: `quantized, indices, commit_loss = quantizer(z)`. In training mode a call also moves the codebook; under
    `torch.distributed` every rank has to make that call, as the statistics are summed over the ranks first.

    Args:
        codebook_size: number of codes K.
        code_dim: length D of a code.
        decay: share of the old average that is kept per update, in [0, 1).
        epsilon: Laplace smoothing of the cluster sizes.
        commitment: weight of the commitment loss.
        revival_threshold: a code used less than this share of the average use (N / K vectors per update, as a moving
            average) is replaced by one of the batch's vectors; 0 never replaces.
        initialise_from_data: take the first training batch's vectors as the first codebook, instead of random normals.
        seed: with the number of updates so far, decides which of the batch's vectors are taken; same on all ranks.
    """

    codebook: Tensor
    cluster_size: Tensor
    cluster_sum: Tensor
    updates: Tensor

    def __init__(
        self,
        *,
        codebook_size: int,
        code_dim: int,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        commitment: float = 0.25,
        revival_threshold: float = 0.03,
        initialise_from_data: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.code_dim = code_dim
        self.decay = decay
        self.epsilon = epsilon
        self.commitment = commitment
        self.revival_threshold = revival_threshold
        self.initialise_from_data = initialise_from_data
        self.seed = seed
        codebook = torch.randn(codebook_size, code_dim, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("codebook", codebook)
        self.register_buffer("cluster_size", torch.ones(codebook_size))
        self.register_buffer("cluster_sum", codebook.clone())
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantizes a grid of vectors.

        Args: z: encoder output, float (B, D, h, w).
        Returns quantized: (B, D, h, w), the codes, with the gradient of z (straight-through estimator). indices: int64
        (B, h, w) in [0, K). commit_loss: scalar, commitment * mean((z - codes)^2); its gradient moves z only.
        Raises ValueError if z is not of that shape.
        """
        if z.ndim != 4 or z.shape[1] != self.code_dim:
            raise ValueError(f"expected encoder output (B, {self.code_dim}, h, w), found {tuple(z.shape)}")
        vectors = z.permute(0, 2, 3, 1).reshape(-1, self.code_dim)
        if self.training and self.initialise_from_data and int(self.updates) == 0:
            self._take_codebook_from(vectors.detach())
        indices = self.nearest(z)
        codes = self.lookup(indices).permute(0, 3, 1, 2).to(z.dtype)
        if self.training:
            self._update(vectors.detach(), indices.reshape(-1))
        commit_loss = self.commitment * F.mse_loss(z, codes)
        return z + (codes - z).detach(), indices, commit_loss

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """Index of the nearest code by squared distance: float (B, D, h, w) -> int64 (B, h, w) in [0, K)."""
        vectors = z.permute(0, 2, 3, 1).float()
        codebook = self.codebook.float()
        # |z|^2 is the same for every code, so it cannot change which is nearest.
        return (codebook.square().sum(1) - 2 * vectors @ codebook.T).argmin(-1)

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes themselves: int64 (...) in [0, K) -> float (..., D)."""
        return F.embedding(indices, self.codebook)

    def soft_lookup(self, probabilities: Tensor) -> Tensor:
        """Expected code sum_k p_k e_k (AURORA, eq. 2): float (..., K), summing to 1 over K -> (..., D), differentiable.

        Raises ValueError if the last dimension is not K.
        """
        if probabilities.shape[-1] != self.codebook_size:
            raise ValueError(f"expected probabilities over {self.codebook_size} codes, found {probabilities.shape[-1]}")
        return probabilities @ self.codebook.to(probabilities.dtype)

    @torch.no_grad()
    def _update(self, vectors: Tensor, indices: Tensor) -> None:
        """One step of the moving averages on vectors (N, D) and their codes (N,), then revival of dead codes."""
        # A matrix product adds in a fixed order; index_add_ on CUDA does not.
        one_hot = F.one_hot(indices, self.codebook_size).float()
        counts = _sum_over_ranks(one_hot.sum(0))
        sums = _sum_over_ranks(one_hot.T @ vectors.float())
        self.cluster_size.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        self.cluster_sum.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.epsilon) / (total + self.codebook_size * self.epsilon) * total
        self.codebook.copy_(self.cluster_sum / smoothed.unsqueeze(1))
        self._revive_dead_codes(vectors)
        self.updates += 1

    def _revive_dead_codes(self, vectors: Tensor) -> None:
        average = self.cluster_size.mean()
        dead = (self.cluster_size < self.revival_threshold * average).nonzero().squeeze(1)
        if len(dead) == 0:
            return
        rows = self._draw(vectors, len(dead))
        self.codebook[dead] = rows
        self.cluster_size[dead] = average
        self.cluster_sum[dead] = rows * average

    @torch.no_grad()
    def _take_codebook_from(self, vectors: Tensor) -> None:
        rows = self._draw(vectors, self.codebook_size)
        self.codebook.copy_(rows)
        self.cluster_sum.copy_(rows * self.cluster_size.unsqueeze(1))

    def _draw(self, vectors: Tensor, count: int) -> Tensor:
        """`count` of the vectors of all ranks (N, D), float (count, D); none twice unless there are fewer than that."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if _distributed() else (0, 1)
        sizes = torch.zeros(world, device=vectors.device)
        sizes[rank] = len(vectors)
        sizes = _sum_over_ranks(sizes).long()
        total, offset = int(sizes.sum()), int(sizes[:rank].sum())
        # The generator depends on seed and step alone, so that a resumed run and every rank draw the same vectors.
        order = torch.randperm(total, generator=torch.Generator().manual_seed(self.seed + int(self.updates)))
        chosen = order.repeat(-(-count // total))[:count].to(vectors.device) - offset
        here = (chosen >= 0) & (chosen < len(vectors))
        rows = torch.zeros(count, self.code_dim, device=vectors.device)
        rows[here] = vectors[chosen[here]].float()
        return _sum_over_ranks(rows)


def perplexity(indices: Tensor, codebook_size: int) -> float:
    """exp(entropy) of how often each code occurs in int64 `indices` of any shape: 1 (one code) to K (all alike)."""
    share = torch.bincount(indices.reshape(-1), minlength=codebook_size).double() / indices.numel()
    return float(torch.exp(torch.special.entr(share).sum()))


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _sum_over_ranks(values: Tensor) -> Tensor:
    if _distributed():
        dist.all_reduce(values)
    return values
