"""The depth VQ-VAE: encodes a depth map as a square grid of codes, and decodes the codes.

The depth kind writes these codes as perception tokens. The layers are those of METHOD "The depth VQ-VAE"
(AiT, arXiv 2301.02229, as AURORA trained it), in the order that the published weights name them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llava_aurora.vqvae.maps import from_model_range, resize_nearest, to_model_range
from llava_aurora.vqvae.quantizer import EMAQuantizer

LARGEST = 65_536  # of each size; more is a mistake that would take all memory


@dataclass(frozen=True)
class DepthVQVAEConfig:
    """Everything that shapes a depth VQ-VAE. The defaults are the paper's: 320 pixels, a 10x10 grid, 128 codes.

    Raises ValueError if image_size is not a multiple of 2**len(channels), or a number is out of its range.
    """

    image_size: int = 320
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)  # one halving of height and width each
    residual_blocks: int = 2
    code_dim: int = 512
    codebook_size: int = 128
    decay: float = 0.99
    epsilon: float = 1e-5
    commitment: float = 0.25
    revival_threshold: float = 0.03
    initialise_from_data: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if not self.channels:
            raise ValueError("channels: expected at least one positive number, found none")
        numbers = {name: getattr(self, name) for name in ("image_size", "code_dim", "codebook_size")}
        for name, value in [*numbers.items(), *(("channels", width) for width in self.channels)]:
            if type(value) is not int or not 1 <= value <= LARGEST:
                raise ValueError(f"{name}: expected a whole number from 1 to {LARGEST}, found {value!r}")
        if type(self.residual_blocks) is not int or not 0 <= self.residual_blocks <= LARGEST:
            raise ValueError(f"residual_blocks: expected 0 or more, found {self.residual_blocks!r}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay: expected a number in [0, 1), found {self.decay}")
        if self.image_size % self.stride:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of {self.stride} (2 ** {len(self.channels)} channels)"
            )

    @property
    def stride(self) -> int:
        """Pixels per grid cell, along a side."""
        return int(2 ** len(self.channels))

    @property
    def grid(self) -> int:
        """Cells along a side; a map has grid * grid codes."""
        return self.image_size // self.stride


class DepthVQVAEOutput(NamedTuple):
    """What a training step needs; the loss is reconstruction_mse + commitment_loss."""

    reconstruction: Tensor  # (B, 1, H, W), about [-1, 1]
    indices: Tensor  # int64 (B, grid, grid)
    reconstruction_mse: Tensor  # scalar, in the units of [-1, 1]
    commitment_loss: Tensor  # scalar, already weighted


class ResidualBlock(nn.Module):
    """3x3, ReLU, 3x3, ReLU, 1x1, plus its input: (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class DepthVQVAE(nn.Module):
    """Encoder, codebook, decoder. Build it with `build_depth_vqvae`.

    Depth here is always relative depth scaled from 8 bits to [-1, 1], 1 = closest, (B, 1, image_size, image_size);
    the two `*_array`/`*_codes` methods take 8-bit maps of any size instead.

    Args:
        encoder: (B, 1, image_size, image_size) -> (B, code_dim, grid, grid).
        decoder: (B, code_dim, grid, grid) -> (B, 1, image_size, image_size).
    """

    def __init__(
        self, *, encoder: nn.Module, quantizer: EMAQuantizer, decoder: nn.Module, config: DepthVQVAEConfig
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder
        self.config = config

    @property
    def grid(self) -> int:
        """Cells along a side of the code grid."""
        return self.config.grid

    @property
    def codes_per_map(self) -> int:
        """grid * grid."""
        return self.config.grid**2

    def forward(self, depth: Tensor) -> DepthVQVAEOutput:
        """One pass for training: depth (B, 1, image_size, image_size) in [-1, 1]; moves the codebook in training mode.

        Raises ValueError if depth has another shape.
        """
        self._check_depth(depth)
        quantized, indices, commitment_loss = self.quantizer(self.encoder(depth))
        reconstruction = self.decoder(quantized)
        return DepthVQVAEOutput(reconstruction, indices, F.mse_loss(reconstruction, depth), commitment_loss)

    @torch.no_grad()
    def encode(self, depth: Tensor) -> Tensor:
        """Depth (B, 1, image_size, image_size) in [-1, 1] -> code indices int64 (B, grid, grid) in [0, codebook_size).

        Raises ValueError if depth has another shape.
        """
        self._check_depth(depth)
        return self.quantizer.nearest(self.encoder(depth))

    def decode(self, indices: Tensor) -> Tensor:
        """Code indices int64 (B, grid, grid) -> depth (B, 1, image_size, image_size), about [-1, 1].

        Raises ValueError if the shape is another or an index is not in [0, codebook_size).
        """
        if indices.ndim != 3 or tuple(indices.shape[1:]) != (self.grid, self.grid):
            raise ValueError(f"expected code indices (B, {self.grid}, {self.grid}), found {tuple(indices.shape)}")
        if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= self.config.codebook_size):
            raise ValueError(
                f"expected code indices in [0, {self.config.codebook_size}), "
                f"found {int(indices.min())} to {int(indices.max())}"
            )
        return self.decoder(self.quantizer.lookup(indices).permute(0, 3, 1, 2))

    def decode_soft(self, probabilities: Tensor) -> Tensor:
        """Decodes expected codes (AURORA, eq. 2), differentiable in the probabilities.

        Args: probabilities: float (B, grid * grid, codebook_size), row by row, summing to 1 over the codes.
        Returns depth (B, 1, image_size, image_size), about [-1, 1].
        Raises ValueError if the shape is another.
        """
        if probabilities.ndim != 3 or probabilities.shape[1] != self.codes_per_map:
            raise ValueError(
                f"expected probabilities (B, {self.codes_per_map}, {self.config.codebook_size}), "
                f"found {tuple(probabilities.shape)}"
            )
        codes = self.quantizer.soft_lookup(probabilities)
        return self.decoder(codes.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2))

    def encode_array(self, depth: np.ndarray) -> list[int]:
        """8-bit relative depth (H, W) of any size -> grid * grid codes, row by row.

        Raises ValueError if depth is not uint8 (H, W).
        """
        frame = resize_nearest(depth, (self.config.image_size, self.config.image_size))
        return self.encode(to_model_range(frame)[None, None].to(self._device())).flatten().tolist()

    @torch.no_grad()
    def decode_codes(self, codes: Sequence[int], size: tuple[int, int] | None = None) -> np.ndarray:
        """grid * grid codes, row by row -> 8-bit relative depth (H, W), `size` or (image_size, image_size).

        Raises ValueError if the number of codes is another, or a code is not in [0, codebook_size).
        """
        self.check_codes(codes)
        indices = torch.tensor(list(codes), device=self._device()).view(1, self.grid, self.grid)
        depth = from_model_range(self.decode(indices)[0, 0])
        return depth if size is None else resize_nearest(depth, size)

    def check_codes(self, codes: Sequence[int]) -> None:
        """Raises ValueError, saying where, unless codes are grid * grid whole numbers in [0, codebook_size)."""
        if len(codes) != self.codes_per_map:
            raise ValueError(f"expected {self.codes_per_map} codes ({self.grid}x{self.grid}), found {len(codes)}")
        for position, code in enumerate(codes):
            if isinstance(code, bool) or not isinstance(code, int | np.integer):
                raise ValueError(f"code {code!r} at position {position} is not an integer")
            if not 0 <= code < self.config.codebook_size:
                raise ValueError(f"code {code} at position {position} is not in [0, {self.config.codebook_size})")

    def _check_depth(self, depth: Tensor) -> None:
        size = self.config.image_size
        if depth.ndim != 4 or tuple(depth.shape[1:]) != (1, size, size):
            raise ValueError(f"expected depth (B, 1, {size}, {size}), found {tuple(depth.shape)}")

    def _device(self) -> torch.device:
        return self.quantizer.codebook.device


def build_depth_vqvae(config: DepthVQVAEConfig, *, seed: int = 0) -> DepthVQVAE:
    """A depth VQ-VAE with fresh weights: the same for the same seed; the state of torch's generator stays as it was.

    Its convolutions keep their channels last and its ReLUs work in place: the same numbers in less time and memory
    (benchmarks/vqvae.py).
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the CUDA generators too
        encoder = _encoder(config)
        decoder = _decoder(config)
    quantizer = EMAQuantizer(
        codebook_size=config.codebook_size,
        code_dim=config.code_dim,
        decay=config.decay,
        epsilon=config.epsilon,
        commitment=config.commitment,
        revival_threshold=config.revival_threshold,
        initialise_from_data=config.initialise_from_data,
        seed=seed,
    )
    model = DepthVQVAE(encoder=encoder, quantizer=quantizer, decoder=decoder, config=config)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _encoder(config: DepthVQVAEConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = 1
    for channels in config.channels:
        layers += [nn.Conv2d(width, channels, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
        width = channels
    layers += [ResidualBlock(channels=width) for _ in range(config.residual_blocks)]
    return nn.Sequential(*layers, nn.Conv2d(width, config.code_dim, 1))


def _decoder(config: DepthVQVAEConfig) -> nn.Sequential:
    width = config.channels[-1]
    layers: list[nn.Module] = [nn.Conv2d(config.code_dim, width, 1), nn.ReLU(inplace=True)]
    layers += [ResidualBlock(channels=width) for _ in range(config.residual_blocks)]
    for channels in reversed(config.channels):
        layers += [nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
        width = channels
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 1))


def config_from_dict(values: dict[str, Any]) -> DepthVQVAEConfig:
    """The inverse of `dataclasses.asdict`, also from JSON.

    Raises ValueError naming settings that are unknown, or of the wrong type or range.
    """
    unknown = sorted(set(values) - set(DepthVQVAEConfig.__dataclass_fields__))
    if unknown:
        raise ValueError(f"unknown settings {', '.join(unknown)}")
    try:
        return DepthVQVAEConfig(**values)
    except TypeError as error:
        raise ValueError(f"a setting has the wrong type: {error}") from error
