"""What a model wrote, kept while a harness is given the final answers alone: a line of JSON for each question."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava_aurora.errors import AuroraError
from llava_aurora.generation.result import Result


class ChainLog:
    """A JSONL file that grows by a line at a time.

    Each process of several has its own: the first the one that is named, NAME.jsonl, the others NAME.1.jsonl, ….

    Args:
        path: the file.
        about: what every line begins with, such as the model.
        process: number of this process, from 0.

    Raises:
        AuroraError: if the file holds something else. A last line that was cut off is dropped.
    """

    def __init__(self, path: str | Path, *, about: Mapping[str, Any], process: int = 0) -> None:
        path = Path(path)
        self.path = path if process == 0 else path.with_suffix(f".{process}{path.suffix}")
        self.about = dict(about)
        try:
            if self.path.exists():
                self._end_with_a_whole_line()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise AuroraError(f"{self.path}: cannot keep the chains here: {error.strerror}") from error

    def append(self, result: Result, **asked: Any) -> None:
        """Adds a line: `about`, `asked` (of which task, which question, …) and `Result.to_json`. Raises AuroraError."""
        line = json.dumps({**self.about, **asked, **result.to_json()}, ensure_ascii=False)
        try:
            with self.path.open("ab") as file:
                file.write(line.encode() + b"\n")
        except OSError as error:
            raise AuroraError(f"{self.path}: cannot write the chains: {error.strerror}") from error

    def _end_with_a_whole_line(self) -> None:
        with self.path.open("r+b") as file:
            for number, line in enumerate(file, start=1):
                if not line.startswith(b"{"):
                    raise AuroraError(f"{self.path}: line {number} is no line of this log; choose another file")
                if not line.endswith(b"\n"):
                    file.truncate(file.tell() - len(line))
                    return
