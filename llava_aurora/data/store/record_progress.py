"""A progress bar on stderr while a large file of records is read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from llava_aurora.data.store.record_file import part_files

# Takes longer than a second or two.
BYTES_WORTH_A_LINE = 32_000_000
Item = TypeVar("Item")


def follow(
    source: str | Path,
    read: Callable[..., Iterator[Item]],
    *,
    title: str,
    bytes_worth_a_line: int | None = None,
) -> Iterator[Item]:
    """Yields what `read(source, progress=…)` yields, such as `check_records`, and shows a bar of the bytes it has read.

    Where stderr is no terminal, as in the log of a cluster, `title` is printed at the start and the bar at the end.
    """
    size = sum(part.stat().st_size for part in part_files(source) if part.exists())
    console = Console(stderr=True)
    least = BYTES_WORTH_A_LINE if bytes_worth_a_line is None else bytes_worth_a_line
    if size < least:
        yield from read(source)
        return
    if not console.is_terminal:
        console.print(title, highlight=False, markup=False, soft_wrap=True)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as shown:
        task = shown.add_task(title, total=size)
        yield from read(source, progress=lambda done: shown.update(task, completed=done))
