"""What several commands do alike: check a device, report what failed of many files."""

import sys
from pathlib import Path

import typer

from llava_aurora.errors import AuroraError


def usable_device(device: str) -> str:
    """The device as it was given. Raises AuroraError if it cannot be used here."""
    import torch

    try:
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise AuroraError(f"--device {device}: not usable here: {str(error).splitlines()[0]}") from error
    return device


def report_failures(written: int, failures: list[str], out: Path) -> None:
    """Prints what a command on many files did; exit code 1 if some failed, after all were tried."""
    print(f"{out}: {written} written, {len(failures)} failed")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)
