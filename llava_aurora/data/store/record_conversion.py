"""Training records from one format into another: JSON list, JSONL and Parquet, without losing anything.

Every record is checked on the way as it is before training. The new file appears when it is whole.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from llava_aurora.batches import batches
from llava_aurora.data.store.parquet_file import ParquetWriter
from llava_aurora.data.store.record_file import check_records, part_files
from llava_aurora.data.store.record_progress import follow
from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_file

RECORDS_PER_BATCH = 8192


class JsonLinesWriter:
    """Writes records as JSONL, one a line. A context manager; the file is whole at its end."""

    before, between, after = "", "\n", "\n"

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")
        self._next = self.before

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        for record in records:
            self._file.write(self._next + _json(record))
            self._next = self.between

    def __enter__(self) -> "JsonLinesWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self._file.write(self.after)


class JsonListWriter(JsonLinesWriter):
    """Writes records as the JSON list that LLaVA reads, one a line."""

    before, between, after = "[\n", ",\n", "\n]\n"


WRITERS: Mapping[str, type[JsonLinesWriter] | type[ParquetWriter]] = {
    ".json": JsonListWriter,
    ".jsonl": JsonLinesWriter,
    ".parquet": ParquetWriter,
}


def convert_records(source: str | Path, out: str | Path) -> int:
    """Writes the records of `source` to `out`, with a progress bar; reading `out` gives the same records.

    Args:
        source: a file or folder that `check_records` reads.
        out: its suffix, .json, .jsonl or .parquet, says what is written. An older file is replaced.

    Returns:
        how many records there are.

    Raises:
        AuroraError: naming file and record, for what cannot be trained on; for another suffix; if `out` is what is
            read; if the file system refuses. An older `out` is still there.
    """
    source, out, count = Path(source), Path(out), 0
    if out.suffix not in WRITERS:
        raise AuroraError(f"{out}: the suffix says what is written: {', '.join(WRITERS)}")
    if out.resolve() in {part.resolve() for part in part_files(source)} or out.resolve().parent == source.resolve():
        raise AuroraError(f"{out}: is what is read, or lies in it; give another path")
    records = follow(source, check_records, title=f"{source.name} to {out.name}", bytes_worth_a_line=0)
    with atomic_file(out) as temporary, WRITERS[out.suffix](temporary) as writer:
        for batch in batches(records, RECORDS_PER_BATCH):
            writer.write(batch)
            count += len(batch)
    return count


def _json(record: Mapping[str, Any]) -> str:
    """As JSON, with letters of all scripts as they are; escaped where half of a surrogate pair is among them."""
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(record)
    return text
