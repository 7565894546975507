"""The entry point of training: LLaVA's own train() with the plugin registered.

Started on every rank by the scripts/*_aurora*.sh. All of LLaVA's flags work; ours are in configuration.py.
"""

import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from llava_aurora.errors import AuroraError
from llava_aurora.progress import silence_libraries
from llava_aurora.training.command_line import UsageError, flag_parser, ways_to_start
from llava_aurora.training.cpu_ranks import check_torch, leave_out_inference_operator
from llava_aurora.training.flag_checks import attention_kernel, check_flags, names_tasks
from llava_aurora.training.legacy_flags import translate
from llava_aurora.training.recipes import Recipe, fill, find_recipe, given, missing
from llava_aurora.training.run_lock import run_lock

if TYPE_CHECKING:
    from transformers import TrainerCallback

# What the Trainer takes where nothing is said depends on what is installed.
REPORT_TO = {"report_to": "tensorboard"}


def main(script: str, *, recipe: str | None = None, callbacks: "Sequence[TrainerCallback]" = ()) -> None:
    """Runs one rank. An AuroraError ends in one line on stderr and exit code 1; 2 if the command line is at fault.

    Args:
        script: path of the script that was started; the repository is the folder above its own.
        recipe: name of the recipe that fills in what the command line leaves out.
        callbacks: of the Trainer, beside its own.
    """
    silence_libraries()
    # DeepSpeed compiles its optimizers for the CPU once; beside the environment every run in it finds them again.
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", os.path.join(sys.prefix, "torch_extensions"))
    # Without a number of its own each rank would take every core.
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    try:
        run(sys.argv[1:], recipe=find_recipe(recipe), root=Path(script).resolve().parents[1], callbacks=callbacks)
    except UsageError as error:
        _give_up(str(error), code=2)
    except AuroraError as error:
        # From a worker of the data loader the message comes at the end of a traceback.
        _give_up(str(error).strip().splitlines()[-1].removeprefix(f"{AuroraError.__module__}.AuroraError: "), code=1)


def _give_up(message: str, *, code: int) -> NoReturn:
    """Prints the message and ends this process.

    Launchers kill all ranks when one fails. A rank that shares its machine with rank 0 gives that one time to speak, as
    both most likely failed for the same reason.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(10)
    print(f"error: {message}", file=sys.stderr, flush=True)
    # The other ranks may wait in a collective operation: an ordinary exit would wait for them.
    os._exit(code)


def run(arguments: Sequence[str], *, recipe: Recipe, root: Path, callbacks: "Sequence[TrainerCallback]" = ()) -> None:
    """Trains as the command line says.

    Args: arguments: flags and values, as in sys.argv[1:].
    Raises:
        UsageError: if flags are missing or unknown.
        AuroraError: for other input or an installation that the user can mend.
    """
    first = os.environ.get("RANK", "0") == "0"
    wants_help = bool({"-h", "--help"} & set(arguments))
    if wants_help and not first:
        return
    if not wants_help and (absent := missing(arguments, recipe.needs)):
        names = " and ".join(f"--{name}" for name in absent)
        raise UsageError(f"{names} {'is' if len(absent) == 1 else 'are'} missing\n\n{ways_to_start(recipe)}")

    import torch
    import transformers

    from llava_aurora.training import integration

    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        check_torch(int(os.environ.get("WORLD_SIZE", "1")))
    tf32 = cuda and torch.cuda.get_device_capability() >= (8, 0)
    defaults = recipe.defaults(root)
    command_line, notes = translate(fill(arguments, {**REPORT_TO, **defaults}), cuda=cuda, tf32=tf32)
    if not cuda:
        leave_out_inference_operator()
    integration.register()
    from llava.train import train as upstream

    from llava_aurora.training.trainer import AuroraTrainer

    parser = flag_parser(recipe, defaults)
    if wants_help:
        parser.print_help()
        return
    if first and recipe.name:
        print(f"recipe {recipe.name} sets flags not given: `bash {recipe.script} --help` shows it", flush=True)
    if first:
        for note in notes:
            print(f"Warning: changed {note}", flush=True)
    flags = parser.parse_args(command_line)
    check_flags(flags)
    _check_port()
    if flags.curriculum and not names_tasks(flags.data_path):
        if "curriculum" in given(arguments):
            raise AuroraError(
                f'{flags.data_path}: no record has a task under "aurora", which --curriculum orders them by; leave it'
                " out, or make the records with `llava-aurora data records`"
            )
        command_line.append("--curriculum=")
        if first:
            print(f"no curriculum: no record of {flags.data_path} names its task, so the order is random", flush=True)
    kernel, reason = attention_kernel(flags)
    if first:
        print(f"attention: {kernel} ({reason})", flush=True)
    sys.argv[1:] = command_line
    # Upstream seeds when the trainer is built; LoRA's and a new projector's first weights are drawn before that.
    transformers.set_seed(flags.seed)
    AuroraTrainer.callbacks = tuple(callbacks)
    with run_lock(Path(flags.output_dir)) if first else nullcontext():
        upstream.train(attn_implementation=kernel)
    if first:
        print(f"saved to {flags.output_dir}", flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _check_port() -> None:
    """Raises AuroraError if the port at which ranks are to meet is taken. torchrun listens on it before they start."""
    port = os.environ.get("MASTER_PORT", "")
    if not port or os.environ.get("RANK", "0") != "0" or "TORCHELASTIC_USE_AGENT_STORE" in os.environ:
        return
    try:
        socket.create_server(("", int(port))).close()
    except (OSError, ValueError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise AuroraError(
            f"port {port}, where the processes of this run would meet, cannot be used ({reason}); choose another:"
            " `deepspeed --master_port 29501 SCRIPT …`, or `MASTER_PORT=29501 bash SCRIPT …`"
        ) from error
