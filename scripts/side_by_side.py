"""What the benchmarks share: ways to do the same thing, measured in turns and compared pair by pair.

Other work on the machine falls on all ways alike when they take turns (A B A B), so that ratios are taken within a
round and their median shown; seconds alone scatter.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "deepspeed", "accelerate", "llava-torch")


def interleaved(ways: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each way in each round.

    Args:
        ways: what is called, by name; a CUDA device is waited for.
        rounds: of all ways one after the other.
        warm_up: rounds before that are not counted.
    """
    import torch
    from rich.progress import track

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


def ratio(seconds: Mapping[str, list[float]], way: str, to: str) -> float:
    """The median over rounds of one way's seconds by another's."""
    return statistics.median(one / other for one, other in zip(seconds[way], seconds[to], strict=True))


def spread(seconds: Mapping[str, list[float]], way: str, to: str) -> tuple[float, float]:
    """The least and the largest of these ratios."""
    ratios = [one / other for one, other in zip(seconds[way], seconds[to], strict=True)]
    return min(ratios), max(ratios)


def print_json(benchmark: str, **measured: Any) -> None:
    """One line of JSON: what was measured, on what, with which versions."""
    print(json.dumps({"benchmark": benchmark, **measured, "versions": versions(), "machine": machine()}))


def versions() -> dict[str, str]:
    """Of what is installed of PACKAGES."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    import torch

    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    """Its name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
