"""Runs a training script on ranks of this machine, forked from one process that has imported what takes seconds.

python tests/forked_ranks.py RANKS SCRIPT FLAGS...

Most of a short run is importing; here that is done once instead of in the launcher and in every rank. A rank that fails
ends the others, as with any launcher. Tests of how a run is started start it as users do.
"""

import os
import runpy
import sys
from pathlib import Path

from torch.multiprocessing import ProcessExitedException, start_processes

from llava_aurora.training.ports import free_port

TWO_RANKS = (sys.executable, __file__, 2)


def run_rank(rank: int, ranks: int, port: int, script: str, flags: list[str]) -> None:
    """What a launcher does for one rank, in a process of its own."""
    local = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in (local | meeting).items()})
    sys.argv = [script, *flags]
    sys.path.insert(0, str(Path(script).resolve().parent))
    runpy.run_path(script, run_name="__main__")


def main() -> None:
    import deepspeed  # noqa: F401
    import llava.train.train  # noqa: F401

    import llava_aurora.training.trainer  # noqa: F401

    ranks, script, *flags = sys.argv[1:]
    try:
        start_processes(run_rank, (int(ranks), free_port(), script, flags), nprocs=int(ranks), start_method="fork")
    except ProcessExitedException as ended:  # the rank has said why
        sys.exit(ended.exit_code or 1)


if __name__ == "__main__":
    main()
