"""A player's mean return over seeds, and one round as a GIF."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from llava_aurora.evaluation.statistics import Interval, bootstrap_mean
from llava_aurora.files import atomic_file
from llava_aurora.games.playing import Player, play

# CarRacing of arXiv 2408.03940, mean return of 15 rounds: theirs, of their models and expert.
PUBLISHED = {"expert": 853.9, "base": 465.4, "PAE-LaMM": 535.9}


@dataclass(frozen=True)
class Rounds:
    """Returns, one a seed; their mean with its bootstrap interval; how many actions could not be read, of how many."""

    returns: tuple[float, ...]
    mean: Interval
    unreadable: int
    steps: int


def play_rounds(
    game: Any,
    make_player: Callable[[int], Player],
    *,
    seeds: Sequence[int],
    most_steps: int | None = None,
    gif: Path | None = None,
) -> Rounds:
    """Plays a round for each seed, each with a new player; `gif` shows the first one, every fourth step."""
    returns, unreadable, steps = [], 0, 0
    for seed in seeds:
        total, shown = 0.0, []
        for place, step in enumerate(play(game, make_player(seed), seed=seed, most_steps=most_steps)):
            total += step.reward
            unreadable += not step.readable
            steps += 1
            if gif is not None and seed == seeds[0] and place % 4 == 0:
                shown.append(Image.fromarray(step.frame))
        if gif is not None and shown:
            with atomic_file(gif) as path:
                shown[0].save(path, save_all=True, append_images=shown[1:], duration=80, loop=0)
        returns.append(total)
    return Rounds(tuple(returns), bootstrap_mean(returns), unreadable, steps)
