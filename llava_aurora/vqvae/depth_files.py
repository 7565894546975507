"""Reads the numbers of depth files (PNG, npy, npz, EXR) as they are, without deciding what they mean.

The size in a file's header is checked before memory is allocated for it, and pickles are refused.
"""

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image

from llava_aurora.errors import AuroraError

SUFFIXES = (".png", ".npy", ".npz", ".exr")
_TURNED = range(2, 9)  # values of the EXIF tag Orientation; 1 is upright


def read_depth_values(path: Path) -> np.ndarray:
    """The numbers of a depth file, (H, W), any integer or float dtype.

    PNG of 8 or 16 bits (grey, or colour with three equal channels); npy; npz with one array, or one that is called
    depth; EXR with one channel, one called Z, or three equal ones. Raises AuroraError naming the file, if it cannot be
    read, is too large, or holds something else.
    """
    readers = {".png": _read_png, ".npy": _read_npy, ".npz": _read_npz, ".exr": _read_exr}
    reader = readers.get(path.suffix.lower())
    try:
        if reader is None:
            raise ValueError(f"expected {', '.join(SUFFIXES)}")
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("not a regular file")
        values = reader(path)
        values = values[0] if values.ndim == 3 and len(values) == 1 else values
        if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "uif":
            raise ValueError(f"expected height x width numbers, found {values.dtype} {values.shape}")
        return values
    except AuroraError:
        raise
    except Exception as error:  # the readers raise whatever they stumble over in a broken file
        raise AuroraError(f"{path}: not a usable depth map: {error}") from error


def _read_png(path: Path) -> np.ndarray:
    with Image.open(path, formats=("PNG",)) as picture:
        _check_pixels(picture.size)
        if (orientation := picture.getexif().get(ExifTags.Base.Orientation)) in _TURNED:
            raise ValueError(f"it is stored turned (EXIF orientation {orientation}); save it upright")
        mode, values = picture.mode, np.asarray(picture)
    if mode in ("L", "I;16", "I;16B"):
        return values
    if mode == "I":  # how older Pillow versions open a 16-bit PNG
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("expected at most 16 bits per pixel")
        return values.astype(np.uint16)
    if mode == "RGB":
        if (values == values[..., :1]).all():
            return np.ascontiguousarray(values[..., 0])
        raise ValueError("expected a grey picture, found colours")
    raise ValueError(f"expected a grey picture, found Pillow mode {mode}")


def _read_npy(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return _read_array(file)


def _read_npz(path: Path) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        chosen = names if len(names) == 1 else [name for name in names if name == "depth.npy"]
        if not chosen:
            raise ValueError(f"expected one array, or one called depth, found {', '.join(names) or 'none'}")
        with archive.open(chosen[0]) as file:
            return _read_array(file)


def _read_array(file: IO[bytes]) -> np.ndarray:
    """An array whose header names numbers and a size that is allowed; pickled objects are refused."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy version {version} is not for numbers")
    shape, _, dtype = readers[version](file)
    if dtype.kind not in "uif":
        raise ValueError(f"expected numbers, found {dtype}")
    _check_pixels(shape)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _read_exr(path: Path) -> np.ndarray:
    try:
        import OpenEXR
    except ModuleNotFoundError as error:
        raise AuroraError(f"{path}: EXR files need a library: pip install 'llava-aurora[data]'") from error
    try:
        with OpenEXR.File(str(path), header_only=True) as header:
            low, high = header.header()["dataWindow"]
            _check_pixels(tuple(int(side) for side in high - low + 1))
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: channel.pixels.astype(np.float32) for name, channel in file.channels().items()}
    except RuntimeError as error:
        raise ValueError(error) from error
    named = [name for name in channels if name == "Z" or name.endswith(".Z")]
    if len(channels) == 1 or len(named) == 1:
        return channels[(named or list(channels))[0]]
    first, *others = channels.values()
    if all(np.array_equal(first, other, equal_nan=True) for other in others):
        return first
    raise ValueError(f"expected one channel, or one called Z, found {', '.join(channels)}")


def _check_pixels(size: tuple[int, ...]) -> None:
    """Raises ValueError for more pixels than Pillow accepts in a picture, whatever the file's kind."""
    if Image.MAX_IMAGE_PIXELS and math.prod(size) > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{' x '.join(map(str, size))} pixels are too many")
