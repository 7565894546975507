"""`llava-aurora <verb>`: the commands, each a thin wrapper over one function of the package.

Heavy imports happen inside the commands, so that `--help` answers without loading torch.
"""

import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from llava_aurora.cli import asking, evaluation, export, pixels, serving, training
from llava_aurora.cli.groups import group_of
from llava_aurora.cli.output import Commands, tell
from llava_aurora.errors import AuroraError, shown
from llava_aurora.progress import QUIET
from llava_aurora.version import __version__

_INTERRUPTED = 130  # by Ctrl-C; some versions of typer return it themselves
# Of click, or of typer's own copy of click.
_UsageError: Any = typer.BadParameter.__base__

app = Commands(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={
        "max_content_width": 120,
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),  # --image_folder is --image-folder
    },
)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def settings(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Perception tokens for LLaVA."""
    if quiet:
        os.environ[QUIET] = "1"


@app.command(
    epilog="Examples: llava-aurora patch --source ~/LLaVA  |  llava-aurora patch --source ~/LLaVA --check  |  "
    "llava-aurora patch --source .venv/lib/python3.11/site-packages --reverse"
)
def patch(
    source: Annotated[Path, typer.Option(help="The folder that contains llava/: a checkout or site-packages.")],
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 unless all are applied.")] = False,
    reverse: Annotated[bool, typer.Option("--reverse", help="Remove the patches.")] = False,
) -> None:
    """Apply to LLaVA's source what it needs for current libraries. Safe to run again."""
    from llava_aurora import patch_queue

    if check and reverse:
        raise AuroraError("--check and --reverse exclude each other; give one of them")
    if reverse:
        patch_queue.reverse(source)
    elif not check:
        patch_queue.apply(source)
    states = patch_queue.status(source)
    tell(lambda: {each.name: state.value for each, state in states.items()})
    for each, state in states.items():
        print(f"{state.value:10}{each.name:32}{each.description}")
    if check:
        patch_queue.check(source)  # raises where a patch conflicts, with the reason
        pending = list(states.values()).count(patch_queue.State.PENDING)
        if pending:
            raise AuroraError(f"{source}: {pending} of {len(states)} patches are pending")


@app.command(epilog="Examples: llava-aurora doctor  |  llava-aurora doctor --gpu")
def doctor(
    gpu: Annotated[bool, typer.Option("--gpu", help="Also train, generate and encode on the GPU: 3 minutes.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="With --gpu: in a size for CPUs, without a GPU too.")] = False,
) -> None:
    """Show versions, patches, the attention kernel, devices and DeepSpeed; exit code 1 if a check fails."""
    from llava_aurora.doctor import examine

    if tiny and not gpu:
        raise AuroraError("--tiny is the size of --gpu; give both")
    sound, rows = examine()
    tell(lambda: {name: {"found": found, "required": why} for name, found, why in rows})
    if not sound:
        raise AuroraError("this installation cannot train; run `bash scripts/setup.sh`")
    if gpu:
        from llava_aurora.gpu.checks import check_gpu

        verdicts = check_gpu(tiny=tiny, report=lambda verdict: print(verdict, flush=True))
        tell(lambda: {"gpu": [asdict(verdict) for verdict in verdicts]})
        if failed := [verdict.name for verdict in verdicts if verdict.state == "failed"]:
            raise AuroraError(f"on this GPU failed: {', '.join(failed)}")


@app.command(epilog="Examples: llava-aurora demo  |  llava-aurora demo --preset smoke --out smoke_output")
def demo(
    out: Annotated[Path, typer.Option(help="Output folder; an interrupted demo is resumed in it.")] = Path(
        "demo_output"
    ),
    preset: Annotated[
        str, typer.Option(help="demo: eight minutes on two cores; full: 5 times the scenes; smoke: learns nothing.")
    ] = "demo",
) -> None:
    """From the tiny LLaVA of the package to one that writes depth maps as tokens: scenes, fine-tuning, report."""
    from llava_aurora.demo.pipeline import Demo

    tell(report=Demo(name=preset, out=out).run())


data = group_of(["data", "boxes", "depth", "games", "inspection", "store"], help="Make training data.")
app.add_typer(data, name="data")
vqvae = group_of(["vqvae"], help="Train the depth VQ-VAE; turn depth maps into codes and back.")
app.add_typer(vqvae, name="vqvae")
app.add_typer(training.app)
app.add_typer(asking.app)
app.add_typer(serving.app)
app.add_typer(evaluation.app)
app.add_typer(pixels.app)
app.add_typer(export.app)


def main() -> None:
    """Entry point: one line on stderr and exit code 2 for wrong usage, 1 for other errors, 130 after Ctrl-C."""
    try:
        code = app(standalone_mode=False) or 0
    except AuroraError as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        code = 1
    except _UsageError as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        arguments = sys.argv[1:]
        resume = ["--resume"] if arguments[:2] == ["vqvae", "train"] and "--resume" not in arguments else []
        print(f"\ninterrupted; to resume: {shlex.join(['llava-aurora', *arguments, *resume])}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
