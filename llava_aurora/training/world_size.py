"""Converts a ZeRO checkpoint for another number of ranks, by way of DeepSpeed's universal checkpoint.

ZeRO splits optimizer states into one part a rank. A universal checkpoint has them whole, one folder a parameter. The
original is not changed.
"""

import argparse
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from llava_aurora.errors import AuroraError
from llava_aurora.training.checkpoint_folder import STATE, RunRecord

STAGES = (1, 2, 3)
SCHEDULE = "scheduler.pt"


def check_convertible(checkpoint: Path, written: RunRecord, world_size: int) -> None:
    """Raises AuroraError if `checkpoint` cannot be converted for `world_size` ranks."""
    remedy = f"start {written.world_size} ranks"
    what = f"{checkpoint}: written by {written.world_size} ranks, this run has {world_size}"
    if written.zero_stage not in STAGES:
        raise AuroraError(f"{what}; that works with ZeRO-1, ZeRO-2, ZeRO-3 and without DeepSpeed; {remedy}")
    parts = len(list(checkpoint.glob("global_step*/*_optim_states.pt")))
    if parts != written.world_size:
        raise AuroraError(
            f"{what}, but {parts} of its {written.world_size} parts are here; copy global_step*/*_optim_states.pt of"
            f" all nodes into one shared folder, or {remedy}"
        )


def convert(checkpoint: Path, into: Path) -> None:
    """Writes `checkpoint` as a universal checkpoint, with the files that the Trainer reads. Called on one rank only.

    To be called within `weights_only_loading`, since DeepSpeed's converter unpickles too.
    """
    from deepspeed.checkpoint import ds_to_universal

    tag = (checkpoint / "latest").read_text(encoding="utf-8").strip()
    into.mkdir(parents=True)
    for name in (STATE, SCHEDULE):
        if (checkpoint / name).is_file():
            shutil.copy2(checkpoint / name, into)
    # One worker each: another process would load without the guard of this one.
    settings = argparse.Namespace(
        input_folder=str(checkpoint / tag),
        output_folder=str(into / f"{tag}_universal"),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    try:
        with redirect_stdout(StringIO()):
            ds_to_universal.main(settings)
    except (AssertionError, KeyError, ValueError, NotImplementedError, OSError) as error:
        raise AuroraError(
            f"{checkpoint}: DeepSpeed cannot convert it for another number of ranks ({type(error).__name__}: {error});"
            " start as many ranks as wrote it"
        ) from error
