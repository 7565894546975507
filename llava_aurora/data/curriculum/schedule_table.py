"""A curriculum as a table and as a picture: what each task gets in each epoch."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from llava_aurora.data.curriculum.sampler import Curriculum
from llava_aurora.progress import results
from llava_aurora.tasks.registry import OTHER
from llava_aurora.tasks.registry import tasks as registered
from llava_aurora.tasks.task import Kind

WIDTH_OF_TEN_EPOCHS = 130
# One hue a family would hide which kind a task is of, so a hue is a kind, and its shades are tasks.
HUES: dict[Kind, str] = {"atomic": "Blues", "chain": "Oranges", "direct": "Greens"}


def print_schedule(curriculum: Curriculum, epochs: int, *, console: Console | None = None) -> None:
    """Prints records and per cent of each task in each epoch, or in epochs spread evenly where all are too many.

    Args: console: stdout if left out.
    """
    console = console or results()
    columns = 10 if console.width >= WIDTH_OF_TEN_EPOCHS else 4
    shown = sorted({round(place * (epochs - 1) / (columns - 1)) for place in range(columns)})
    plan = [curriculum.quotas(epoch, epochs=epochs) for epoch in shown]
    table = Table(title=f"{curriculum.schedule.source}: {curriculum.length:,} records an epoch")
    table.add_column("epoch", no_wrap=True)
    for heading in [*(str(epoch + 1) for epoch in shown), "in file"]:
        table.add_column(heading, justify="right", no_wrap=True)
    for task in plan[0]:
        counts = [quotas[task] for quotas in plan]
        cells = [f"{count:,}\n{count / curriculum.length:.0%}" for count in counts]
        table.add_row(task, *cells, f"{curriculum.available(task):,}")
    console.print(table)


def draw_schedule(curriculum: Curriculum, epochs: int, path: str | Path) -> None:
    """Writes a PNG of stacked bars, one an epoch. Raises AuroraError if it cannot be written."""
    import matplotlib

    from llava_aurora.report.plots import new_axes, save_axes, whole_numbers

    plan = [curriculum.quotas(epoch, epochs=epochs) for epoch in range(epochs)]
    axes = new_axes(width=8, height=4.2)
    bottoms = [0.0] * epochs
    kinds = [*HUES]
    tasks = sorted(plan[0], key=lambda task: len(kinds) if task == OTHER else kinds.index(registered()[task].kind))
    for task in tasks:
        heights = [100 * quotas[task] / curriculum.length for quotas in plan]
        label = f"{task} ({'no task' if task == OTHER else registered()[task].kind})"
        color = "grey" if task == OTHER else matplotlib.colormaps[HUES[registered()[task].kind]](_shade(task, tasks))
        axes.bar(range(1, epochs + 1), heights, bottom=bottoms, label=label, color=color, edgecolor="white", width=0.9)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    whole_numbers(axes)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    title = f"{curriculum.schedule.source}: {curriculum.length:,} records an epoch"
    limits = {"ylim": (0, 100), "xlim": (0.4, epochs + 0.6)}
    save_axes(axes, path, title=title, xlabel="epoch", ylabel="% of the epoch's records", **limits)


def _shade(task: str, tasks: list[str]) -> float:
    same = [other for other in tasks if other != OTHER and registered()[other].kind == registered()[task].kind]
    return 0.75 - 0.45 * same.index(task) / max(len(same) - 1, 1)
