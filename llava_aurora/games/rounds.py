"""Players' mean returns over seeds, kept round by round, and one round as a GIF."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llava_aurora.batches import batches
from llava_aurora.evaluation.statistics import Interval, bootstrap_mean
from llava_aurora.files import atomic_file
from llava_aurora.games.playing import Player, Round, open_game, play
from llava_aurora.line_file import LineFile
from llava_aurora.progress import count_bars

# CarRacing of arXiv 2408.03940, mean return of 15 rounds: theirs, of their models and expert.
PUBLISHED = {"expert": 853.9, "base": 465.4, "PAE-LaMM": 535.9}
ROUNDS = "games.jsonl"
_SHOWN, _SIDE = 4, 288  # every fourth step of a GIF's round, and its pixels


@dataclass(frozen=True)
class Returns:
    """A player's mean return with its bootstrap interval; how many of its actions could not be read."""

    mean: Interval
    unreadable: int
    steps: int


def play_rounds(
    players: Mapping[str, Player],
    *,
    out: Path,
    seeds: Sequence[int],
    at_once: int = 1,
    most_steps: int | None = None,
    gif: Path | None = None,
) -> dict[str, Returns]:
    """Plays a round for each seed by each player; a round that `out` holds already is not played again.

    Args:
        out: folder where rounds are kept as they end, in games.jsonl.
        at_once: rounds side by side, asked about in one batch.
        most_steps: of a round; by default the game's own 1,000.
        gif: a .gif file that shows the first player's first round, which is played for it.
    Raises AuroraError as `open_game`, or for a file of other lines.
    """
    file = LineFile(out / ROUNDS, keys=("player", "seed", "most_steps", "return", "steps", "unreadable"), what="round")
    found = {(line["player"], line["seed"], line["most_steps"]): line for line in file.read()}
    shown = (next(iter(players)), seeds[0], most_steps) if gif else None
    with count_bars() as progress:
        for name, player in players.items():
            keys = [(name, seed, most_steps) for seed in seeds]
            missing = [key for key in keys if key not in found or key == shown]
            bar = progress.add_task(f"{name}, rounds", total=len(missing))
            for some in batches(missing, at_once):
                with ExitStack() as games:
                    rounds = [Round(games.enter_context(open_game()), seed=seed) for _, seed, _ in some]
                    pictures = [rounds[0].frame for _ in play(player, rounds, most_steps=most_steps)]
                if gif and some[0] == shown:
                    _draw(pictures[::_SHOWN], gif)
                lines = {key: _line(key, each) for key, each in zip(some, rounds, strict=True)}
                file.append(line for key, line in lines.items() if key not in found)
                found |= lines
                progress.advance(bar, len(some))
    return {name: _returns([found[name, seed, most_steps] for seed in seeds]) for name in players}


def _line(key: tuple[str, int, int | None], played: Round) -> dict[str, Any]:
    name, seed, most_steps = key
    line: dict[str, Any] = {"player": name, "seed": seed, "most_steps": most_steps}
    return {**line, "return": played.score, "steps": played.steps, "unreadable": played.unreadable}


def _returns(lines: Sequence[Mapping[str, Any]]) -> Returns:
    unreadable, steps = (sum(line[name] for line in lines) for name in ("unreadable", "steps"))
    return Returns(bootstrap_mean([line["return"] for line in lines]), unreadable, steps)


def _draw(frames: Sequence[NDArray[np.uint8]], path: Path) -> None:
    first, *others = [Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.NEAREST) for frame in frames]
    with atomic_file(path) as temporary:
        first.save(temporary, save_all=True, append_images=others, duration=80, loop=0)
