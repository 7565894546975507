"""What several commands do alike: check a device, report what failed of many files."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import typer

from llava_aurora.errors import AuroraError
from llava_aurora.found_files import in_words


def usable_device(device: str) -> str:
    """The device as it was given. Raises AuroraError if it cannot be used here."""
    import torch

    try:
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise AuroraError(f"--device {device}: not usable here: {str(error).splitlines()[0]}") from error
    return device


def report_failures(
    written: int, failures: list[str], out: Path, passed_over: Mapping[str, int] = MappingProxyType({})
) -> None:
    """Prints one summary line of a command on many files, and each failure on stderr; exit code 1 if some failed."""
    print(f"{out}: {written} written, {len(failures)} failed{in_words(passed_over)}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)
