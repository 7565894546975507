"""Reads the tables that benchmarks are published as: JSON, JSONL, or Parquet, which can hold the images too.

Images in a Parquet file are read one row group at a time, when needed: SEED-Bench's do not fit into memory.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from llava_aurora.data.images.image_files import opened_image, path_inside, to_rgb
from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json, read_json_lines
from llava_aurora.found_files import find_files

SUFFIXES = (".parquet", ".jsonl", ".json")


@dataclass(frozen=True)
class EmbeddedImage:
    """An image in a Parquet file: a struct of `bytes` and `path`, or the first of a list of such structs."""

    file: Path
    column: str
    group: int
    row: int

    @property
    def where(self) -> str:
        """File and row, for errors."""
        return f"{self.file}: image {self.row} of row group {self.group}"

    def content(self) -> bytes:
        """The image's file. Raises AuroraError naming file and row."""
        value = _column(self.file, self.column, self.group)[self.row].as_py()
        value = value[0] if isinstance(value, list) and value else value
        content = value.get("bytes") if isinstance(value, dict) else None
        if not isinstance(content, bytes):
            raise AuroraError(f"{self.where}: column {self.column} holds no image")
        return content

    def open(self) -> Image.Image:
        """RGB. Raises AuroraError naming file and row."""
        with opened_image(io.BytesIO(self.content()), name=self.where) as image:
            return to_rgb(image, upright=True, on_white=True)


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    where: str  # file and number, for errors
    folder: Path  # that names of image files are relative to
    values: Mapping[str, Any]  # all columns but those of images inside a Parquet file
    embedded: Mapping[str, EmbeddedImage]  # the images inside a Parquet file, by column

    def text(self, name: str) -> str:
        """Raises AuroraError if there is no text under that name."""
        value = self.values.get(name)
        if not isinstance(value, str) or not value.strip():
            raise AuroraError(f"{self.where}: there is no text under {name!r}")
        return value.strip()

    def texts(self, name: str) -> tuple[str, ...]:
        """Raises AuroraError if there is no list of texts under that name."""
        value = self.values.get(name)
        if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
            raise AuroraError(f"{self.where}: there is no list of texts under {name!r}")
        return tuple(value)

    def image(self, column: str, *, folders: Sequence[str] = ("",)) -> Path | EmbeddedImage:
        """The image in the Parquet file, or else the image file that this column names, in the first folder with it.

        Raises AuroraError if there is neither, or the name leads out of its folder.
        """
        if column in self.embedded:
            return self.embedded[column]
        name = self.values.get(column)
        name = name[0] if isinstance(name, list) and name else name
        name = name.get("path") if isinstance(name, dict) else name
        if not isinstance(name, str) or not name:
            raise AuroraError(f"{self.where}: {column!r} names no image")
        try:
            paths = [path_inside(self.folder / folder, name) for folder in folders]
        except AuroraError as error:
            raise AuroraError(f"{self.where}: {error}") from error
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            raise AuroraError(f"{self.where}: there is no image {paths[0]}")
        return found


def table_rows(folder: Path, *, images: Sequence[str] = (), rows_under: str | None = None) -> Iterator[Row]:
    """The rows of all tables under a folder: Parquet where there is some, or else JSONL, or else JSON.

    Args:
        images: columns that hold images in a Parquet file.
        rows_under: the key of the list of rows in a JSON file; if left out, the file is that list.
    Raises AuroraError if there is no table, or one is malformed: names file and row.
    """
    root = folder if folder.is_dir() else folder.parent
    for path in _tables(folder):
        if path.suffix.lower() == ".parquet":
            yield from _parquet_rows(path, root, images)
            continue
        if path.suffix.lower() == ".jsonl":
            values_at = read_json_lines(path, what="questions")
        else:
            values_at = _json_values(path, rows_under)
        for where, values in values_at:
            if not isinstance(values, dict):
                raise AuroraError(f"{where}: this is not a JSON object")
            yield Row(where, root, values, {})


def _tables(folder: Path) -> list[Path]:
    if folder.is_file() and folder.suffix in SUFFIXES:
        return [folder]
    paths = find_files(folder, SUFFIXES).paths
    preferred = min((path.suffix.lower() for path in paths), key=SUFFIXES.index)
    return [path for path in paths if path.suffix.lower() == preferred]


def _json_values(path: Path, rows_under: str | None) -> Iterator[tuple[str, Any]]:
    content = read_json(path, what="questions")
    rows = content.get(rows_under) if rows_under is not None and isinstance(content, dict) else content
    if not isinstance(rows, list):
        under = f" under {rows_under!r}" if rows_under else ""
        raise AuroraError(f"{path}: no list of questions{under}")
    yield from ((f"{path}, entry {number}", values) for number, values in enumerate(rows, start=1))


def _parquet_rows(path: Path, root: Path, images: Sequence[str]) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name not in images]
            held = [name for name in images if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=columns).to_pylist()
                for number, values in enumerate(rows):
                    embedded = {name: EmbeddedImage(path, name, group, number) for name in held}
                    yield Row(f"{path}, row {number} of row group {group}", root, values, embedded)
    except (pa.ArrowException, OSError) as error:
        raise AuroraError(f"{path}: not a readable Parquet file: {error}") from error


@lru_cache(maxsize=2)
def _column(file: Path, column: str, group: int) -> pa.ChunkedArray:
    """A column of one row group. Questions come in the order of the file, so that each is read once."""
    try:
        with pq.ParquetFile(file) as opened:
            return opened.read_row_group(group, columns=[column]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise AuroraError(f"{file}: cannot read its images: {error}") from error
