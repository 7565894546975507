"""The folder that estimated and converted depth maps are written to.

depth_maps.json     the settings its maps were made with; a continued run must have the same
failures.jsonl      one line for each input without a map: {"file", "error"}; absent if there is none
a/b/name.png        the map of a/b/name.*: relative depth, higher = closer, 0 = unknown
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from llava_aurora.data.images.image_files import save_png
from llava_aurora.errors import AuroraError
from llava_aurora.files import write_text
from llava_aurora.found_files import FoundFiles
from llava_aurora.ownership import claim_folder
from llava_aurora.progress import count_bars
from llava_aurora.vqvae.maps import SETTINGS_FILE

FAILURES_FILE = "failures.jsonl"
_FORMAT = "llava_aurora depth maps"
_WAIT = timedelta(days=7)  # for the slowest process of a run


@dataclass
class DepthReport:
    """The result of a run over a folder."""

    # written, kept: maps made by this run, and by earlier ones
    written: int = 0
    kept: int = 0
    seconds: float = 0.0  # duration
    failures: dict[str, str] = field(default_factory=dict)  # the reason for each input without a map
    # entries of the input folder that are no inputs, by kind
    passed_over: Mapping[str, int] = field(default_factory=dict)
    main: bool = True  # whether this is the process of the run that reports

    @property
    def lines(self) -> list[str]:
        """A line for each failure."""
        return [f"{file}: {reason}" for file, reason in self.failures.items()]


@dataclass(frozen=True)
class Share:
    """The part of a run that this process does: every `count`-th input from `index` on."""

    index: int = 0
    count: int = 1


Produce = Callable[[list[Path]], Iterable[tuple[Path, "np.ndarray | AuroraError"]]]


def refuse_inside(out: str | Path, folder: str | Path) -> None:
    """Raises AuroraError if `out` is in `folder`, where the next run would take its maps for inputs."""
    out, folder = Path(out).resolve(), Path(folder).resolve()
    if out == folder or folder in out.parents:
        raise AuroraError(f"{out}: is inside {folder}, where its maps would be taken for inputs; choose another folder")


def write_maps(
    *, folder: Path, found: FoundFiles, out: str | Path, settings: Mapping[str, Any], produce: Produce, share: Share
) -> DepthReport:
    """Writes the map of each input that has none yet, each whole or not at all; failures are listed and not fatal.

    Args:
        found: the inputs, in the same order in every process.
        settings: what the maps are made with, as JSON can hold it.
        produce: yields the inputs given to it, each with its map, uint8 or uint16 (H, W), or with an error.
    Returns: The report of the whole run, the same in every process.
    Raises AuroraError if `out` holds maps made otherwise, or the file system refuses.
    """
    out, started = Path(out), time.monotonic()
    report = DepthReport(passed_over=found.passed_over, main=share.index == 0)
    claim_folder(out, SETTINGS_FILE, {"format": _FORMAT, **settings}, what="depth maps")
    targets: dict[Path, Path] = {}
    for path in found.paths:
        name = path.relative_to(folder).with_suffix(".png")
        if (first := targets.setdefault(name, path)) != path and report.main:
            report.failures[str(path)] = f"differs only in its suffix from {first.name}, whose map has this name"
    mine = {path: out / name for name, path in list(targets.items())[share.index :: share.count]}
    todo = [path for path, target in mine.items() if not target.exists()]
    report.kept = len(mine) - len(todo)
    for path, relative in _shown(produce(todo), total=len(todo), share=share):
        if isinstance(relative, AuroraError):
            report.failures[str(path)] = str(relative).removeprefix(f"{path}: ")
            continue
        save_png(mine[path], relative)
        report.written += 1
    report = _gathered(report, share)
    report.seconds = time.monotonic() - started
    if report.main:
        _list_failures(out, report)
    return report


def process_share(*, cpu: bool) -> Share:
    """This process's share under `accelerate launch` or torchrun; everything if there is only one process.

    Args: cpu: whether processes communicate over the CPU even if there are GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Share()
    from accelerate import PartialState

    # Processes meet only at the end, where the first to finish wait for the others.
    state = PartialState(cpu=cpu, timeout=_WAIT)
    return Share(index=state.process_index, count=state.num_processes)


def _gathered(report: DepthReport, share: Share) -> DepthReport:
    if share.count == 1:
        return report
    from accelerate.utils import gather_object

    whole = DepthReport(passed_over=report.passed_over, main=report.main)
    for each in gather_object([report]):
        whole.written, whole.kept = whole.written + each.written, whole.kept + each.kept
        whole.failures |= each.failures
    whole.failures = dict(sorted(whole.failures.items()))
    return whole


def _list_failures(out: Path, report: DepthReport) -> None:
    lines = [json.dumps({"file": file, "error": reason}) + "\n" for file, reason in report.failures.items()]
    if lines:
        write_text(out / FAILURES_FILE, "".join(lines))
    else:
        (out / FAILURES_FILE).unlink(missing_ok=True)


def _shown(
    results: Iterable[tuple[Path, np.ndarray | AuroraError]], *, total: int, share: Share
) -> Iterator[tuple[Path, np.ndarray | AuroraError]]:
    """The same, with a progress bar in the first process."""
    title = "depth maps" if share.count == 1 else f"depth maps of process 1 of {share.count}"
    with count_bars(disable=share.index > 0) as progress:
        task = progress.add_task(title, total=total)
        for result in results:
            yield result
            progress.advance(task)
