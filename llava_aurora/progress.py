"""Consoles: progress bars on stderr, so that stdout holds results alone; and silenced warnings of libraries."""

import os
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Item = TypeVar("Item")
QUIET = "LLAVA_AURORA_QUIET"  # an environment variable; what it is set to does not matter


def notes() -> "Console":
    """Where bars and notes go."""
    from rich.console import Console  # not at the top: --help needs none of it

    return Console(stderr=True, quiet=QUIET in os.environ)


def results() -> "Console":
    """Where tables go, stdout: 140 wide in a log file, which has no width to keep to, so that no name is cut."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=140)


def tracked(items: Iterable[Item], title: str, *, total: int | None = None) -> Iterable[Item]:
    """The same items, with a bar that disappears at the end. Args: total: how many, if they have no length."""
    from rich.progress import track

    return track(items, description=title, total=total, console=notes(), transient=True)


def count_bars(**settings: Any) -> "Progress":
    """Bars with a title, the count so far and the time left. Args: settings: of rich's Progress."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=notes(), **settings)


def silence_libraries() -> None:
    """Hides what libraries say of each other: deprecated functions, what a CPU lacks, tokens that are aligned."""
    import logging  # not at the top: --help needs none of it

    for kind in (DeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", kind)
    for message in ("'pin_memory' argument is set", "None of the inputs have requires_grad"):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for name in ("transformers.trainer", "transformers.trainer_utils"):  # that a tokenizer's tokens are now the model's
        logging.getLogger(name).addFilter(lambda record: "new PAD/BOS/EOS" not in str(record.msg))
