"""`llava-aurora data games`, and what `llava-aurora eval games` does."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llava_aurora.cli.data import app
from llava_aurora.cli.output import tell
from llava_aurora.errors import AuroraError

if TYPE_CHECKING:
    from llava_aurora.evaluation.answers import AnswerSettings
    from llava_aurora.generation.predictor import Predictor


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


def play_games(load: Callable[[], "Predictor"], settings: "AnswerSettings", given: Mapping[str, Any]) -> None:
    """Plays rounds with a model, and beside it with the scripted driver and at random, and prints the mean returns.

    Args: load: the model, once all else is known to be there; given: the options of `eval`.
    """
    from dataclasses import asdict

    from llava_aurora.evaluation.answers import AnswerStore
    from llava_aurora.games.playing import ModelPlayer, Player, RandomPlayer, ScriptedPlayer, check_games
    from llava_aurora.games.rounds import PUBLISHED, ROUNDS, play_rounds

    out, gif = given["out"], given["gif"]
    check_games()
    if gif is not None and gif.suffix.lower() != ".gif":
        raise AuroraError(f"--gif {gif}: its name must end with .gif")
    predictor = load()
    AnswerStore(out).claim({**predictor.identity, **asdict(settings)})
    players: dict[str, Player] = {
        "model": ModelPlayer(predictor, **asdict(settings)),
        "scripted driver": ScriptedPlayer(),
        "random": RandomPlayer(),
    }
    seeds = range(given["seed"], given["seed"] + given["rounds"])
    found = play_rounds(players, out=out, seeds=seeds, at_once=given["batch_size"], most_steps=given["limit"], gif=gif)
    tell(rounds=out / ROUNDS, players={name: asdict(each) for name, each in found.items()}, published=PUBLISHED)
    for name, each in found.items():
        mean = each.mean
        print(
            f"{name}: mean return {mean.value:.1f} [{mean.low:.1f}, {mean.high:.1f}] of {mean.count} rounds,"
            f" {each.unreadable} of {each.steps} actions unreadable"
        )
    print("published of 15 rounds, theirs: " + ", ".join(f"{name} {value}" for name, value in PUBLISHED.items()))
