"""Relative depth maps as the VQ-VAE takes and returns them: read from files, resized, scaled to [-1, 1] and back.

A map is uint8 (H, W), higher = closer, 0 = unknown.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llava_aurora.errors import AuroraError
from llava_aurora.found_files import find_files
from llava_aurora.vqvae.depth_files import read_depth_values
from llava_aurora.vqvae.depth_scale import DepthScale

MAP_SUFFIXES = (".png", ".npy")
SETTINGS_FILE = "depth_maps.json"  # in a folder of maps that this project wrote: higher = closer


def to_model_range(depth: np.ndarray) -> Tensor:
    """uint8 array of any shape -> float32 tensor of that shape in [-1, 1]; 255 (closest) becomes 1.

    Raises ValueError if the array is not uint8.
    """
    if depth.dtype != np.uint8:
        raise ValueError(f"expected an 8-bit relative depth map (uint8), found {depth.dtype}")
    return torch.from_numpy(np.array(depth)).float() / 127.5 - 1


def from_model_range(depth: Tensor) -> np.ndarray:
    """Tensor of any shape in [-1, 1] (values outside are clipped) -> uint8 array of that shape."""
    return ((depth.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()


def resize_nearest(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) -> `size` (height, width): each pixel is the one nearest to its centre, so no new depth appears.

    Raises ValueError if depth is not a non-empty (H, W) array.
    """
    if depth.ndim != 2 or depth.size == 0:
        raise ValueError(f"expected a depth map (H, W), found shape {depth.shape}")
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(depth.shape, size, strict=True))
    return depth[rows[:, None], columns]


def read_depth_map(path: str | Path, scale: DepthScale | None = None) -> np.ndarray:
    """Reads relative depth as uint8 (H, W), higher = closer.

    A file as for `read_depth_values`, of uint8, uint16 or float in [0, 1]; with a scale (of 8 bits), of any values.
    Raises AuroraError naming the file, if it cannot be read, is no such map, or holds NaN or nothing but zeros.
    """
    path = Path(path)
    try:
        return (scale.relative if scale else check_depth_map)(read_depth_values(path))
    except ValueError as error:
        raise AuroraError(f"{path}: not a usable depth map: {error}") from error


def check_depth_map(values: np.ndarray) -> np.ndarray:
    """uint8, uint16 or float in [0, 1], (H, W) -> uint8 (H, W).

    Raises ValueError for another shape or type, NaN, values outside [0, 1], or a map of zeros.
    """
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"expected height x width, found shape {values.shape}")
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("it holds NaN or infinite values")
        if values.min() < 0 or values.max() > 1:
            raise ValueError(
                f"expected relative depth in [0, 1], found {values.min():g} to {values.max():g};"
                " say what it is by --values, or convert it by `llava-aurora data depth --maps`"
            )
        values = np.round(values * 255).astype(np.uint8)
    elif values.dtype == np.uint16:
        values = np.round(values / 257).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise ValueError(f"expected uint8, uint16 or float, found {values.dtype}")
    if not values.any():
        raise ValueError("it is all zero")
    return values


class DepthMapFolder(Sequence[np.ndarray]):
    """The maps under a folder, uint8 (H, W) each, read when asked for.

    Raises AuroraError as `find_files`; an item as `read_depth_map`.
    """

    def __init__(self, folder: str | Path, scale: DepthScale | None = None) -> None:
        self.paths, self.scale = find_files(folder, MAP_SUFFIXES).paths, scale

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        return read_depth_map(self.paths[index], self.scale)
