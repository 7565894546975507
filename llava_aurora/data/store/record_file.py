"""Reads and checks training records one by one from a JSON list, JSONL, Parquet, or a folder of parts.

Files are streamed: one record (of Parquet one batch) is in memory at a time. Errors name file and record.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from llava_aurora.data.store.parquet_file import Unreadable, read_parquet
from llava_aurora.errors import AuroraError
from llava_aurora.files import half_character, parse_json, read_json, regular_file
from llava_aurora.ownership import refuse_other_file
from llava_aurora.tokens.vocabulary import TokenFamily

SPEAKERS = ("human", "gpt")
CHARACTERS_PER_READ = 1 << 20
FOLDER_SUFFIXES = (".parquet", ".jsonl")
# Called with the number of bytes of a file that have been read.
Progress = Callable[[int], None]
Item = TypeVar("Item")


def read_records(path: str | Path, *, families: Iterable[TokenFamily] = ()) -> list[dict[str, Any]]:
    """All records, checked, and as `as_trained` makes them. Arguments and errors as for `check_records`."""
    families = tuple(families)
    return [as_trained(record, families) for record in check_records(path, families=families)]


def check_records(
    path: str | Path, *, families: Iterable[TokenFamily] = (), progress: Progress = lambda read: None
) -> Iterator[dict[str, Any]]:
    """Reads records one by one, and checks each. Other arguments as for `unchecked_records`.

    Args: families: the token families whose spans are checked.
    Raises AuroraError naming file and record, if it is no such file or a span of tokens in it is malformed.
    """
    families = tuple(families)
    for part, index, record in unchecked_records(path, progress=progress):
        if problem := record_problem(record, families):
            name = f" (id {record['id']})" if isinstance(record, dict) and "id" in record else ""
            raise AuroraError(f"{part}: record {index}{name}: {problem}")
        yield record


def unchecked_records(path: str | Path, *, progress: Progress = lambda read: None) -> Iterator[tuple[Path, int, Any]]:
    """Reads what should be records one by one: the file each is in, its number there from 0, and its value.

    A line of JSONL or a row of Parquet that cannot be read is an `Unreadable`; the ones behind it follow.

    Args:
        path: .parquet, .jsonl, or a JSON list under any other suffix; or a folder of .parquet or .jsonl files, which
            are read by name.
        progress: called with the number of bytes that have been read, of the bytes that the files have.
    Raises AuroraError naming the file, if it cannot be read, is of another format, or there is nothing in it.
    """
    before, found = 0, False
    for part in part_files(path):
        for index, record in enumerate(_read_part(part, partial(_advance, progress, before))):
            found = True
            yield part, index, record
        before += part.stat().st_size
    if not found:
        raise _no_list(path)


def _advance(progress: Progress, before: int, read: int) -> None:
    progress(before + read)


def part_files(path: str | Path) -> list[Path]:
    """The file itself, or the files of a folder that hold records, by name.

    Raises AuroraError for a folder that holds none, or files of two formats.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    parts = sorted(each for each in path.iterdir() if each.suffix in FOLDER_SUFFIXES and each.name[0] not in "._")
    if len(formats := {part.suffix for part in parts}) != 1:
        found = "both" if formats else "neither"
        raise AuroraError(f"{path}: a folder of records holds {' or '.join(FOLDER_SUFFIXES)} files; this one {found}")
    return parts


def climbs_out(name: str) -> bool:
    """Whether a relative path leads out of the folder that it is relative to."""
    return os.path.normpath(name).split(os.sep)[0] == os.pardir


def record_problem(record: Any, families: tuple[TokenFamily, ...]) -> str | None:
    """What keeps a record from being trained on; None if nothing does. Spans of the families are checked too."""
    # LLaVA is needed for converting alone: a process that opens a stored file loads neither it nor torch.
    from llava.constants import DEFAULT_IMAGE_TOKEN

    if isinstance(record, Unreadable):
        return record.problem
    if not isinstance(record, dict) or not isinstance(record.get("conversations"), list):
        return 'not LLaVA\'s format: {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}]} is expected'
    turns = record["conversations"]
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            return f"turn {number} has no text under 'value'"
        if half := half_character(turn["value"]):
            return f"turn {number} has {half}, half a surrogate pair, which cannot be encoded; remove it"
    learned = turns_learned(turns)
    if len(learned) < 2:
        return "a conversation has at least a question and an answer"
    for place, turn in enumerate(learned):
        number = place + len(turns) - len(learned)
        if turn.get("from") != SPEAKERS[place % 2]:
            return f"turn {number} is from {turn.get('from')!r}; 'human' and 'gpt' take turns, 'human' first"
        for family in families:
            try:
                family.check(turn["value"])
            except AuroraError as error:
                return f"turn {number}: {error}"
    if record.get("image") is None:
        return None
    images = images_of(record)
    if not images or not all(isinstance(name, str) and name for name in images):
        return f"its image is {record['image']!r}, not a path or a list of paths"
    if outside := [name for name in images if climbs_out(name)]:
        return f"its image {outside[0]} leads out of the image folder"
    places = [turn["value"].count(DEFAULT_IMAGE_TOKEN) for turn in learned]
    if any(places[1::2]):
        return f"{DEFAULT_IMAGE_TOKEN} is in an answer; it belongs in the question"
    if sum(places) != len(images):
        if len(images) > 1:
            return f"has {len(images)} images and {sum(places)} {DEFAULT_IMAGE_TOKEN}; one for each is expected"
        return f"has an image and {sum(places)} places for it instead of one {DEFAULT_IMAGE_TOKEN} is expected"
    if any(place > 1 for place in places):
        return f"a question has {max(places)} {DEFAULT_IMAGE_TOKEN}; one in each question is expected"
    return None


def images_of(record: Mapping[str, Any]) -> list[Any]:
    """The images of a record, in the order of the questions that show them: under "image" is a path or a list."""
    found = record.get("image")
    return list(found) if isinstance(found, list) else [] if found is None else [found]


def turns_learned(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns that LLaVA trains on: it skips a first one that is not a question (`preprocess` in its train.py)."""
    return turns[1:] if turns and turns[0].get("from") == "gpt" else turns


def as_trained(record: dict[str, Any], families: Iterable[TokenFamily]) -> dict[str, Any]:
    """A checked record as training reads it: no blanks inside spans, which AURORA's files have, and no null image."""

    def compact(text: str) -> str:
        for family in families:
            text = family.compact(text)
        return text

    turns = [{**turn, "value": compact(turn["value"])} for turn in record["conversations"]]
    kept = {name: value for name, value in record.items() if name != "image" or value is not None}
    return {**kept, "conversations": turns}


def refuse_other_than_records(path: str | Path | None) -> None:
    """Raises AuroraError if a file that is about to be replaced by training records, if any, holds something else."""

    def recognize(beginning: bytes) -> bool:
        if not beginning.startswith(b"PAR1"):
            return beginning.lstrip()[:1] in (b"[", b"{") and b'"conversations"' in beginning
        try:
            return "conversations" in pq.read_schema(path).names
        except (OSError, pa.ArrowException):
            return False

    if path is not None:
        refuse_other_file(path, "training records", recognize)


# --- one file -----------------------------------------------------------------------------------------------------


def _read_part(path: Path, progress: Progress) -> Iterator[Any]:
    if path.suffix == ".parquet":
        return read_parquet(path, progress=progress)
    return _lines(path, progress) if path.suffix == ".jsonl" else _stream(path, progress)


def _lines(path: Path, progress: Progress) -> Iterator[Any]:
    """The values of a file that has one on each line; blank lines are passed over."""
    number = read = 0
    try:
        with regular_file(path, what="training records").open("rb") as file:
            for line in file:
                number, read = number + 1, read + len(line)
                if line.strip():
                    yield _parsed(line, number)
                progress(read)
    except OSError as error:
        raise AuroraError(f"{path}: cannot read the training records: {error.strerror}") from error


def _parsed(line: bytes, number: int) -> Any:
    try:
        return parse_json(line.decode())
    except ValueError as error:
        return Unreadable(f"line {number} is not valid JSON: {error}")


def _stream(path: Path, progress: Progress = lambda read: None) -> Iterator[Any]:
    """The items of a JSON list, holding no more of the file than one item and what is read at once."""
    try:
        with regular_file(path, what="training records").open(encoding="utf-8") as file:
            text = _JsonText(file, progress)
            text.take("[")
            if text.next_character() == "]":
                text.take("]")
            else:
                yield text.value()
                while text.take(",]") == ",":
                    yield text.value()
            if text.next_character():
                raise ValueError("extra data")
    except (OSError, ValueError, RecursionError) as error:
        # Reading it as a whole says what is wrong, and in which line and column.
        if isinstance(read_json(path, what="training records"), list):
            raise AuroraError(f"{path}: the training records changed while they were read; start again") from error
        raise _no_list(path) from None


def _no_list(path: str | Path) -> AuroraError:
    return AuroraError(f"{path}: not LLaVA's format: a JSON list of records is expected, with at least one")


class _JsonText:
    """JSON read piece by piece. Its methods raise ValueError for what is no JSON."""

    _blanks = re.compile(r"[ \t\n\r]*")

    def __init__(self, file: TextIO, progress: Progress) -> None:
        self.file, self.progress, self.text, self.position = file, progress, "", 0
        self.decoder = json.JSONDecoder()

    def next_character(self) -> str:
        """The next character that is no blank, which stays; "" at the end."""
        while True:
            blanks = self._blanks.match(self.text, self.position)
            self.position = blanks.end() if blanks else self.position
            if self.position < len(self.text):
                return self.text[self.position]
            self.text, self.position = self._read(CHARACTERS_PER_READ), 0
            if not self.text:
                return ""

    def take(self, allowed: str) -> str:
        character = self.next_character()
        if not character or character not in allowed:
            raise ValueError(f"{character!r} instead of one of {allowed!r}")
        self.position += 1
        return character

    def value(self) -> Any:
        self.next_character()
        while True:
            try:
                value, self.position = self.decoder.raw_decode(self.text, self.position)
                return value
            except ValueError:
                # Perhaps it is cut off here. Twice as much each time, or a fault at the start would take very long.
                more = self._read(max(CHARACTERS_PER_READ, len(self.text)))
                if not more:
                    raise
                self.text, self.position = self.text[self.position :] + more, 0

    def _read(self, characters: int) -> str:
        text = self.file.read(characters)
        self.progress(self.file.buffer.tell())
        return text
