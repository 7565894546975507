"""Image files as the tensors that the vision tower reads, equal to those of LLaVA's own dataset.

LLaVA's processor scales and normalizes each value of the resized 8-bit image in double precision. As a channel has only
256 different values, the processor is asked for these once, and images are looked up in the table. Decoding, padding,
resizing and cropping are LLaVA's and Pillow's own, and may come from a cache.
"""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL
import torch
from llava.mm_utils import expand2square, process_images
from PIL import Image

from llava_aurora.data.images.image_cache import ImageCache
from llava_aurora.data.images.image_files import open_image, path_inside
from llava_aurora.errors import AuroraError

# Takes a decoded image, RGB in its own size, and returns the image to show instead.
ImageChange = Callable[[Image.Image], Image.Image]
BYTES_PER_GB = 10**9
__all__ = ["ChannelsLast", "ImageChange", "ImageReader", "open_image"]


class ChannelsLast:
    """An image processor that takes images as height × width × channels; by itself it guesses, wrongly for 1 or 3 rows.

    Args: processor: of the vision tower. All else that is asked of it, it answers itself.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle ask before there is a processor
            raise AttributeError(name)
        return getattr(self._processor, name)

    def __call__(self, images: Any, **options: Any) -> Any:
        return self.preprocess(images, **options)

    def preprocess(self, images: Any, **options: Any) -> Any:
        return self._processor.preprocess(images, input_data_format="channels_last", **options)


class ImageReader:
    """The images of a folder, as `LazySupervisedDataset` would give them.

    Args:
        aspect_ratio: "pad" and "resize" make an image square first; anything else leaves it to the processor.
        upright: turn images as their EXIF orientation says, which LLaVA does not do.
        cache: folder for decoded and resized images; empty for none.
    Raises AuroraError if a cache is asked for and cannot be used.
    """

    def __init__(
        self,
        *,
        folder: str | None,
        processor: Any,
        aspect_ratio: str,
        upright: bool = False,
        cache: str = "",
        cache_gb: float = 50.0,
    ) -> None:
        if folder is None:
            raise AuroraError("--image_folder is missing, but there are records with images")
        self.folder = os.path.abspath(folder)
        self.processor, self.aspect_ratio, self.upright = ChannelsLast(processor), aspect_ratio, upright
        self.table = _value_table(self.processor)
        self.cache: ImageCache | None = None
        if cache:
            if self.table is None:
                raise AuroraError(
                    f"--image_cache does not support {type(processor).__name__}, which does more than scale values"
                )
            # Another version of Pillow may decode to other values.
            settings = json.dumps(
                [processor.to_dict(), aspect_ratio, upright, PIL.__version__], sort_keys=True, default=str
            )
            self.cache = ImageCache(cache, limit=int(cache_gb * BYTES_PER_GB), settings=settings)

    def pixel_values(self, name: str, *, change: ImageChange | None = None) -> torch.Tensor:
        """An image as the vision tower reads it, float32 (3, H, W).

        Args: change: draws on it, in its own size; such an image is decoded each time and never cached. To draw in the
        vision tower's frame instead, which costs less, draw on a copy of what `frame` returns.
        Raises:
            AuroraError: see `path_inside` and `open_image`.
            OSError, ValueError: if there is no such file, or no file can have this name.
        """
        if self.table is None:
            return self.processor.preprocess(self._opened(name, change), return_tensors="pt")["pixel_values"][0]
        return self.values(self.frame(name, change=change))

    def frame(self, name: str, *, change: ImageChange | None = None) -> np.ndarray:
        """An image after decoding, padding, resizing and cropping, uint8 (3, H, W); perhaps read-only.

        Arguments and errors as for `pixel_values`.
        """
        if self.cache is None or change is not None:
            return self._frame(name, change)
        return self.cache.get(path_inside(self.folder, name), lambda: self._frame(name, None))

    def values(self, frame: np.ndarray) -> torch.Tensor:
        """A frame, uint8 (3, H, W), scaled and normalized as the processor does it, float32 (3, H, W)."""
        assert self.table is not None
        values = np.empty(frame.shape, dtype=np.float32)
        for channel, table in enumerate(self.table):
            np.take(table, frame[channel], out=values[channel], mode="clip")  # no index is outside; "raise" is slower
        return torch.from_numpy(values)

    def _frame(self, name: str, change: ImageChange | None) -> np.ndarray:
        return _resized(self.processor, self._opened(name, change))

    def _opened(self, name: str, change: ImageChange | None) -> Image.Image:
        image = open_image(path_inside(self.folder, name), upright=self.upright, on_white=False)
        if change is not None:
            image = change(image)
        if self.aspect_ratio == "pad":
            return expand2square(image, tuple(int(x * 255) for x in self.processor.image_mean))
        return stretched(image, self.processor) if self.aspect_ratio == "resize" else image


def stretched(image: Image.Image, processor: Any) -> Image.Image:
    """All of an image as the square that the vision tower sees. By nearest neighbour, as AURORA's code does it."""
    size = processor.crop_size
    return image.resize((size["width"], size["height"]), Image.Resampling.NEAREST)


def asked_pixels(images: Sequence[Image.Image], processor: Any, config: Any) -> torch.Tensor | list[torch.Tensor]:
    """Images as the vision tower reads them when a model is asked; LLaVA's `process_images` with "resize" in it.

    Args:
        images: RGB.
        config: of the model; its `image_aspect_ratio` says what is done to an image.
    Returns: (B, 3, H, W); for "anyres" a list of (N, 3, H, W) if images have different numbers of parts.
    """
    ratio = getattr(config, "image_aspect_ratio", None)
    if ratio not in (None, "square", "pad", "anyres", "resize"):  # LLaVA takes any other for square
        raise ValueError(f"it is {ratio!r}")
    if ratio == "resize":
        images = [stretched(image, processor) for image in images]
    return process_images(list(images), ChannelsLast(processor), config)


def _resized(processor: ChannelsLast, image: Image.Image | np.ndarray) -> np.ndarray:
    """What the processor does to an image before it scales its values, uint8 (3, H, W)."""
    done = processor.preprocess(image, do_rescale=False, do_normalize=False, return_tensors="np")
    return np.ascontiguousarray(done["pixel_values"][0])


def _value_table(processor: ChannelsLast) -> np.ndarray | None:
    """What the processor makes of each value in each channel, float32 (3, 256).

    None for a processor whose result is anything else than its resized image with values looked up in this table.
    """
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    as_it_is = {name: False for name in ("do_resize", "do_center_crop") if hasattr(processor, name)}
    try:
        done = processor.preprocess(ramp, **as_it_is)
        table = np.stack(done["pixel_values"])[0, :, :, 0].copy()
        probe = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
        resized, expected = _resized(processor, probe), processor.preprocess(probe)["pixel_values"][0]
    except (TypeError, ValueError, IndexError, AttributeError):
        return None
    if (resized.dtype, table.dtype, table.shape) != (np.uint8, np.float32, (3, 256)):
        return None
    looked_up = np.stack([table[channel][resized[channel]] for channel in range(3)])
    return table if np.array_equal(looked_up, expected) else None
