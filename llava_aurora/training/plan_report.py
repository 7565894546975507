"""The plan of a run's memory as a table, a recommendation, and the flags for it."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from llava_aurora.training.model_sizes import Run, count
from llava_aurora.training.plan import GB, Zero, choose, estimate, largest_batch, possible, shipped, usable


def print_plan(runs: Sequence[Run], *, memory: float) -> None:
    """A table of all ways to divide each run, what is recommended, and the flags for it."""
    console = Console()
    first = runs[0]
    console.print(
        f"{first.model.name}: {count(first.model.weights()) / GB:.2f} billion weights, {first.new_tokens} new tokens;"
        f" {first.gpus} GPUs of {memory:g} GB, of which {usable(memory) / GB:.1f} GB can be used;"
        f" batches of {first.batch} records of {first.length} tokens, {first.answer} of them with labels;"
        f" {'bfloat16' if first.element == 2 else 'float32'},"
        f" {'with' if first.checkpointing else 'without'} gradient checkpointing",
        highlight=False,
    )
    table = Table(title="GB on one GPU", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in ("weights", "grads", "Adam", "activations", "buffers", "at peak", "fits"):
        table.add_column(column, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(f"[bold]{run.mode}[/bold]")
        for zero in shipped(run.model.language.hidden):
            table.add_row(f"  {zero.name}", *_cells(run, zero, memory=memory))
    console.print(table)
    console.print("fits: records a GPU at once. At peak: either activations or the optimizer's step, not both.\n")
    for run in runs:
        console.print(f"[bold]{run.mode}[/bold] ({count(run.trained) / 10**6:.0f} M weights trained): ", end="")
        _print_verdict(console, run, memory=memory)


def _cells(run: Run, zero: Zero, *, memory: float) -> list[str]:
    if not possible(run, zero):
        return [""] * 6 + ["no"]
    held = estimate(run, zero)
    shown = (held.parameters, held.gradients, held.optimizer, held.activations, held.buffers, held.total)
    batch = largest_batch(run, zero, memory=memory)
    return [*(f"{size / GB:.1f}" for size in shown), str(batch) if batch else "-"]


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
