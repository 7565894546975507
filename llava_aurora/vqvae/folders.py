"""Whole folders of depth maps to one file of codes, and that file back to pictures.

codes.jsonl: a header line that says which VQ-VAE the codes belong to, then one line a map, `{"name", "codes"}`, where
the name is the map's path in its folder without the suffix and the codes go row by row.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track

from llava_aurora.atomic import atomic_file
from llava_aurora.errors import AuroraError
from llava_aurora.vqvae.autoencoder import DepthVQVAE
from llava_aurora.vqvae.checkpoint import fingerprint
from llava_aurora.vqvae.maps import find_maps, from_model_range, read_depth_map, resize_nearest, to_model_range

CODES_FORMAT = "llava_aurora depth codes"
CODES_VERSION = 1
Item = TypeVar("Item")


@dataclass
class FolderReport:
    """What became of a folder: how many maps went well, and a line of each that did not, naming its file."""

    written: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DepthCodes:
    """The content of a codes.jsonl: codes by the map's name, and what they belong to."""

    fingerprint: str
    grid: int
    codebook_size: int
    codes: dict[str, list[int]]


def encode_folder(*, model: DepthVQVAE, maps: str | Path, out: str | Path, batch_size: int = 32) -> FolderReport:
    """Encodes every .png/.npy map under `maps` into the file `out`, which appears when all are done.

    A map that cannot be used is left out and reported; the others are encoded all the same.

    Raises:
        AuroraError: if there is no map, none could be used, or the file system refuses.
    """
    maps, report = Path(maps), FolderReport()
    lines: dict[str, list[int]] = {}
    batches = list(_chunks(find_maps(maps), batch_size))
    for paths in track(batches, description="depth maps to codes", console=Console()):
        frames: dict[str, np.ndarray] = {}
        for path in paths:
            name = path.relative_to(maps).with_suffix("").as_posix()
            try:
                if name in lines or name in frames:
                    raise AuroraError(f"{path}: another map of this folder is called {name} too")
                frames[name] = resize_nearest(read_depth_map(path), (model.config.image_size, model.config.image_size))
            except AuroraError as error:
                report.failures.append(str(error))
        if frames:
            depth = to_model_range(np.stack(list(frames.values()))).unsqueeze(1).to(model.quantizer.codebook.device)
            lines.update(zip(frames, model.encode(depth).flatten(1).tolist(), strict=True))
    if not lines:
        raise AuroraError(
            f"{maps}: none of its {len(report.failures)} maps could be used, the first because of: {report.failures[0]}"
        )
    _write_codes(model, lines, out)
    report.written = len(lines)
    return report


@torch.no_grad()
def decode_file(
    *, model: DepthVQVAE, codes: str | Path, out: str | Path, size: tuple[int, int] | None = None, batch_size: int = 32
) -> FolderReport:
    """Decodes every map of a codes.jsonl to `out`/name.png, 8 bits, `size` (height, width) or the VQ-VAE's frame.

    A line that cannot be used is left out and reported.

    Raises:
        AuroraError: if the file is no codes.jsonl or belongs to another VQ-VAE, or the file system refuses.
    """
    out, report = Path(out), FolderReport()
    entries: dict[str, list[int]] = {}
    for place, line in _entries(codes, model):
        try:
            _add_entry(entries, line, model)
        except ValueError as error:
            report.failures.append(f"{place}: {error}")
    batches = list(_chunks(list(entries), batch_size))
    for names in track(batches, description="codes to depth maps", console=Console()):
        indices = torch.tensor([entries[name] for name in names], device=model.quantizer.codebook.device)
        pictures = from_model_range(model.decode(indices.unflatten(1, (model.grid, model.grid))).squeeze(1))
        for name, picture in zip(names, pictures, strict=True):
            with atomic_file(out / f"{name}.png") as temporary:
                Image.fromarray(picture if size is None else resize_nearest(picture, size)).save(temporary)
            report.written += 1
    return report


def read_codes(path: str | Path, *, model: DepthVQVAE) -> DepthCodes:
    """Reads a codes.jsonl, all of it or nothing.

    Raises:
        AuroraError: naming file and line, if it is no codes.jsonl, belongs to another VQ-VAE, or a line is malformed.
    """
    codes: dict[str, list[int]] = {}
    for place, line in _entries(path, model):
        try:
            _add_entry(codes, line, model)
        except ValueError as error:
            raise AuroraError(f"{place}: {error}") from error
    return DepthCodes(fingerprint(model), model.grid, model.config.codebook_size, codes)


def _header(model: DepthVQVAE) -> dict[str, Any]:
    return {
        "format": CODES_FORMAT,
        "version": CODES_VERSION,
        "fingerprint": fingerprint(model),
        "grid": model.grid,
        "codebook_size": model.config.codebook_size,
    }


def _write_codes(model: DepthVQVAE, codes: dict[str, list[int]], out: str | Path) -> None:
    with atomic_file(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(_header(model)) + "\n")
        for name, values in codes.items():
            file.write(json.dumps({"name": name, "codes": values}) + "\n")


def _entries(path: str | Path, model: DepthVQVAE) -> Iterator[tuple[str, str]]:
    """(place, line) of every map, after the header was found to be this VQ-VAE's."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AuroraError(f"{path}: cannot read the codes: {error}") from error
    try:
        header = json.loads(lines[0]) if lines else None
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != CODES_FORMAT:
        raise AuroraError(f"{path}: the first line is not the header of a file of depth codes")
    for key, expected in _header(model).items():
        if header.get(key) != expected:
            raise AuroraError(f"{path}: made with another VQ-VAE: {key} is {header.get(key)}, expected {expected}")
    for number, line in enumerate(lines[1:], start=2):
        yield f"{path}:{number}", line


def _add_entry(entries: dict[str, list[int]], line: str, model: DepthVQVAE) -> None:
    """Adds one line's map to `entries`; ValueError if the line is malformed or its name is taken."""
    entry = json.loads(line)
    name, codes = (entry.get("name"), entry.get("codes")) if isinstance(entry, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(codes, list):
        raise ValueError('expected {"name": text, "codes": list}')
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the name {name!r} leads out of the folder")
    if name in entries:
        raise ValueError(f"the name {name!r} occurs twice")
    model.check_codes(codes)
    entries[name] = codes


def _chunks(items: Sequence[Item], size: int) -> Iterable[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
