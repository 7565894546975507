"""A file of JSON lines that is appended to while answers come in, and continued after an interruption."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava_aurora.errors import AuroraError
from llava_aurora.files import parse_json, regular_file


class LineFile:
    """A file with a JSON object in each line, all written by one command.

    Reading changes nothing. A last line that was cut off is left out, and removed when the next lines are appended.

    Args:
        path: the file; it need not exist.
        keys: that every line has, the first of them at its beginning; a file with other lines is not touched.
        what: the lines are, for messages.
    """

    def __init__(self, path: Path, *, keys: Sequence[str], what: str) -> None:
        self.path, self.keys, self.what = path, keys, what
        self._end: int | None = None  # of the whole lines, in bytes

    def read(self) -> list[dict[str, Any]]:
        """All lines that are whole; none if there is no file.

        Raises AuroraError naming the first line that has other keys or is no JSON, or if the file cannot be read.
        """
        try:
            content = regular_file(self.path, what=f"lines ({self.what})").read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise AuroraError(f"{self.path}: cannot be read: {error.strerror}") from error
        *lines, last = content.split(b"\n")
        self._end = len(content) - len(last)
        if last and _parsed(last) is not None:  # a line of something else, or one of ours without its line feed
            lines, self._end = [*lines, last], len(content)
        elif last and not self._begins(last, alone=not lines):
            raise self._foreign(len(lines) + 1)
        found = []
        for number, line in enumerate(lines, start=1):
            value = _parsed(line)
            if value is None or not self._begins(line, alone=True) or not set(self.keys) <= set(value):
                raise self._foreign(number)
            found.append(value)
        return found

    def append(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Adds lines in one write. Raises AuroraError as `read`, or if the file system refuses; what is there stays."""
        if self._end is None:
            self.read()
        assert self._end is not None
        text = json_lines(values).encode(errors="backslashreplace")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("r+b" if self.path.exists() else "xb+") as file:
                file.seek(max(0, self._end - 1))
                if file.read(1) not in (b"", b"\n"):
                    text = b"\n" + text
                file.truncate(self._end)
                file.seek(self._end)
                file.write(text)
        except OSError as error:
            raise AuroraError(f"{self.path}: not written ({error.strerror}); its lines are unchanged") from error
        self._end += len(text)

    def _begins(self, line: bytes, *, alone: bool) -> bool:
        """Whether a line, or the beginning of one, is ours; `alone`: there is no whole line before it that says so."""
        first = f'{{"{self.keys[0]}": '.encode()
        if not alone:
            return first.startswith(line[: len(first)])
        return line.startswith(first) and all(f'"{key}": '.encode() in line for key in self.keys[:2])

    def _foreign(self, number: int) -> AuroraError:
        return AuroraError(f"{self.path}: line {number} is no {self.what}; choose another file")


def json_lines(values: Iterable[Mapping[str, Any]]) -> str:
    """The values as JSON, one in each line."""
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
