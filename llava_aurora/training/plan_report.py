"""The plan of a run's memory and communication as a table, a recommendation, and the flags for it."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from llava_aurora.training.model_sizes import Run, count
from llava_aurora.training.plan import GB, Zero, choose, estimate, largest_batch, possible, shipped, usable
from llava_aurora.training.plan_communication import communication

WIDE = 104  # what the widest table needs, where a terminal tells of less too


def print_plan(
    runs: Sequence[Run], *, memory: float, numbers: Sequence[int] = (), bandwidth: float | None = None
) -> None:
    """A table of all ways to divide each run; for one number of GPUs also what is recommended, and the flags for it.

    Args:
        runs: of one model.
        memory: GB of one GPU.
        numbers: of GPUs, a row each; the runs' own if there are none.
        bandwidth: GB that one GPU sends in a second, to show how long sending takes.
    """
    numbers = numbers or [runs[0].gpus]
    console = Console()
    console = Console(width=max(console.width, WIDE))
    first = runs[0]
    console.print(
        f"{first.model.name}: {count(first.model.weights()) / GB:.2f} billion weights, {first.new_tokens} new tokens;"
        f" {', '.join(map(str, numbers))} GPUs of {memory:g} GB, of which {usable(memory) / GB:.1f} GB can be used;"
        f" batches of {first.batch} records of {first.length} tokens, {first.answer} of them with labels;"
        f" {'bfloat16' if first.element == 2 else 'float32'},"
        f" {'with' if first.checkpointing else 'without'} gradient checkpointing",
        highlight=False,
    )
    table = Table(title="GB on one GPU", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    columns = ["weights", "grads", "Adam", "activations", "buffers", "at peak", "fits", "sent"]
    for column in [*(["GPUs"] if len(numbers) > 1 else []), *columns, *(["s"] if bandwidth else [])]:
        table.add_column(column, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(f"[bold]{run.mode}[/bold]")
        for zero in shipped(run.model.language.hidden):
            for number in numbers:
                cells = _cells(replace(run, gpus=number), zero, memory=memory, bandwidth=bandwidth)
                own = [str(number)] if len(numbers) > 1 else []
                table.add_row(f"  {zero.name}" if number == numbers[0] else "", *own, *cells)
    console.print(table)
    seconds = f" s: seconds for that at {bandwidth:g} GB/s." if bandwidth else ""
    console.print(
        "fits: records a GPU at once. At peak: either activations, or the end of the backward pass, at which ZeRO-3"
        " with checkpointing holds frozen layers whole, or the optimizer's step.\n"
        f"sent: by one GPU in a step, whatever the batch, in rings.{seconds}\n",
        highlight=False,
    )
    if len(numbers) > 1:
        return
    for run in runs:
        console.print(f"[bold]{run.mode}[/bold] ({count(run.trained) / 10**6:.0f} M weights trained): ", end="")
        _print_verdict(console, replace(run, gpus=numbers[0]), memory=memory)


def as_records(runs: Sequence[Run], *, memory: float, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The same in bytes, a record for each run, way and number of GPUs; without what is not possible."""
    return [
        {
            "model": run.model.name,
            "mode": run.mode,
            "way": zero.name,
            "gpus": run.gpus,
            "held": {**asdict(held := estimate(run, zero)), "peak": held.total},
            "sent": {**asdict(sent := communication(run, zero)), "total": sent.total},
            "fits": largest_batch(run, zero, memory=memory),
        }
        for mode in runs
        for zero in shipped(mode.model.language.hidden)
        for run in (replace(mode, gpus=number) for number in numbers)
        if possible(run, zero)
    ]


def _cells(run: Run, zero: Zero, *, memory: float, bandwidth: float | None) -> list[str]:
    if not possible(run, zero):
        return [""] * 6 + ["no"]
    held, sent = estimate(run, zero), communication(run, zero).total / GB
    shown = (held.parameters, held.gradients, held.optimizer, held.activations, held.buffers, held.total)
    batch = largest_batch(run, zero, memory=memory)
    seconds = [f"{sent / bandwidth:.2f}"] if bandwidth else []
    return [*(f"{size / GB:.1f}" for size in shown), str(batch) if batch else "-", f"{sent:.1f}", *seconds]


def _print_verdict(console: Console, run: Run, *, memory: float) -> None:
    choice = choose(run, memory=memory)
    if choice is None:
        console.print(
            "does not fit with a single record. What helps: more GPUs, --length of your longest record, "
            "--gradient-checkpointing, --mode lora or qlora",
            highlight=False,
        )
        return
    held = estimate(choice.run, choice.zero)
    split = f", {choice.accumulation} times a step" if choice.accumulation > 1 else ""
    host = f", and {held.host * run.gpus / GB:.0f} GB of the machines' memory in all" if held.host else ""
    console.print(
        f"fits with {choice.zero.name}, {choice.run.batch} records a GPU{split}: {held.total / GB:.1f} GB{host}",
        highlight=False,
    )
    console.print(f"    {choice.flags()}", highlight=False, soft_wrap=True)
