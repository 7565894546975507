"""Training records in Parquet: columns that other tools can read, and one for all that does not fit into them.

- id, image: text. Images inside the column, as `datasets` writes them ({"bytes", "path"}), are unpacked while they are
  read, into the folder NAME.images beside NAME.parquet, which is then the image folder's.
- conversations: a list of {"from", "value"}. JSON text is read as well.
- aurora: the truth about the image, as JSON text, as its shape differs by task.
- task: the name of the task, for sorting and counting. Read only where `aurora` is missing.
- other_fields: a JSON object with all other fields, and with those of the above that their column cannot hold (an id
  that is a number, a turn with further fields). Empty for most records. It overrides the columns.
- any other column of text, numbers, lists or structs becomes a field of its name.

Read and written with pyarrow alone: docs/data_store.md says what the library `datasets` would bring.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llava_aurora.data.images.image_files import SUFFIXES
from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_file, parse_json, regular_file
from llava_aurora.tasks.registry import task_name, tasks

ROWS_PER_READ = 1024
IMAGES_PER_READ = 32
OTHER_FIELDS = "other_fields"
TURN = pa.struct([("from", pa.string()), ("value", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.string()),
        ("conversations", pa.list_(TURN)),
        ("aurora", pa.string()),
        ("task", pa.string()),
        (OTHER_FIELDS, pa.string()),
    ]
)


@dataclass(frozen=True)
class Unreadable:
    """A record that cannot be read, in the place of its value. Args: problem: why, in words."""

    problem: str


@contextmanager
def parquet_writer(path: Path) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
    """A function that writes records to a Parquet file, a row group at each call."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as file:
        yield lambda records: file.write_table(pa.Table.from_pylist([_row(each) for each in records], schema=SCHEMA))


def read_parquet(path: Path, *, progress: Callable[[int], None]) -> Iterator[dict[str, Any] | Unreadable]:
    """The records of a Parquet file, one by one; whether they are in LLaVA's format is not looked at.

    Args:
        progress: called with the number of its bytes that have been read.
    Raises AuroraError if it is no Parquet file, or a column is of a type that no record can hold.
    """
    row = -1
    try:
        with pq.ParquetFile(regular_file(path, what="training records"), pre_buffer=False) as file:
            _check_schema(path, file.schema_arrow)
            size, rows = path.stat().st_size, max(1, file.metadata.num_rows)
            images = "image" in file.schema_arrow.names and not _is_text(file.schema_arrow.field("image").type)
            for batch in file.iter_batches(batch_size=IMAGES_PER_READ if images else ROWS_PER_READ):
                columns = [column.to_pylist() for column in batch.columns]
                for values in zip(*columns, strict=True):
                    row += 1
                    found = dict(zip(batch.schema.names, values, strict=True))
                    yield _read_row({**found, "image": _unpacked(path, row, found.get("image"))})
                progress(size * (row + 1) // rows)
    except (OSError, pa.ArrowException) as error:
        raise AuroraError(f"{path}: cannot read the training records: {error}") from error


def _read_row(row: dict[str, Any]) -> dict[str, Any] | Unreadable:
    try:
        return _record(row)
    except ValueError as error:
        return Unreadable(str(error))


def _unpacked(path: Path, row: int, image: Any) -> Any:
    """The path, relative to the folder of a Parquet file, of the image that a row holds; a path or None as it is."""
    if not isinstance(image, dict) or image.get("bytes") is None:
        return image["path"] if isinstance(image, dict) else image
    content, suffix = image["bytes"], Path(image.get("path") or "").suffix.lower()
    name = f"{path.stem}.images/{row // 1000:04}/{row:07}{suffix if suffix in SUFFIXES else '.png'}"
    file = path.parent / name
    if not (file.is_file() and file.read_bytes() == content):
        with atomic_file(file) as temporary:
            temporary.write_bytes(content)
    return name


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it goes into the columns."""
    row: dict[str, Any] = {
        "id": _text(record.get("id")),
        "image": _text(record.get("image")),
        "conversations": [{key: _text(turn[key]) for key in ("from", "value")} for turn in record["conversations"]],
        "aurora": json.dumps(record["aurora"]) if "aurora" in record else None,
        "task": task_name(record),
    }
    exact = ("id", "image", "conversations")
    other = {name: value for name, value in record.items() if name not in (*exact, "aurora")}
    lost = [name for name in exact if name in record and (record[name] is None or record[name] != row[name])]
    other |= {name: record[name] for name in lost}
    return {**row, OTHER_FIELDS: json.dumps(other) if other else None}


def _text(value: Any) -> str | None:
    """A value as text that UTF-8 can hold, which half of a surrogate pair cannot be."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()


def _record(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the record that it is; a field without a value is left out. Raises ValueError for what is no JSON."""
    row = {name: value for name, value in row.items() if value is not None}
    other, task = _json(row, OTHER_FIELDS), row.pop("task", None)
    for name in ("conversations", "aurora"):
        if isinstance(row.get(name), str):
            row[name] = _json(row, name)
    if isinstance(task, str) and task in tasks() and "aurora" not in row:
        row["aurora"] = {"task": task}
    if other is not None and not isinstance(other, dict):
        raise ValueError(f"{OTHER_FIELDS} is not a JSON object")
    return {**row, **(other or {})}


def _json(row: dict[str, Any], name: str) -> Any:
    text = row.pop(name, None)
    try:
        return None if text is None else parse_json(text)
    except ValueError as error:
        raise ValueError(f"{name} is not valid JSON: {error}") from error


def _check_schema(path: Path, schema: pa.Schema) -> None:
    if "conversations" not in schema.names:
        raise AuroraError(f"{path}: has no column conversations; it has {', '.join(schema.names)}")
    for field in schema:
        if field.name == "image" and _holds_images(field.type):
            continue
        named = field.name in ("image", OTHER_FIELDS)
        if not (_is_text(field.type) or pa.types.is_null(field.type) if named else _is_plain(field.type)):
            expected = "a path as text or {bytes, path}" if field.name == "image" else "text, numbers, lists or structs"
            raise AuroraError(f"{path}: its column {field.name} is of type {field.type}; {expected} is expected")


def _holds_images(kind: pa.DataType) -> bool:
    """Whether it is the type of an image column of `datasets`."""
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values of this type are JSON."""
    if pa.types.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_plain(kind.value_type)
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return numbers or _is_text(kind) or pa.types.is_null(kind)
