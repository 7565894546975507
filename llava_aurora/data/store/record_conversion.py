"""Converts training records between JSON list, JSONL and Parquet, without losing anything."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from llava_aurora.batches import batches
from llava_aurora.data.store.parquet_file import parquet_writer
from llava_aurora.data.store.record_file import check_records, part_files, refuse_other_than_records
from llava_aurora.data.store.record_progress import follow
from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_file

RECORDS_PER_BATCH = 8192
Write = Callable[[Sequence[Mapping[str, Any]]], None]


@contextmanager
def json_writer(path: Path, *, before: str, between: str, after: str) -> Iterator[Write]:
    """A function that writes records to a file as JSON, with these texts around them."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        separator = before

        def write(records: Sequence[Mapping[str, Any]]) -> None:
            nonlocal separator
            for record in records:
                file.write(separator + _json(record))
                separator = between

        yield write
        file.write(after)


WRITERS: Mapping[str, Callable[[Path], AbstractContextManager[Write]]] = {
    ".json": partial(json_writer, before="[\n", between=",\n", after="\n]\n"),
    ".jsonl": partial(json_writer, before="", between="\n", after="\n"),
    ".parquet": parquet_writer,
}


def convert_records(
    source: str | Path, out: str | Path, *, change: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> int:
    """Writes the records of `source` to `out`, with a progress bar; reading `out` gives the same records.

    Args:
        source: a file or folder that `check_records` reads.
        out: the file to write; its suffix (.json, .jsonl, .parquet) says the format. An older one is replaced.
        change: what is done with the records on the way.
    Returns how many records were written.
    Raises AuroraError for another suffix; if `out` is what is read, or is there and holds no records; as
    `check_records` does; if the file system refuses. An older `out` is still there.
    """
    source, out, count = Path(source), Path(out), 0
    if out.suffix not in WRITERS:
        raise AuroraError(f"{out}: the suffix must be one of {', '.join(WRITERS)}")
    if out.resolve() in {part.resolve() for part in part_files(source)} or out.resolve().parent == source.resolve():
        raise AuroraError(f"{out}: is the input, or inside it; give another path")
    records = follow(source, check_records, title=f"{source.name} to {out.name}", bytes_worth_a_line=0)
    refuse_other_than_records(out)
    with atomic_file(out) as temporary, WRITERS[out.suffix](temporary) as write:
        for batch in batches(change(records), RECORDS_PER_BATCH):
            write(batch)
            count += len(batch)
    return count


def _json(record: Mapping[str, Any]) -> str:
    """As JSON with letters of all scripts as they are; escaped if it holds half of a surrogate pair."""
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(record)
    return text
