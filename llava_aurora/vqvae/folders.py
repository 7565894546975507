"""Encodes a folder of depth maps into one file of codes, and decodes such a file into maps."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from llava_aurora.batches import batches
from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_file
from llava_aurora.found_files import find_files
from llava_aurora.ownership import claim_folder
from llava_aurora.progress import tracked
from llava_aurora.read_ahead import read_ahead
from llava_aurora.vqvae.autoencoder import DepthVQVAE
from llava_aurora.vqvae.checkpoint import fingerprint
from llava_aurora.vqvae.code_files import DepthCodes, EncodedMap, code_entries, codes_writer, map_name, read_codes
from llava_aurora.vqvae.depth_scale import DepthScale
from llava_aurora.vqvae.maps import (
    MAP_SUFFIXES,
    SETTINGS_FILE,
    from_model_range,
    read_depth_map,
    resize_nearest,
    to_model_range,
)

__all__ = ["DepthCodes", "FolderReport", "decode_file", "encode_folder", "read_codes"]

Item = TypeVar("Item")
_BATCHES_AHEAD = 4


@dataclass
class FolderReport:
    """What was done: maps written, one line for each that failed, files passed over by kind, duration in seconds."""

    written: int = 0
    failures: list[str] = field(default_factory=list)
    passed_over: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class _Frame:
    """A map as the VQ-VAE takes it, and its own size (height, width)."""

    size: tuple[int, int]
    depth: np.ndarray  # uint8 (image_size, image_size)


def encode_folder(
    *,
    model: DepthVQVAE,
    maps: str | Path,
    out: str | Path,
    scale: DepthScale | None = None,
    batch_size: int = 32,
    workers: int = 0,
) -> FolderReport:
    """Encodes every .png/.npy map under `maps` into the file `out`, which appears when all are done.

    A map that cannot be used is left out and reported; the others are encoded all the same.

    Args:
        out: ends in .parquet, see `code_files`.
        scale: what the values mean, if not relative depth as `read_depth_map` takes it.
        workers: threads that read maps while the model works; 0 reads in between.
    Raises AuroraError if there is no map, none could be used, or the file system refuses.
    """
    maps, started = Path(maps), time.monotonic()
    found = find_files(maps, MAP_SUFFIXES)
    report = FolderReport(passed_over=found.passed_over)
    side = model.config.image_size

    def read(path: Path) -> _Frame:
        depth = read_depth_map(path, scale)
        return _Frame((depth.shape[0], depth.shape[1]), resize_nearest(depth, (side, side)))

    reading = read_ahead(
        _one_a_name(found.paths, maps, report), read, workers=workers, ahead=_BATCHES_AHEAD * batch_size
    )
    shown = tracked(reading, "depth maps to codes", total=len(found.paths))
    with codes_writer(out, model) as add:
        for batch in batches(_without_failures(shown, report), batch_size):
            depth = to_model_range(np.stack([frame.depth for _, frame in batch])).unsqueeze(1)
            codes = model.encode(depth.to(model.quantizer.codebook.device)).flatten(1).tolist()
            named = zip(batch, codes, strict=True)
            add([EncodedMap(path.relative_to(maps).as_posix(), frame.size, values) for (path, frame), values in named])
            report.written += len(batch)
        if not report.written:
            raise AuroraError(
                f"{maps}: none of its {len(report.failures)} maps could be used, the first because of:"
                f" {report.failures[0]}"
            )
    report.seconds = time.monotonic() - started
    return report


@torch.no_grad()
def decode_file(
    *, model: DepthVQVAE, codes: str | Path, out: str | Path, size: tuple[int, int] | None = None, batch_size: int = 32
) -> FolderReport:
    """Decodes every map of a file of codes to `out`/name.png, 8 bits, `size` (height, width) or the VQ-VAE's frame.

    A row that cannot be used is left out and reported. Raises AuroraError if the file holds no codes or belongs
    to another VQ-VAE, `out` holds anything but maps decoded so before, or the file system refuses.
    """
    out, report, started = Path(out), FolderReport(), time.monotonic()
    settings = {"source": "codes", "vqvae": fingerprint(model), "size": list(size or ())}
    claim_folder(out, SETTINGS_FILE, settings, what="decoded maps")
    entries = list(code_entries(codes, model))
    report.failures = [f"{entry.place}: {entry.problem}" for entry in entries if entry.problem is not None]
    portions = list(batches((entry for entry in entries if entry.problem is None), batch_size))
    for batch in tracked(portions, "codes to depth maps"):
        indices = torch.tensor([entry.codes for entry in batch], device=model.quantizer.codebook.device)
        pictures = from_model_range(model.decode(indices.unflatten(1, (model.grid, model.grid))).squeeze(1))
        for entry, picture in zip(batch, pictures, strict=True):
            with atomic_file(out / f"{entry.name}.png") as temporary:
                Image.fromarray(picture if size is None else resize_nearest(picture, size)).save(temporary)
            report.written += 1
    report.seconds = time.monotonic() - started
    return report


def _one_a_name(paths: Sequence[Path], maps: Path, report: FolderReport) -> Iterator[Path]:
    """The first path of each name; the others are reported."""
    names: set[str] = set()
    for path in paths:
        name = map_name(path.relative_to(maps).as_posix())
        if name in names:
            report.failures.append(f"{path}: another map of this folder is called {name} too")
            continue
        names.add(name)
        yield path


def _without_failures(
    read: Iterable[tuple[Path, _Frame | AuroraError]], report: FolderReport
) -> Iterator[tuple[Path, _Frame]]:
    for path, frame in read:
        if isinstance(frame, AuroraError):
            report.failures.append(str(frame))
        else:
            yield path, frame
