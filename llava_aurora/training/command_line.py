"""The command line of a training script: parser, help, and the message for missing flags."""

import argparse
import re
import textwrap
from collections.abc import Mapping
from typing import NoReturn

from llava_aurora.errors import AuroraError
from llava_aurora.training.recipes import DROP_IN, RECIPES, Recipe

WAYS = """\
With the paper's recipe:

{paper}

With LLaVA's flags, all given by you:

{drop_in}

As a demo, which needs no GPU, data or model:

    bash scripts/demo.sh

"""


class UsageError(AuroraError):
    """Missing or unknown flags: exit code 2."""


def ways_to_start(recipe: Recipe) -> str:
    """Three ways to start training, and where all flags are listed."""
    ways = WAYS.format(paper=_call(RECIPES["aurora_lora"]), drop_in=_call(DROP_IN))
    return f"{ways}All flags: bash {recipe.script} --help"


def _call(recipe: Recipe) -> str:
    """A typical call over several lines; a flag and its value stay on one line."""
    pairs = recipe.example.replace(" --", "\n--").replace(" ", "\0").replace("\n", " ")
    lines = [line.replace("\0", " ") for line in textwrap.wrap(pairs, width=100, break_on_hyphens=False)]
    return " \\\n".join([f"    deepspeed {recipe.script}", *(f"        {line}" for line in lines)])


def flag_parser(recipe: Recipe, defaults: Mapping[str, str]) -> argparse.ArgumentParser:
    """A parser for the flags of LLaVA's train(), as it will parse them itself. Errors are a UsageError."""
    from llava.train import train as upstream
    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(f"{message}\nAll flags: bash {recipe.script} --help")

    class Format(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        def _format_action_invocation(self, action: argparse.Action) -> str:
            """One spelling of a flag; with underscores or dashes, both are read."""
            values = "" if action.nargs == 0 else f" {self._format_args(action, 'VALUE')}"
            return action.option_strings[0] + values

    filled = "\n".join(f"    --{name} {value}" for name, value in defaults.items())
    lines = [
        f"{recipe.title}.",
        "",
        "Examples:",
        _call(recipe),
        f"    NUM_GPUS=2 bash {recipe.script} [the same flags]",
        f"    torchrun --nproc_per_node 8 {recipe.script} [the same flags]",
        *(["", "Defaults of this script:", filled] if defaults else []),
    ]
    parser = Parser(
        (upstream.ModelArguments, upstream.DataArguments, upstream.TrainingArguments),
        prog=recipe.script,
        usage=f"deepspeed {recipe.script} [flags]",
        description="\n".join(lines).replace("%", "%%"),
        formatter_class=Format,
    )
    _group(parser)
    return parser


def _group(parser: argparse.ArgumentParser) -> None:
    """Our flags before those of LLaVA and transformers, each under its heading; help texts as they are written."""
    from llava_aurora import configuration

    kinds = configuration.ModelArguments, configuration.DataArguments, configuration.TrainingArguments
    own = {name for kind in kinds for name in vars(kind)["__annotations__"]}
    groups = [parser.add_argument_group(f"flags of {whose}") for whose in ("llava_aurora", "LLaVA and transformers")]
    for action in parser._actions[1:]:
        if action.help is not None:  # transformers writes "10% slower", which argparse reads as a format
            action.help = re.sub(r"(?<!%)%(?![%(])", "%%", action.help)
        groups[action.dest not in own]._group_actions.append(action)
    del parser._optionals._group_actions[1:]
