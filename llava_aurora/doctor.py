"""`llava-aurora doctor`: a table of installed versions, patches, attention kernel, device and DeepSpeed backend."""

import os
import platform
import shutil
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from llava_aurora import installation, patch_queue
from llava_aurora.errors import AuroraError
from llava_aurora.training.cpu_ranks import NO_GLOO, has_gloo, has_libuv
from llava_aurora.version import __version__


def examine() -> tuple[bool, list[tuple[str, str, str]]]:
    """Prints the table. Returns whether a training run can start, and the rows."""
    table = Table("", "found", "required, or reason", title=f"llava_aurora {__version__}", title_justify="left")
    rows = [("Python", platform.python_version(), ">=3.10")]
    bad = set()
    for version in installation.versions():
        rows.append((version.package, version.found or "not installed", version.required))
        if not version.fits:
            bad.add(version.package)
    for name, check in (
        ("patches", _patches),
        ("attention", lambda: (True, *installation.attention_kernel())),
        ("device", _device),
        ("DeepSpeed", _deepspeed),
    ):
        good, found, why = _guarded(check)
        rows.append((name, found, why))
        if not good:
            bad.add(name)
    for name, found, why in rows:
        table.add_row(name, f"[red]{found}[/red]" if name in bad else found, why)
    Console().print(table)
    return not bad, rows


def _guarded(check: Callable[[], tuple[bool, str, str]]) -> tuple[bool, str, str]:
    """Runs a check; its error, if it has one, is shown in the table."""
    try:
        return check()
    except (AuroraError, ImportError) as error:
        return False, "check failed", str(error)


def _patches() -> tuple[bool, str, str]:
    source = installation.installed_source()
    states = patch_queue.status(source)
    missing = [patch.name for patch, state in states.items() if state is not patch_queue.State.APPLIED]
    found = f"{len(states) - len(missing)} of {len(states)} applied"
    return not missing, found, f"not applied: {', '.join(missing)}" if missing else str(source)


def _device() -> tuple[bool, str, str]:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())}
        return True, f"{torch.cuda.device_count()} × {', '.join(sorted(names))}", f"CUDA {torch.version.cuda}"
    return True, f"CPU, {os.cpu_count()} cores", "no CUDA device; enough for small models only"


def _deepspeed() -> tuple[bool, str, str]:
    import torch

    if torch.cuda.is_available():
        return True, "nccl", "for CUDA devices"
    if not has_gloo():
        return False, "no gloo", NO_GLOO
    reason = "for CPU ranks (DS_ACCELERATOR=cpu)"
    if not has_libuv():
        reason += "; this torch was built without libuv: set USE_LIBUV=0 for torchrun, our scripts do"
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return True, "gloo", f"{reason}; no g++, which offloading the optimizer needs"
    return True, "gloo", f"{reason}; DeepSpeed's CPU optimizer is compiled with {compiler}"
