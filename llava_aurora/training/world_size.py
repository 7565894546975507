"""A checkpoint of ZeRO for another number of ranks: DeepSpeed's universal checkpoint, made on the way.

ZeRO cuts optimizer states in as many parts as there are ranks. Its universal checkpoint has them whole, one folder a
parameter. The original stays as it is.
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
    """Raises AuroraError if `checkpoint` cannot be cut anew for `world_size` ranks."""
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
    """Writes `checkpoint` as a universal checkpoint, with what the Trainer needs beside it. For one rank to do.

    Inside `weights_only_loading`, which DeepSpeed's converter needs as much as its engine.
    """
    from deepspeed.checkpoint import ds_to_universal

    tag = (checkpoint / "latest").read_text(encoding="utf-8").strip()
    into.mkdir(parents=True)
    for name in (STATE, SCHEDULE):
        if (checkpoint / name).is_file():
            shutil.copy2(checkpoint / name, into)
    # One worker each: a process of its own would read without the guard of this one.
    settings = argparse.Namespace(
        input_folder=str(checkpoint / tag),
        output_folder=str(universal_folder(into, tag)),
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
            f"{checkpoint}: DeepSpeed cannot cut it anew for another number of ranks ({type(error).__name__}: {error});"
            " start as many ranks as wrote it"
        ) from error


def universal_folder(into: Path, tag: str) -> Path:
    return into / f"{tag}_universal"
