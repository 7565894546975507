"""`llava-aurora data games`."""

from pathlib import Path
from typing import Annotated

import typer

from llava_aurora.cli.data import app
from llava_aurora.cli.output import tell


@app.command(epilog="Example: llava-aurora data games --out races --rounds 10")
def games(
    out: Annotated[Path, typer.Option(help="A new folder for records.json and frames/.")],
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first round; the others follow.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="One record each this many steps.")] = 4,
    steps: Annotated[int | None, typer.Option(min=1, help="Most steps of a round; default: the game's 1,000.")] = None,
) -> None:
    """Record a scripted driver of CarRacing-v3 as records: two frames in, the action as text out."""
    from llava_aurora.games.recording import record_rounds

    returns = record_rounds(out, rounds=rounds, seed=seed, every=every, most_steps=steps)
    tell(out=out, returns=returns)
    print(f"{out}: {rounds} rounds, mean return {sum(returns) / rounds:.1f}; records in {out / 'records.json'}")
