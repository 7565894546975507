"""Tables that benchmarks are published as: JSON, JSONL, or Parquet with the images inside, as on the Hugging Face hub.

Images inside a Parquet file stay there until they are asked for: SEED-Bench's are more than memory holds.
"""

import io
import json
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
from llava_aurora.files import read_json

SUFFIXES = (".parquet", ".jsonl", ".json")


@dataclass(frozen=True)
class EmbeddedImage:
    """An image in a Parquet file: a struct of `bytes` and `path`, or a list of which the first counts."""

    file: Path
    column: str
    group: int
    row: int

    def open(self) -> Image.Image:
        """RGB. Raises AuroraError naming file and row."""
        where = f"{self.file}: image {self.row} of row group {self.group}"
        value = _column(self.file, self.column, self.group)[self.row].as_py()
        value = value[0] if isinstance(value, list) and value else value
        content = value.get("bytes") if isinstance(value, dict) else None
        if not isinstance(content, bytes):
            raise AuroraError(f"{where}: there are no bytes of an image in column {self.column}")
        with opened_image(io.BytesIO(content), name=where) as image:
            return to_rgb(image, upright=True, on_white=True)


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        where: file and number, for errors.
        folder: that names of image files are relative to.
        values: all columns but those of images inside a Parquet file.
        embedded: these, by column.
    """

    where: str
    folder: Path
    values: Mapping[str, Any]
    embedded: Mapping[str, EmbeddedImage]

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
        """The image inside the file, or the file that is named, in the first of some folders that has it.

        Raises:
            AuroraError: if there is neither, or the name leads out of its folder.
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
        folder: or one such file.
        images: columns that hold images in a Parquet file.
        rows_under: name under which a JSON file keeps its list of rows; the file is that list if left out.

    Raises:
        AuroraError: if there is no table, or one is malformed: names file and row.
    """
    root = folder if folder.is_dir() else folder.parent
    for path in _tables(folder):
        if path.suffix == ".parquet":
            yield from _parquet_rows(path, root, images)
            continue
        for number, values in enumerate(_json_values(path, rows_under), start=1):
            where = f"{path}, {'line' if path.suffix == '.jsonl' else 'entry'} {number}"
            if not isinstance(values, dict):
                raise AuroraError(f"{where}: this is no JSON object")
            yield Row(where, root, values, {})


def _tables(folder: Path) -> list[Path]:
    if folder.is_file() and folder.suffix in SUFFIXES:
        return [folder]
    for suffix in SUFFIXES:
        found = sorted(path for path in folder.rglob(f"*{suffix}") if path.is_file() and not path.name.startswith("."))
        if found:
            return found
    raise AuroraError(f"{folder}: holds no table ({', '.join(SUFFIXES)}); give the folder of the benchmark")


def _json_values(path: Path, rows_under: str | None) -> Iterator[Any]:
    if path.suffix == ".jsonl":
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise AuroraError(f"{path}: cannot read the questions: {error}") from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise AuroraError(f"{path}, line {number}: this is no JSON: {error}") from error
        return
    content = read_json(path, what="questions")
    rows = content.get(rows_under) if rows_under is not None and isinstance(content, dict) else content
    if not isinstance(rows, list):
        under = f" under {rows_under!r}" if rows_under else ""
        raise AuroraError(f"{path}: there is no list of questions{under}")
    yield from rows


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
        raise AuroraError(f"{path}: this is no Parquet file that can be read: {error}") from error


@lru_cache(maxsize=2)
def _column(file: Path, column: str, group: int) -> pa.ChunkedArray:
    """A column of one row group: questions are asked in the order of the file, so that each is read once."""
    try:
        with pq.ParquetFile(file) as opened:
            return opened.read_row_group(group, columns=[column]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise AuroraError(f"{file}: cannot read its images: {error}") from error
