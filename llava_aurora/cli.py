"""`llava-aurora <verb>`: the commands, each a thin wrapper over one function of the package.

Heavy imports happen inside the commands, so that `--help` answers without loading torch.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from llava_aurora.errors import AuroraError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Perception tokens for LLaVA.")
vqvae_app = typer.Typer(no_args_is_help=True, help="Train the depth VQ-VAE; turn depth maps into codes and back.")
data_app = typer.Typer(no_args_is_help=True, help="Make training data.")
app.add_typer(vqvae_app, name="vqvae")
app.add_typer(data_app, name="data")


# --- LLaVA: patches and state -----------------------------------------------------------------------------------------


@app.command(
    epilog="Examples: llava-aurora patch --source ~/LLaVA  |  llava-aurora patch --source ~/LLaVA --check  |  "
    "llava-aurora patch --source .venv/lib/python3.11/site-packages --reverse"
)
def patch(
    source: Annotated[Path, typer.Option(help="The folder that contains llava/: a checkout or site-packages.")],
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 unless all are applied.")] = False,
    reverse: Annotated[bool, typer.Option("--reverse", help="Take the patches out again.")] = False,
) -> None:
    """Put into LLaVA's source what it needs for current libraries. Twice is the same as once."""
    from llava_aurora import patch_queue

    if check and reverse:
        raise AuroraError("--check changes nothing and --reverse does; give one of them")
    if reverse:
        patch_queue.reverse(source)
    elif not check:
        patch_queue.apply(source)
    states = patch_queue.status(source)
    for each, state in states.items():
        print(f"{state.value:10}{each.name:32}{each.description}")
    missing = sum(state is not patch_queue.State.APPLIED for state in states.values())
    if check and missing:
        raise AuroraError(f"{source}: {missing} of {len(states)} patches are not applied")


# --- VQ-VAE -----------------------------------------------------------------------------------------------------------


# --- Data -------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Entry point: an AuroraError ends in one line on stderr and exit code 1."""
    try:
        app()
    except AuroraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
