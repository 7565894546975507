"""What all benchmarks share: timing in turns, ratios, peak memory, and a table with a line of JSON.

Ways to do the same are run in turns (A B A B), so that other work on the machine falls on all of them alike. Ratios are
taken within a round; their median, least and largest are shown. Seconds alone scatter.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

PACKAGES = ("torch", "transformers", "deepspeed", "accelerate", "llava-torch")
Seconds = Mapping[str, Sequence[float]]


class Parser(argparse.ArgumentParser):
    """Flags of a benchmark, with --rounds, --threads and --device; whole numbers are at least 1.

    Args:
        description: docstring of the script.
        rounds: default of --rounds.
    """

    def __init__(self, description: str | None, *, rounds: int = 5) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.number("--rounds", rounds, "of all ways, one after the other")
        self.add_argument("--threads", type=_positive, help="of the CPU; torch's own number if left out")
        self.add_argument("--device", default="cpu")

    def number(self, flag: str, default: int | None, help: str) -> None:
        self.add_argument(flag, type=_positive, default=default, help=f"{help} (default: {default})")

    def options(self) -> argparse.Namespace:
        found = self.parse_args()
        if found.threads:
            torch.set_num_threads(found.threads)
        return found


def interleaved(ways: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each way in each round; CUDA is waited for.

    Args:
        ways: what is called, by name.
        rounds: that are counted.
        warm_up: rounds before them that are not.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in track(range(warm_up + rounds), description="rounds", transient=True):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def times_as_fast(seconds: Seconds, way: str, than: str) -> dict[str, Any]:
    """How many times as fast one way is as another: the median over rounds, the least and the largest."""
    ratios = [other / own for own, other in zip(seconds[way], seconds[than], strict=True)]
    return {"times_as_fast": statistics.median(ratios), "least": min(ratios), "largest": max(ratios), "than": than}


def rate(seconds: Sequence[float], amount: float) -> float:
    """So much a second, by the median of the rounds."""
    return amount / statistics.median(seconds)


# --- memory -----------------------------------------------------------------------------------------------------------


def peak_memory(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What `work` returns, and the peak of the memory that it took, in a process of its own.

    Args:
        work: a function of a module; it is measured from its start, with heavy imports made before.
        arguments: of `work`; anything that can be pickled.
    Returns: Its result with "peak_bytes": on a GPU of the allocator, else resident memory beyond that at the start.
    """
    # DeepSpeed asks for a GPU as it is imported, and what is forked after that cannot use one.
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "forkserver")
    context.set_forkserver_preload(["deepspeed", "llava.train.train"])
    with context.Pool(1) as pool:
        return pool.apply(_measured, (work, arguments))


def _measured(work: Callable[..., dict[str, Any]], arguments: Sequence[Any]) -> dict[str, Any]:
    import deepspeed  # noqa: F401 - LLaVA imports it later; what it takes is not the model's
    from llava.train import train  # noqa: F401

    Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the peak of this process
    before = _resident("VmRSS")
    found = work(*arguments)
    used = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else _resident("VmHWM") - before
    return {**found, "peak_bytes": used}


def _resident(what: str) -> int:
    """Bytes of main memory that this process holds (VmRSS) or held at its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{what}:")).split()[1])


# --- output -----------------------------------------------------------------------------------------------------------


def report(benchmark: str, rows: Sequence[Mapping[str, Any]], options: argparse.Namespace, **more: Any) -> None:
    """Prints a table with a line for each row and a column for each name in them; last, everything as one line of JSON.

    Args:
        benchmark: its name.
        rows: measured numbers by name; lists are left out of the table.
        options: the flags it was run with.
        more: what else the JSON holds; texts and numbers are printed below the table.
    """
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, list)))
    table = Table(title=f"{benchmark}, {torch.get_num_threads()} threads, {options.device}")
    for name in names:
        table.add_column(name.replace("_", " "), justify="left" if name in ("way", "than") else "right")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    console = Console(width=180)
    console.print(table)
    for name, value in more.items():
        if isinstance(value, str | float | int):
            console.print(f"{name.replace('_', ' ')}: {_cell(value)}", highlight=False)
    measured = {"benchmark": benchmark, "rows": rows, **more, "settings": vars(options)}
    print(json.dumps({**measured, "versions": versions(), "machine": machine()}, default=str))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def versions() -> dict[str, str]:
    """Of what is installed of PACKAGES."""
    installed = {each.metadata["Name"] for each in importlib.metadata.distributions()}
    return {package: importlib.metadata.version(package) for package in PACKAGES if package in installed}


def machine() -> dict[str, Any]:
    """Cores, threads, processor and GPU."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "processor": name, "gpu": gpu}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
