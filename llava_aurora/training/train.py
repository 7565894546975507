"""The training entry: LLaVA's own train() with everything registered.

Started on every rank by scripts/finetune_aurora.sh. All of LLaVA's flags work; ours are in configuration.py.
"""

import os
import sys

from llava_aurora.errors import AuroraError
from llava_aurora.training.legacy_flags import translate


def main() -> None:
    """Runs one rank. An AuroraError ends in one line on stderr and exit code 1."""
    # DeepSpeed compiles its CPU operators once; beside the environment they are found again by every run in it.
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", os.path.join(sys.prefix, "torch_extensions"))
    # Without a number of its own each rank would take every core.
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    try:
        run(sys.argv[1:])
    except AuroraError as error:
        # From a worker of the data loader the message comes at the end of a traceback.
        message = str(error).strip().splitlines()[-1].removeprefix(f"{AuroraError.__module__}.AuroraError: ")
        print(f"error: {message}", file=sys.stderr, flush=True)
        # The other ranks may wait in a collective operation: an ordinary exit would wait for them.
        os._exit(1)


def run(arguments: list[str]) -> None:
    """Trains as the command line says.

    Raises:
        AuroraError: for input or an installation that the user can mend.
    """
    import torch

    from llava_aurora import integration

    cuda = torch.cuda.is_available()
    tf32 = cuda and torch.cuda.get_device_capability() >= (8, 0)
    arguments, notes = translate(arguments, cuda=cuda, tf32=tf32)
    first = os.environ.get("RANK", "0") == "0"
    if first:
        for note in notes:
            print(f"translated flag: {note}", flush=True)
    integration.register()
    from llava.train import train as upstream

    sys.argv[1:] = arguments
    kernel, reason = integration.attention_kernel()
    if first:
        print(f"attention: {kernel} ({reason})", flush=True)
    upstream.train(attn_implementation=kernel)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
