"""Training records in a memory-mapped Arrow file that all ranks of a machine share.

The first process to open a file of records (JSON, JSONL, Parquet, or a folder of parts) streams it once, checks every
record and writes the Arrow file into a cache; all others map that file. A rank holds a few bytes a record.

Arrow files are named STEM-PLACE-STATE-CHECKED.arrow: hashes of the source's path, of its size and time, and of what was
checked. Converting a source removes the files of its earlier states; processes that have one mapped keep it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from filelock import FileLock

from llava_aurora.batches import batches
from llava_aurora.data.store.record_file import as_trained, check_records, part_files
from llava_aurora.data.store.record_progress import follow
from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_file
from llava_aurora.listed import listed
from llava_aurora.tasks.registry import OTHER, task_name, task_names, tasks
from llava_aurora.tasks.task import KINDS
from llava_aurora.tokens.vocabulary import TokenFamily

FORMAT = 3
RECORDS_PER_BATCH = 8192
SCHEMA = pa.schema(
    [
        ("record", pa.large_string()),
        ("task", pa.dictionary(pa.int8(), pa.string())),
        ("image", pa.int64()),  # a digest of its name, which tells the same image from others
        ("length", pa.int32()),
    ]
)


class RecordStore(Sequence[dict[str, Any]]):
    """A sequence of records, each read from the mapped file on access.

    Args:
        file: the Arrow file, made by `open`.
        source: the file or folder it was made from, for messages.
        rows: the rows of the file that this store shows, in this order; all of them if left out.
    Raises AuroraError if `file` is not readable.
    """

    def __init__(self, file: Path, *, source: Path, rows: np.ndarray | None = None) -> None:
        self.file, self.source, self.rows = file, source, rows
        try:
            self._table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise AuroraError(f"{file}: not readable ({error}); delete it, and {source} is read again") from error

    @classmethod
    def open(cls, source: str | Path, *, families: Iterable[TokenFamily] = ()) -> "RecordStore":
        """Opens a file of records; converts and checks it unless that was done before.

        Safe to call from many processes at once: one converts, the others wait.

        Args:
            source: a file or folder that `check_records` reads.
            families: the token families to check, and to count in `lengths`.
        Raises AuroraError naming file and record, if it is no such file or a span of tokens in it is malformed.
        """
        source, families = Path(source), tuple(families)
        place, state, checked = _place(source), _state(source), _checked(families)
        file = cache_folder() / f"{place}-{state}-{checked}.arrow"
        if not file.exists():
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(file.with_name(f"{place}.lock")):
                    if not file.exists():
                        _convert(source, file, families)
                    _remove_earlier(file.parent, place=place, state=state)
            except OSError as error:
                raise AuroraError(
                    f"{file.parent}: cannot write records there: {error.strerror or error};"
                    " set LLAVA_AURORA_CACHE to a folder that can be written"
                ) from error
        return cls(file, source=source)

    def select(self, indices: np.ndarray) -> "RecordStore":
        """The records at these indices, int (n,), in this order, from the same file."""
        rows = np.asarray(indices, dtype=np.int32)
        return RecordStore(self.file, source=self.source, rows=rows if self.rows is None else self.rows[rows])

    def of_tasks(self, train_tasks: str) -> "RecordStore":
        """The records of some tasks alone.

        Args: train_tasks: names of tasks or kinds (atomic, chain, direct), with commas; empty for all records.
        Raises AuroraError for a name that is neither, or if no record is left; it lists what there is.
        """
        names = listed(train_tasks)
        if not names:
            return self
        if unknown := [name for name in names if name not in (*KINDS, *task_names())]:
            raise AuroraError(
                f"--train_tasks: unknown task {unknown[0]!r}; available: the kinds {', '.join(KINDS)} and the tasks"
                f" {', '.join(task_names())}"
            )
        wanted = [task in names or (task != OTHER and tasks()[task].kind in names) for task in task_names()]
        chosen = np.flatnonzero(np.array(wanted)[self.tasks])
        if not len(chosen):
            present = ", ".join(f"{task} ({count})" for task, count in self.task_counts().items())
            raise AuroraError(f"{self.source}: has no record of {', '.join(names)} (--train_tasks); it has {present}")
        return self.select(chosen)

    def __len__(self) -> int:
        return self._table.num_rows if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return json.loads(self._table["record"][self.row(index)].as_py())

    def row(self, index: int) -> int:
        """The position in the source of the record at `index`. Raises IndexError where there is none."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        index = index % len(self)
        return index if self.rows is None else int(self.rows[index])

    @property
    def tasks(self) -> np.ndarray:
        """The task of each record as a position in task_names(), int8 (n,)."""
        return self._column([chunk.indices for chunk in self._table["task"].chunks])

    @property
    def lengths(self) -> np.ndarray:
        """Words and perception tokens of each record, negative for one without an image, int32 (n,)."""
        return self._column(self._table["length"].chunks)

    @property
    def images(self) -> np.ndarray:
        """Digests of the images' names, the same for the same image, int64 (n,)."""
        return self._column(self._table["image"].chunks)

    def task_counts(self) -> dict[str, int]:
        """How many records there are of each task that has some."""
        counts = np.bincount(self.tasks, minlength=len(task_names()))
        return {name: int(count) for name, count in zip(task_names(), counts, strict=True) if count}

    def _column(self, chunks: Sequence[pa.Array]) -> np.ndarray:
        values = np.concatenate([np.from_dlpack(chunk) for chunk in chunks])  # to_numpy would import pandas, 27 MB
        return values if self.rows is None else values[self.rows]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the path: a worker process maps the file itself."""
        return _reopen, (self.file, self.source, self.rows)


def _reopen(file: Path, source: Path, rows: np.ndarray | None) -> RecordStore:
    return RecordStore(file, source=source, rows=rows)


def cache_folder() -> Path:
    """LLAVA_AURORA_CACHE, else llava_aurora in XDG_CACHE_HOME, else ~/.cache/llava_aurora."""
    if own := os.environ.get("LLAVA_AURORA_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llava_aurora"


def record_length(record: dict[str, Any], families: Iterable[TokenFamily]) -> int:
    """Words of all turns as upstream counts them, and perception tokens; negative without an image.

    A map is one word of a hundred tokens, so words alone would not count it.
    """
    words = sum(len(turn["value"].split()) for turn in record["conversations"])
    text = "".join(turn["value"] for turn in record["conversations"])
    length = words + sum(family.count(text) for family in families)
    return length if "image" in record and words else -length


def _convert(source: Path, file: Path, families: tuple[TokenFamily, ...]) -> None:
    names = pa.array(task_names())
    positions = {name: position for position, name in enumerate(task_names())}
    checked = follow(source, partial(check_records, families=families), title=f"{source.name}: reading it once")
    with atomic_file(file) as temporary, pa.ipc.new_file(str(temporary), SCHEMA) as writer:
        for checked_records in batches(checked, RECORDS_PER_BATCH):
            records = [as_trained(record, families) for record in checked_records]
            tasks = pa.array([positions[task_name(record)] for record in records], pa.int8())
            columns = [
                pa.array([json.dumps(record) for record in records], pa.large_string()),
                pa.DictionaryArray.from_arrays(tasks, names),
                pa.array([_image_digest(record) for record in records], pa.int64()),
                pa.array([record_length(record, families) for record in records], pa.int32()),
            ]
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))


def _remove_earlier(folder: Path, *, place: str, state: str) -> None:
    for each in folder.iterdir():
        if (
            each.suffix == ".arrow"
            and each.name.startswith(f"{place}-")
            and not each.name.startswith(f"{place}-{state}-")
        ):
            each.unlink(missing_ok=True)


def _image_digest(record: dict[str, Any]) -> int:
    name = json.dumps(record.get("image")).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little", signed=True)


def _place(source: Path) -> str:
    return f"{source.stem}-{_digest(str(source.resolve()))}"


def _state(source: Path) -> str:
    """Changes with the files, and with the format of the store."""
    try:
        states = [(part.name, part.stat()) for part in part_files(source)]
    except OSError as error:
        raise AuroraError(f"{source}: cannot read the training records: {error.strerror}") from error
    return _digest(FORMAT, task_names(), [(name, state.st_size, state.st_mtime_ns) for name, state in states])


def _checked(families: tuple[TokenFamily, ...]) -> str:
    return _digest([(family.name, family.size, family.lengths, family.delimited) for family in families])


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
