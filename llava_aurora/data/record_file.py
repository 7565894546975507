"""A JSON file in LLaVA's format, read record by record and checked on the way.

What is wrong is said in one line that names file and record, before any time on a GPU is spent. The file is streamed:
one record is in memory at a time, however long the list is.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from llava_aurora.atomic import read_json
from llava_aurora.errors import AuroraError
from llava_aurora.vocabulary import TokenFamily

SPEAKERS = ("human", "gpt")
CHARACTERS_PER_READ = 1 << 20


def read_records(path: str | Path, *, families: Iterable[TokenFamily] = ()) -> list[dict[str, Any]]:
    """Reads a whole JSON file in LLaVA's format into memory, and checks it. Raises AuroraError as `check_records`."""
    return list(check_records(path, families=families))


def check_records(path: str | Path, *, families: Iterable[TokenFamily] = ()) -> Iterator[dict[str, Any]]:
    """Reads a JSON file in LLaVA's format record by record, and checks each.

    Raises:
        AuroraError: naming file and record, if it is no such file or a span of tokens in it is malformed.
    """
    families = tuple(families)
    index = -1
    for index, record in enumerate(_stream(Path(path))):
        if problem := _problem(record, families):
            name = f" (id {record['id']})" if isinstance(record, dict) and "id" in record else ""
            raise AuroraError(f"{path}: record {index}{name}: {problem}")
        yield record
    if index < 0:
        raise _no_list(path)


def _problem(record: Any, families: tuple[TokenFamily, ...]) -> str | None:
    # LLaVA is needed for converting alone: a process that opens a stored file loads neither it nor torch.
    from llava.constants import DEFAULT_IMAGE_TOKEN

    if not isinstance(record, dict) or not isinstance(record.get("conversations"), list):
        return 'not LLaVA\'s format: {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}]} is expected'
    turns = record["conversations"]
    if len(turns) < 2:
        return "a conversation has at least a question and an answer"
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            return f"turn {number} has no text under 'value'"
        if turn.get("from") != SPEAKERS[number % 2]:
            return f"turn {number} is from {turn.get('from')!r}; 'human' and 'gpt' take turns, 'human' first"
        for family in families:
            try:
                family.parse(turn["value"])
            except AuroraError as error:
                return f"turn {number}: {error}"
    places = sum(turn["value"].count(DEFAULT_IMAGE_TOKEN) for turn in turns)
    if "image" in record and places != 1:
        return f"has an image and {places} places for it; exactly one {DEFAULT_IMAGE_TOKEN} is expected"
    if "image" not in record and places:
        return f"has {DEFAULT_IMAGE_TOKEN} in its text but no image"
    return None


# --- a JSON list, item by item ----------------------------------------------------------------------------------------


def _stream(path: Path) -> Iterator[Any]:
    """The items of a JSON list, holding no more of the file than one item and what is read at once."""
    try:
        with path.open(encoding="utf-8") as file:
            text = _JsonText(file)
            text.take("[")
            if text.next_character() == "]":
                text.take("]")
            else:
                yield text.value()
                while text.take(",]") == ",":
                    yield text.value()
            if text.next_character():
                raise ValueError("extra data")
    except (OSError, ValueError) as error:
        # Reading it as a whole says what is wrong, and in which line and column.
        if isinstance(read_json(path, what="training records"), list):
            raise AuroraError(f"{path}: the training records changed while they were read; start again") from error
        raise _no_list(path) from None


def _no_list(path: str | Path) -> AuroraError:
    return AuroraError(f"{path}: not LLaVA's format: a JSON list of records is expected, with at least one")


class _JsonText:
    """JSON read piece by piece. Its methods raise ValueError for what is no JSON."""

    _blanks = re.compile(r"[ \t\n\r]*")

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.position = file, "", 0
        self.decoder = json.JSONDecoder()

    def next_character(self) -> str:
        """The next character that is no blank, which stays; "" at the end."""
        while True:
            blanks = self._blanks.match(self.text, self.position)
            self.position = blanks.end() if blanks else self.position
            if self.position < len(self.text):
                return self.text[self.position]
            self.text, self.position = self.file.read(CHARACTERS_PER_READ), 0
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
                more = self.file.read(max(CHARACTERS_PER_READ, len(self.text)))
                if not more:
                    raise
                self.text, self.position = self.text[self.position :] + more, 0
