"""What the checks of a GPU share: the verdict, the folder they write to, and the model they train."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from llava_aurora.files import read_json
from llava_aurora.model_sizes import SIZES, LlavaSizes, VisionSizes
from llava_aurora.training.plan import Run

TINY = LlavaSizes(
    name="tiny",
    hidden=64,
    intermediate=172,
    layers=1,
    heads=2,
    kv_heads=2,
    vocabulary=600,
    vision=VisionSizes(hidden=64, intermediate=128, layers=1, image=42),
)
PLANNED_LENGTH = 800  # tokens of a record, at most; what it has is measured
ANSWER = 128  # those of them with a label, at most


@dataclass(frozen=True)
class Verdict:
    """Args: name: what was checked; found: in a line; remedy: what helps, if known; numbers: what was measured."""

    name: str
    state: Literal["ok", "warning", "failed", "skipped"]
    found: str
    remedy: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.state:8} {self.name}: {self.found}" + (f"\n{'':9}{self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Setting:
    """Args: work: folder of everything that is made; tiny: in a size for CPUs."""

    work: Path
    tiny: bool

    @cached_property
    def device(self) -> str:
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def run(self) -> Run:
        """What `layers` chose to train."""
        found = read_json(self.work / "run.json", what="size of the layers")
        return run_of(found["layers"], found["batch"], tiny=self.tiny)


def run_of(layers: int, batch: int, *, tiny: bool) -> Run:
    sizes = TINY if tiny else SIZES["7b"]
    model = replace(sizes, layers=layers)
    return Run(model=model, mode="full", batch=batch, length=PLANNED_LENGTH, answer=ANSWER, gpus=1)


def seconds_of(work: Callable[[], Any], device: str) -> float:
    import torch

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started
