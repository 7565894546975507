"""Results of the pre-flight check: problems by kind with counts and examples, lengths, and a verdict.

Workers fill one `Findings` each for a part of the records; the parts are merged in the order of the file.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llava_aurora.files import write_json
from llava_aurora.ownership import refuse_other_file
from llava_aurora.progress import results

TITLE_WIDTH = 40
LENGTH_BARS = 80
EXAMPLES_KEPT = 10
MESSAGE_LENGTH = 400


@dataclass(frozen=True)
class Kind:
    """One kind of problem: "error" fails a check, "warning" only with --strict."""

    severity: Literal["error", "warning"]
    title: str


KINDS: Mapping[str, Kind] = {
    "format": Kind("error", "not a record in LLaVA's format"),
    "path": Kind("error", "image path is an address, has a backslash or leads out of the folder"),
    "image": Kind("error", "image cannot be read"),
    "bomb": Kind("error", "image has too many pixels (decompression bomb)"),
    "spans": Kind("error", "span of perception tokens is malformed, or missing"),
    "codes": Kind("error", "token outside of the codebook or the frame"),
    "coordinates": Kind("error", "box or point is empty, upside down or outside of the frame"),
    "frame": Kind("error", "coordinates are of another frame than the one that training shows"),
    "counts": Kind("error", "count disagrees with the boxes"),
    "letters": Kind("error", "letters disagree with the marked points"),
    "closest": Kind("error", "answer is not the closest point"),
    "mismatch": Kind("error", "LLaVA's tokenization mismatch: nothing of the record would be trained"),
    "labels": Kind("error", "labels are not exactly the answers"),
    "truncated": Kind("error", "longer than the maximum length"),
    "leak": Kind("error", "training image is an evaluation image"),
    "unsaid": Kind("warning", "image with coordinates is not square, and nothing says how it fills their frame"),
    "duplicate": Kind("warning", "training image is there twice, under two names"),
    "blank": Kind("warning", "image is of one colour"),
    "orientation": Kind(
        "warning", "training image is stored turned or mirrored (--image_orientation upright turns it)"
    ),
    "deep": Kind("warning", "image has more than 8 bits a channel, and is scaled to 8"),
    "transparent": Kind("warning", "training image has transparent parts, whose hidden colours are trained on"),
    "tiny": Kind("warning", "image is only a few pixels high or wide"),
    "foreign": Kind("warning", "perception tokens that the model does not have"),
}


@dataclass
class Findings:
    # records, images: how many were looked at
    records: int = 0
    images: int = 0
    numbers: Counter[str] = field(default_factory=Counter)  # by kind, how many problems there are
    # by kind, (where, what) of the first of them
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    tasks: Counter[str] = field(default_factory=Counter)  # records of each task
    # records of each length, in tokens (words and perception tokens where no tokenizer was given)
    lengths: Counter[int] = field(default_factory=Counter)
    boxes: Counter[int] = field(default_factory=Counter)  # records about boxes, by how many their truth has

    def add(self, kind: str, where: str, message: str) -> None:
        """Counts one problem. Raises KeyError for a kind that is not in KINDS."""
        KINDS[kind]
        self.numbers[kind] += 1
        if len(self.examples[kind]) < EXAMPLES_KEPT:
            # Half a surrogate pair, which JSON can hold, cannot be printed.
            where, message = (text.encode("utf-8", "backslashreplace").decode() for text in (where, message))
            self.examples[kind].append((where, message[:MESSAGE_LENGTH]))

    def merge(self, other: "Findings") -> None:
        """Adds what was found in a later part of the file."""
        self.records += other.records
        self.images += other.images
        self.numbers += other.numbers
        self.tasks += other.tasks
        self.lengths += other.lengths
        self.boxes += other.boxes
        for kind, examples in other.examples.items():
            self.examples[kind] = (self.examples[kind] + examples)[:EXAMPLES_KEPT]

    def number(self, severity: str) -> int:
        """How many errors, or warnings, there are."""
        return sum(number for kind, number in self.numbers.items() if KINDS[kind].severity == severity)


@dataclass(frozen=True)
class ValidationReport:
    source: Path  # the file of records
    findings: Findings  # of all of it
    unchecked: tuple[str, ...] = ()  # what was not checked, and which flag would check it, one line each
    in_tokens: bool = False  # whether lengths are tokens; otherwise words and perception tokens
    max_length: int | None = None  # of a record in tokens, image tokens included; None without a tokenizer

    def fine(self, *, strict: bool = False) -> bool:
        """Whether a run can start: no error, and with `strict` no warning either."""
        return not self.findings.number("error") and not (strict and self.findings.number("warning"))

    def verdict(self, *, strict: bool = False) -> str:
        """One line."""
        errors, warnings = self.findings.number("error"), self.findings.number("warning")
        kinds = ", ".join(kind for kind in KINDS if self.findings.numbers[kind])
        looked = f"{self.findings.records:,} records, {self.findings.images:,} images"
        what = f"{errors:,} errors, {warnings:,} warnings" + (f" ({kinds})" if kinds else "")
        return f"{'fine' if self.fine(strict=strict) else 'PROBLEMS'}: {looked}: {what}"

    def as_dict(self) -> dict[str, Any]:
        """All of it, for a JSON file."""
        found = self.findings
        problems = {
            kind: {
                "severity": KINDS[kind].severity,
                "title": KINDS[kind].title,
                "number": found.numbers[kind],
                "examples": [{"where": where, "what": what} for where, what in found.examples[kind]],
            }
            for kind in KINDS
            if found.numbers[kind]
        }
        return {
            "source": str(self.source),
            "records": found.records,
            "images": found.images,
            "errors": found.number("error"),
            "warnings": found.number("warning"),
            "problems": problems,
            "unchecked": list(self.unchecked),
            "tasks": dict(sorted(found.tasks.items())),
            "length_unit": "tokens" if self.in_tokens else "words and perception tokens",
            "max_length": self.max_length,
            "lengths": dict(sorted(found.lengths.items())),
            "boxes": dict(sorted(found.boxes.items())),
        }

    def print(self, *, examples: int = 3, strict: bool = False, console: Console | None = None) -> None:
        """Prints a table of the problems, what was not checked, and the verdict as the last line.

        Args:
            examples: records named of each kind, at most EXAMPLES_KEPT.
            strict: warnings fail.
            console: stdout if left out.
        """
        console = console or results()
        found = self.findings
        if found.numbers:
            table = Table(title=escape(str(self.source)), title_justify="left", show_lines=True)
            table.add_column("problem", max_width=TITLE_WIDTH)
            table.add_column("number", justify="right", no_wrap=True)
            table.add_column("the first of them")
            for kind, (severity, title) in ((kind, (each.severity, each.title)) for kind, each in KINDS.items()):
                if found.numbers[kind]:
                    lines = [f"{where}: {what}" for where, what in found.examples[kind][:examples]]
                    cells = f"[bold]{kind}[/] ({severity})\n{title}", f"{found.numbers[kind]:,}"
                    table.add_row(*cells, escape("\n".join(lines)))
            console.print(table)
        if found.tasks:
            console.print("tasks: " + ", ".join(f"{name} {number:,}" for name, number in sorted(found.tasks.items())))
        if found.lengths:
            unit = "tokens, image included" if self.in_tokens else "words and perception tokens"
            limit = f"; at most {self.max_length:,} are kept" if self.max_length else ""
            middle = median_low(found.lengths.elements())
            console.print(f"length: median {middle:,}, longest {max(found.lengths):,} {unit}{limit}")
        for line in self.unchecked:
            console.print(f"not checked: {line}", markup=False, highlight=False)
        console.print(self.verdict(strict=strict), style="bold", markup=False, highlight=False)

    def save(self, folder: str | Path) -> None:
        """Writes report.json, lengths.png and counts.png. Raises AuroraError if they cannot be written."""
        from llava_aurora.report.plots import histogram  # matplotlib: not in every worker

        folder = Path(folder)
        refuse_other_file(folder / "report.json", "report of `data check`", lambda start: b'"unchecked": [' in start)
        for name in ("lengths.png", "counts.png"):
            refuse_other_file(folder / name, "histogram of `data check`", lambda start: b"Matplotlib" in start)
        write_json(folder / "report.json", self.as_dict())
        unit = "tokens, image included" if self.in_tokens else "words and perception tokens"
        histogram(folder / "lengths.png", self.findings.lengths, label=unit, limit=self.max_length, bars=LENGTH_BARS)
        histogram(folder / "counts.png", self.findings.boxes, label="boxes in the truth of a record")
