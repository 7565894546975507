"""Progress bars: on stderr, so that stdout holds results alone."""

import os
from collections.abc import Iterable
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

Item = TypeVar("Item")
QUIET = "LLAVA_AURORA_QUIET"  # an environment variable; what it is set to does not matter


def notes() -> Console:
    """Where bars and notes go."""
    return Console(stderr=True, quiet=QUIET in os.environ)


def tracked(items: Iterable[Item], title: str, *, total: int | None = None) -> Iterable[Item]:
    """The same items, with a bar that disappears at the end. Args: total: how many, if they have no length."""
    return track(items, description=title, total=total, console=notes(), transient=True)


def count_bars(**settings: Any) -> Progress:
    """Bars with a title, the count so far and the time left. Args: settings: of rich's Progress."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=notes(), **settings)
