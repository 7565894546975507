"""Parquet files of depth codes; those of another VQ-VAE are refused.

One row a map: map (its path in the folder), height and width (its pixels), codes (row by row, a fixed-size list of
uint8, or of uint16 where there are more than 256). A header in the schema's metadata says which VQ-VAE they belong to.
A map's name is its path in its folder without the suffix.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_file, parse_json, regular_file
from llava_aurora.ownership import refuse_other_file
from llava_aurora.vqvae.autoencoder import DepthVQVAE
from llava_aurora.vqvae.checkpoint import fingerprint

CODES_FORMAT = "llava_aurora depth codes"
CODES_VERSION = 1
SUFFIX = ".parquet"
_METADATA = b"llava_aurora"
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class EncodedMap:
    """A map that was encoded: its path in its folder, its size (height, width) in pixels, its codes row by row."""

    path: str
    size: tuple[int, int]
    codes: Sequence[int]


@dataclass(frozen=True)
class DepthCodes:
    """The content of a file of codes: codes by the map's name, and what they belong to."""

    fingerprint: str
    grid: int
    codebook_size: int
    codes: dict[str, list[int]]


@dataclass(frozen=True)
class CodeEntry:
    """A map in a file of codes: where it stands there, its name, its codes; or the problem that it has."""

    place: str
    name: str = ""
    codes: Sequence[int] = ()
    problem: str | None = None


def map_name(path: str) -> str:
    """The path of a map in its folder without the suffix, by which records and pictures refer to it."""
    return PurePosixPath(path).with_suffix("").as_posix()


@contextmanager
def codes_writer(out: str | Path, model: DepthVQVAE) -> Iterator[Callable[[Sequence[EncodedMap]], None]]:
    """Yields a function that adds maps to the file `out`, which appears when the block succeeds.

    Raises AuroraError if `out` does not end in .parquet, is there and holds no codes, or the file system refuses.
    """
    if Path(out).suffix != SUFFIX:
        raise AuroraError(f"{out}: a file of codes ends in {SUFFIX}")
    refuse_other_file(out, "depth codes", lambda beginning: _holds_codes(Path(out)))
    schema = _schema(model)
    waiting: list[EncodedMap] = []
    with atomic_file(out) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as parquet:

        def add(maps: Sequence[EncodedMap]) -> None:
            waiting.extend(maps)
            if len(waiting) >= _ROWS_AT_ONCE:
                parquet.write_table(_table(waiting, schema))
                waiting.clear()

        yield add
        parquet.write_table(_table(waiting, schema))


def read_codes(path: str | Path, *, model: DepthVQVAE) -> DepthCodes:
    """Reads a file of codes, all of it or nothing.

    Raises AuroraError naming file and row, if it is no such file, belongs to another VQ-VAE, or is malformed.
    """
    codes: dict[str, list[int]] = {}
    for entry in code_entries(path, model):
        if entry.problem is not None:
            raise AuroraError(f"{entry.place}: {entry.problem}")
        codes[entry.name] = list(entry.codes)
    return DepthCodes(fingerprint(model), model.grid, model.config.codebook_size, codes)


def code_entries(path: str | Path, model: DepthVQVAE) -> Iterator[CodeEntry]:
    """Every map of a file of codes, in its order; of two with the same name the second has that as its problem.

    Raises AuroraError if it is no such file or belongs to another VQ-VAE.
    """
    names: set[str] = set()
    for entry in _entries(path, model):
        problem = entry.problem or _name_problem(entry.name, names)
        names.add(entry.name)
        yield entry if problem is None else CodeEntry(entry.place, problem=problem)


def _header(model: DepthVQVAE) -> dict[str, Any]:
    return {
        "format": CODES_FORMAT,
        "version": CODES_VERSION,
        "fingerprint": fingerprint(model),
        "grid": model.grid,
        "codebook_size": model.config.codebook_size,
    }


def _check_header(path: str | Path, header: Any, model: DepthVQVAE) -> None:
    if not isinstance(header, dict) or header.get("format") != CODES_FORMAT:
        raise AuroraError(f"{path}: its metadata is not the header of a file of depth codes")
    for key, expected in _header(model).items():
        if header.get(key) != expected:
            raise AuroraError(f"{path}: made with another VQ-VAE: {key} is {header.get(key)}, expected {expected}")


def _name_problem(name: str, taken: set[str]) -> str | None:
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        return f"the name {name!r} leads out of the folder"
    return f"the name {name!r} occurs twice" if name in taken else None


def _schema(model: DepthVQVAE) -> pa.Schema:
    code = pa.from_numpy_dtype(np.min_scalar_type(model.config.codebook_size - 1))
    fields = [
        pa.field("map", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("codes", pa.list_(pa.field("item", code, nullable=False), model.codes_per_map), nullable=False),
    ]
    return pa.schema(fields, metadata={_METADATA: json.dumps(_header(model)).encode()})


def _table(maps: Sequence[EncodedMap], schema: pa.Schema) -> pa.Table:
    kind = schema.field("codes").type
    codes = np.array([each.codes for each in maps], kind.value_type.to_pandas_dtype()).reshape(-1)
    columns = [
        pa.array([each.path for each in maps], pa.string()),
        pa.array([each.size[0] for each in maps], pa.int32()),
        pa.array([each.size[1] for each in maps], pa.int32()),
        pa.FixedSizeListArray.from_arrays(pa.array(codes), type=kind),
    ]
    return pa.table(columns, schema=schema)


def _entries(path: str | Path, model: DepthVQVAE) -> Iterator[CodeEntry]:
    row = 0
    try:
        with pq.ParquetFile(regular_file(path, what="codes")) as file:
            _check_header(path, _metadata(file.schema_arrow), model)
            expected = _schema(model)
            if not file.schema_arrow.equals(expected):
                raise AuroraError(f"{path}: the columns are not those of depth codes: {', '.join(expected.names)}")
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=["map", "codes"]):
                codes = batch.column("codes").flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
                fits = (codes < model.config.codebook_size).all(axis=1)
                for name, values, good in zip(batch.column("map").to_pylist(), codes.tolist(), fits, strict=True):
                    place, row = f"{path}: row {row}", row + 1
                    problem = None if good else f"a code is not in [0, {model.config.codebook_size})"
                    yield CodeEntry(place, map_name(name) if PurePosixPath(name).name else "", values, problem)
    except (OSError, pa.ArrowException) as error:
        raise AuroraError(f"{path}: cannot read the codes: {error}") from error


def _holds_codes(path: Path) -> bool:
    try:
        return _METADATA in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _metadata(schema: pa.Schema) -> Any:
    try:
        return parse_json((schema.metadata or {}).get(_METADATA, b"null"))
    except ValueError:
        return None
