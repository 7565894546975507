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
