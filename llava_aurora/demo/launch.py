"""Starts `deepspeed scripts/finetune_aurora.sh` as a user would, with a progress bar over its log."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from llava_aurora.errors import AuroraError
from llava_aurora.progress import notes
from llava_aurora.training.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]


def finetune_command(flags: Sequence[str], *, ranks: int) -> list[str]:
    """The command line, for so many ranks or as many GPUs as there are.

    Raises:
        AuroraError: if this is no checkout of the repository.
    """
    if torch.cuda.is_available():
        ranks = min(ranks, torch.cuda.device_count())
    script = REPOSITORY / "scripts" / "finetune_aurora.sh"
    if not script.is_file():
        raise AuroraError(f"{script}: missing; the demo runs from a checkout of the repository (pip install -e .)")
    launcher = shutil.which("deepspeed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if launcher is None:
        raise AuroraError(f"deepspeed: its launcher is not beside {sys.executable}; run `bash scripts/setup.sh`")
    port = os.environ.get("MASTER_PORT") or free_port()  # DeepSpeed's own is taken if another run is under way
    return [launcher, "--num_gpus", str(ranks), "--master_port", str(port), str(script), *flags]


def run_training(command: Sequence[str], *, log: Path, description: str) -> None:
    """Runs it; everything it prints goes to `log`, its losses to a progress bar.

    Raises:
        AuroraError: if it fails, with the name of the log and the last error in it that is not the launcher's.
    """
    environment = {"PYTHONUNBUFFERED": "1", **os.environ}
    if not torch.cuda.is_available():
        environment.setdefault("DS_ACCELERATOR", "cpu")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with (
        log.open("w", encoding="utf-8") as file,
        Progress(*columns, console=notes()) as progress,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, errors="replace"
        ) as process,
    ):
        task = progress.add_task(description, total=1.0, note="starting")
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            file.write(line)
            file.flush()
            lines.append(line.strip())
            logged = _logged(line)
            if "loss" in logged:
                progress.update(task, completed=logged["epoch"], note=f"loss {logged['loss']:.3f}")
        if process.wait() != 0:
            errors = [line for line in lines if "error" in line.lower() and "[launch.py:" not in line]
            raise AuroraError(f"fine-tuning failed, see {log}: {(errors or lines or ['no output'])[-1]}")
        progress.update(task, completed=1.0)


def _logged(line: str) -> dict[str, float]:
    """The dictionary that the Trainer prints at each logging step; empty for any other line."""
    start = line.find("{'loss'")
    if start < 0:
        return {}
    try:
        return {name: float(value) for name, value in ast.literal_eval(line[start:].strip()).items()}
    except (ValueError, SyntaxError):
        return {}
