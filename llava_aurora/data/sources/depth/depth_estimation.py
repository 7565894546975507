"""Estimates relative depth maps of images by transformers' `depth-estimation` pipeline."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline

from llava_aurora.data.images.image_files import SUFFIXES, opened_image, refuse_turned, to_rgb
from llava_aurora.data.sources.depth.depth_maps import DepthReport, Share, refuse_inside, write_maps
from llava_aurora.errors import AuroraError
from llava_aurora.found_files import find_files
from llava_aurora.read_ahead import read_ahead
from llava_aurora.vqvae.depth_scale import Bits, Closer, DepthScale, Values

_BATCHES_AHEAD = 8
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# What models of each type output. Depth Anything exists as both and its configuration has the answer.
_VALUES_OF_TYPE: dict[str, Values] = {
    "depth_pro": "metric",
    "dpt": "relative",
    "glpn": "metric",
    "prompt_depth_anything": "metric",
    "zoedepth": "metric",
}


class DepthEstimator:
    """A depth estimator of transformers.

    Args:
        model: folder or name on the hub. Weights in safetensors only.
        device: "cpu", "cuda", "cuda:1", ...
        batch_size: images at once, of those that have the same size.
        values: what it outputs; None takes this from its configuration.
    Raises AuroraError if it cannot be loaded, or its configuration does not tell what it outputs.
    """

    def __init__(self, *, model: str, device: str = "cpu", batch_size: int = 8, values: Values | None = None) -> None:
        if not Path(model).is_dir() and not _HUB_NAME.fullmatch(model):
            raise AuroraError(f"{model}: neither a folder nor a valid name on the Hugging Face hub")
        try:
            # Published estimators were made with the slow processor.
            processor = AutoImageProcessor.from_pretrained(model, use_fast=False, trust_remote_code=False)
            self.pipeline = pipeline(
                "depth-estimation",
                model=model,
                image_processor=processor,
                trust_remote_code=False,
                device=device,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise AuroraError(f"{model}: cannot be loaded as a depth estimator: {reason}") from error
        self.name, self.batch_size = model, batch_size
        self.values: Values = values or self._values()

    def estimate(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        """RGB images of one size -> the model's output for each, float32 (H, W) of that size."""
        with torch.inference_mode():
            outputs = self.pipeline(list(images), batch_size=self.batch_size)
        return [output["predicted_depth"].detach().float().cpu().numpy().squeeze() for output in outputs]

    def _values(self) -> Values:
        config: Any = self.pipeline.model.config
        said = getattr(config, "depth_estimation_type", None) or _VALUES_OF_TYPE.get(config.model_type)
        if said not in ("metric", "relative"):
            raise AuroraError(f"{self.name}: does not say whether it writes metric or relative depth; give --values")
        return said


def estimate_maps(
    *,
    images: str | Path,
    out: str | Path,
    estimator: DepthEstimator,
    bits: Bits = 8,
    clip: float = 0.0,
    workers: int = 4,
    share: Share | None = None,
) -> DepthReport:
    """Writes the relative depth map of every image under `images`; continues an interrupted run.

    Args:
        out: folder of the maps: PNG, with the images' relative paths and sizes.
        bits, clip: see `DepthScale`.
        workers: threads that read.
        share: this process's part; everything if left out.
    Raises AuroraError if there are no images, `out` is inside `images` or holds maps of other settings, or the file
    system refuses.
    """
    images = Path(images)
    refuse_inside(out, images)
    closer: Closer = "lower" if estimator.values == "metric" else "higher"
    scale = DepthScale(values=estimator.values, closer=closer, clip=clip, bits=bits)
    local = Path(estimator.name)
    settings = {"source": "estimator", "model": str(local.resolve()) if local.is_dir() else estimator.name}

    def produce(paths: list[Path]) -> Iterator[tuple[Path, np.ndarray | AuroraError]]:
        ahead = _BATCHES_AHEAD * estimator.batch_size
        read: list[tuple[Path, Image.Image]] = []
        for path, image in read_ahead(paths, read_image, workers=workers, ahead=ahead):
            if isinstance(image, AuroraError):
                yield path, image
                continue
            read.append((path, image))
            if len(read) >= ahead:
                yield from _estimated(read, estimator, scale)
                read = []
        yield from _estimated(read, estimator, scale)

    return write_maps(
        folder=images,
        found=find_files(images, SUFFIXES),
        out=out,
        settings={**settings, **asdict(scale)},
        produce=produce,
        share=share or Share(),
    )


def default_device() -> str:
    """The GPU of this process among those of its machine, or the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def read_image(path: Path) -> Image.Image:
    """An upright image in RGB.

    Raises AuroraError naming the file, also if it is stored turned: LLaVA trains on the pixels as they are stored, the
    estimator needs an upright image, and a map can fit only one of them.
    """
    with opened_image(path) as picture:
        refuse_turned(picture, path)
        return to_rgb(picture, upright=False, on_white=False)


def _estimated(
    read: list[tuple[Path, Image.Image]], estimator: DepthEstimator, scale: DepthScale
) -> Iterator[tuple[Path, np.ndarray | AuroraError]]:
    """Maps of some images, in batches of one size each."""

    def size(pair: tuple[Path, Image.Image]) -> tuple[int, int]:
        return pair[1].size

    for _, group in groupby(sorted(read, key=size), key=size):
        pairs = list(group)
        for start in range(0, len(pairs), estimator.batch_size):
            yield from _batch(pairs[start : start + estimator.batch_size], estimator, scale)


def _batch(
    pairs: list[tuple[Path, Image.Image]], estimator: DepthEstimator, scale: DepthScale
) -> Iterator[tuple[Path, np.ndarray | AuroraError]]:
    try:
        found = estimator.estimate([image for _, image in pairs])
    except (RuntimeError, ValueError) as error:
        if len(pairs) == 1:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            yield pairs[0][0], AuroraError(f"{pairs[0][0]}: the depth estimator failed: {reason}")
            return
        # One image may be the cause, or the batch may be too large.
        for pair in pairs:
            yield from _batch([pair], estimator, scale)
        return
    for (path, _), depth in zip(pairs, found, strict=True):
        try:
            yield path, scale.relative(depth)
        except ValueError as error:
            yield path, AuroraError(f"{path}: the depth estimator's output is unusable: {error}")
