"""A lock on the output folder of a training run, so that two runs never write checkpoints into one folder."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from llava_aurora.errors import AuroraError

LOCK = ".run.lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Holds the lock for the block. However the process ends, the system releases it.

    Args: folder: of the run; made if it is not there.
    Raises AuroraError if another run holds the lock; the message names its process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise AuroraError(
                f"--output_dir {folder}: another run writes there ({file.read().strip()}); stop it first, or choose"
                " another folder. If its launcher was killed, its ranks may still be running"
            ) from error
        except OSError as error:
            print(f"{folder}: no file locks there ({error.strerror}); do not start another run in it", flush=True)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M}\n")
        file.flush()
        yield
