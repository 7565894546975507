"""The training entry: LLaVA's own train() with everything registered.

Started on every rank by the scripts/*_aurora*.sh. All of LLaVA's flags work; ours are in configuration.py. What can be
found wrong in them is found here, before a model is loaded.
"""

import argparse
import importlib.util
import json
import os
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from llava_aurora.errors import AuroraError
from llava_aurora.training.legacy_flags import translate
from llava_aurora.training.recipes import DROP_IN, RECIPES, Recipe, fill, find_recipe, missing

# What the Trainer takes where nothing is said depends on what is installed.
REPORT_TO = {"report_to": "tensorboard"}

WAYS = """\
The paper's recipe:

{paper}

LLaVA's flags, every one yours:

{drop_in}

The demo, which needs neither GPU nor data nor model:

    bash scripts/demo.sh

"""


class UsageError(AuroraError):
    """A command line that cannot be understood: exit code 2."""


def main(script: str, *, recipe: str | None = None) -> None:
    """Runs one rank. An AuroraError ends in one line on stderr and exit code 1; 2 if the command line is at fault.

    Args:
        script: path of the script that was started, in the folder `scripts` of the repository.
        recipe: name of the recipe that fills in what the command line leaves out.
    """
    # DeepSpeed compiles its CPU operators once; beside the environment they are found again by every run in it.
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", os.path.join(sys.prefix, "torch_extensions"))
    # Without a number of its own each rank would take every core.
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    try:
        run(sys.argv[1:], recipe=find_recipe(recipe), root=Path(script).resolve().parents[1])
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
        time.sleep(20)
    print(f"error: {message}", file=sys.stderr, flush=True)
    # The other ranks may wait in a collective operation: an ordinary exit would wait for them.
    os._exit(code)


def run(arguments: Sequence[str], *, recipe: Recipe, root: Path) -> None:
    """Trains as the command line says.

    Args:
        arguments: flags and values, as in sys.argv[1:].
        recipe: fills in what they leave out.
        root: the repository.

    Raises:
        UsageError: if flags are missing or unknown.
        AuroraError: for other input or an installation that the user can mend.
    """
    wants_help = bool({"-h", "--help"} & set(arguments))
    if not wants_help and (absent := missing(arguments, recipe.needs)):
        names = " and ".join(f"--{name}" for name in absent)
        raise UsageError(f"{names} {'is' if len(absent) == 1 else 'are'} missing\n\n{_ways(recipe)}")

    import torch

    from llava_aurora import integration

    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    tf32 = cuda and torch.cuda.get_device_capability() >= (8, 0)
    defaults = recipe.defaults(root)
    command_line, notes = translate(fill(arguments, {**REPORT_TO, **defaults}), cuda=cuda, tf32=tf32)
    first = os.environ.get("RANK", "0") == "0"
    integration.register()
    from llava.train import train as upstream

    parser = flag_parser(recipe, defaults)
    if wants_help:
        if first:
            parser.print_help()
        return
    if first and recipe.name:
        print(f"recipe {recipe.name} fills in what is not given: `bash {recipe.script} --help` shows it", flush=True)
    if first:
        for note in notes:
            print(f"translated flag: {note}", flush=True)
    flags = parser.parse_args(command_line)
    check_flags(flags)
    kernel, reason = attention_kernel(flags)
    if first:
        print(f"attention: {kernel} ({reason})", flush=True)
    sys.argv[1:] = command_line
    upstream.train(attn_implementation=kernel)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


# --- The command line -------------------------------------------------------------------------------------------------


def _ways(recipe: Recipe) -> str:
    """How training can be started, and where all flags are listed."""
    ways = WAYS.format(paper=_call(RECIPES["aurora_lora"]), drop_in=_call(DROP_IN))
    return f"{ways}All flags: bash {recipe.script} --help"


def _call(recipe: Recipe) -> str:
    """A typical call, to be copied: two or three flags a line."""
    # A flag and its value stay on one line.
    pairs = recipe.example.replace(" --", "\n--").replace(" ", "\0").replace("\n", " ")
    lines = [line.replace("\0", " ") for line in textwrap.wrap(pairs, width=100, break_on_hyphens=False)]
    return " \\\n".join([f"    deepspeed {recipe.script}", *(f"        {line}" for line in lines)])


def flag_parser(recipe: Recipe, defaults: Mapping[str, str]) -> argparse.ArgumentParser:
    """Reads the flags as LLaVA's train() will, without making anything of them. Errors are a UsageError."""
    from llava.train import train as upstream
    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(f"{message}\nAll flags: bash {recipe.script} --help")

    class Format(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        pass

    filled = "\n".join(f"    --{name} {value}" for name, value in defaults.items())
    lines = [
        f"{recipe.title}.",
        "",
        "Examples:",
        _call(recipe),
        f"    NUM_GPUS=2 bash {recipe.script} [the same flags]",
        f"    torchrun --nproc_per_node 8 {recipe.script} [the same flags]",
        *(["", "What this script fills in where you give nothing else:", filled] if defaults else []),
    ]
    return Parser(
        (upstream.ModelArguments, upstream.DataArguments, upstream.TrainingArguments),
        prog=recipe.script,
        usage=f"deepspeed {recipe.script} [flags]",
        description="\n".join(lines).replace("%", "%%"),
        formatter_class=Format,
    )


# --- What can be known to fail before a model is loaded ---------------------------------------------------------------


def check_flags(flags: argparse.Namespace) -> None:
    """Checks flags against each other and against the disk.

    Raises:
        AuroraError: for the first that cannot work, naming the flag, what is wrong with it, and the remedy.
    """
    if flags.curriculum and flags.group_by_modality_length:
        raise AuroraError(
            f"--curriculum {flags.curriculum} orders the records, and so does --group_by_modality_length True; leave"
            " one of them out (--curriculum '' switches a recipe's off)"
        )
    for flag, remedy in {
        "data_path": "the JSON file of training records; `llava-aurora data records --help` shows how to make one",
        "image_folder": "the folder that the records' images are named from",
        "eval_data_path": "a JSON file of records",
        "pretrain_mm_mlp_adapter": "the mm_projector.bin that scripts/pretrain_aurora.sh leaves",
    }.items():
        _check_exists(flag, getattr(flags, flag), remedy)
    for flag in ("model_name_or_path", "vision_tower"):
        if _is_path(getattr(flags, flag)):
            _check_exists(flag, getattr(flags, flag), "a folder, or a name on the Hugging Face hub")
    if flags.deepspeed and not flags.deepspeed.lstrip().startswith("{"):
        _check_exists("deepspeed", flags.deepspeed, "one of the files in deepspeed_configs/, or your own")
    _check_quantization(flags)
    _check_depth_tokens(flags)


def _check_exists(flag: str, path: str | None, remedy: str) -> None:
    if path and not Path(path).exists():
        raise AuroraError(f"--{flag} {path}: no such file or folder (from {Path.cwd()}); it is {remedy}")


def _is_path(name: str | None) -> bool:
    """A name on the hub is `owner/name` or `name`."""
    return name is not None and (name.startswith(("/", "./", "../", "~")) or name.count("/") > 1)


def _check_quantization(flags: argparse.Namespace) -> None:
    if flags.bits not in (4, 8):
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise AuroraError(f"--bits {flags.bits} needs bitsandbytes; run: pip install bitsandbytes")
    if flags.deepspeed and _zero_stage(flags.deepspeed) == 3:
        raise AuroraError(
            f"--bits {flags.bits} cannot be combined with ZeRO-3, which would have to partition quantized weights;"
            " use --deepspeed deepspeed_configs/zero2.json"
        )


def _zero_stage(config: str) -> int:
    """The stage in a DeepSpeed configuration, a file or the JSON itself."""
    try:
        settings = json.loads(config if config.lstrip().startswith("{") else Path(config).read_text(encoding="utf-8"))
        return int(settings.get("zero_optimization", {}).get("stage", 0))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise AuroraError(f"--deepspeed {config}: no DeepSpeed configuration in JSON: {error}") from error


def _check_depth_tokens(flags: argparse.Namespace) -> None:
    from llava_aurora.configuration import ModelArguments

    names = ModelArguments.__dataclass_fields__
    settings = ModelArguments(**{name: getattr(flags, name) for name in names}).modality_settings()
    if "depth" not in settings:
        return
    remedy = "a folder of `llava-aurora vqvae train`, or a published .pt file"
    vqvae = settings["depth"].get("vqvae")
    if not vqvae:
        raise AuroraError(f"--depth_vqvae is missing, which --perception_modalities depth needs: {remedy}")
    _check_exists("depth_vqvae", str(vqvae), remedy)


def attention_kernel(flags: argparse.Namespace) -> tuple[str, str]:
    """The attention implementation for these flags, and why."""
    from llava_aurora import integration

    kernel, reason = integration.attention_kernel()
    if flags.information_bottleneck and kernel != "sdpa":
        return "sdpa", "--information_bottleneck hides some tokens from others; FlashAttention takes no such mask"
    return kernel, reason
