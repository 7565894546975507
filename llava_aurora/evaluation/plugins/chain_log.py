"""A log of whole answers, for harnesses that get the final answers alone."""

from pathlib import Path
from typing import Any

from llava_aurora.generation.result import Result
from llava_aurora.line_file import LineFile


class ChainLog:
    """A file of JSON lines that grows by a line at a time.

    Of several processes each has its own file: the first the one that is named, NAME.jsonl, the others NAME.1.jsonl, ….

    Args:
        process: number of this process, from 0.
    Raises AuroraError if the file holds something else or cannot be written. A last line that was cut off is removed.
    """

    def __init__(self, path: str | Path, *, model: str, process: int = 0) -> None:
        path = Path(path)
        self.path = path if process == 0 else path.with_suffix(f".{process}{path.suffix}")
        self.model = model
        self._file = LineFile(self.path, keys=("model", "question", "answer", "text"), what="line of a log of chains")
        self._file.append([])

    def append(self, result: Result, **asked: Any) -> None:
        """Adds a line: model, `asked` (of which task, which question, …) and `Result.to_json`. Raises AuroraError."""
        self._file.append([{"model": self.model, **asked, **result.to_json()}])
