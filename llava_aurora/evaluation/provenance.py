"""The provenance of an evaluation: command, versions, commit, machine."""

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from llava_aurora.version import __version__

_PACKAGES = ("torch", "transformers", "llava-torch", "deepspeed", "peft", "numpy", "scipy")


def provenance() -> dict[str, Any]:
    """Command line, versions, the commit of this package where it is a checkout, and the device."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name.replace("__main__.py", "llava-aurora"), *sys.argv[1:]]),
        "llava_aurora": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})",
    }


def commit() -> str | None:
    """Commit of the checkout that holds this package, "-dirty" where files differ from it; None without a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
