"""Runs Python scripts in processes forked from one that has imported what takes seconds.

Most of a short run is importing; here that is done once for a whole session of tests, not in every launcher and rank.
Tests of how a run is started start it as users do.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from torch.multiprocessing import ProcessExitedException, start_processes

from llava_aurora.training.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
# A hung run is ended after so many seconds, ranks and all.
LONGEST = 900
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["deepspeed", "llava.train.train", "llava_aurora.training.trainer"])


@contextlib.contextmanager
def begin(script: object, *flags: object, ranks: int | None = None, **environment: str) -> Iterator["Running"]:
    """Starts a script from the root of the repository, on the CPU.

    Args:
        script: a file, or "-m" with a module as its first flag.
        ranks: processes that find each other, as a launcher starts them; None is one that is told of no others.
        environment: beside that of this process.
    """
    reader, writer = FORKS.Pipe(duplex=False)
    words = [str(script), *map(str, flags)]
    process = FORKS.Process(target=_run, args=(writer, words, ranks, {**os.environ, **environment}))
    process.start()
    writer.close()
    with reader, open(os.dup(reader.fileno())) as output:
        try:
            yield Running(process, output)
        finally:
            process.join()


class Running:
    """Args: process: its pid is its group's, in which its ranks are too; output: what they print, line by line."""

    def __init__(self, process: multiprocessing.Process, output: IO[str]) -> None:
        self.process, self.output = process, output

    def kill(self) -> None:
        """Ends it and its ranks at once."""
        os.killpg(self.process.pid, signal.SIGKILL)


def _run(output: Connection, words: list[str], ranks: int | None, environment: dict[str, str]) -> None:
    os.setsid()
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    output.close()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    signal.alarm(LONGEST)
    multiprocessing.set_start_method(None, force=True)  # as in a program of its own, not as this process was started
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    if ranks is None:
        _run_script(words)
        return
    try:
        start_processes(_run_rank, (ranks, free_port(), words), nprocs=ranks, start_method="fork")
    except ProcessExitedException as ended:  # the rank has said why
        sys.exit(ended.exit_code or 1)


def _run_rank(rank: int, ranks: int, port: int, words: list[str]) -> None:
    """What a launcher does for one rank."""
    local = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in (local | meeting).items()})
    _run_script(words)


def _run_script(words: list[str]) -> None:
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    runpy.run_path(words[0], run_name="__main__")
