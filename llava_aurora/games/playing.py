"""Rounds of CarRacing-v3. The clock is the game's own: it advances by a step once an action is there, however long
the player thinks."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.games.actions import action_text, read_action
from llava_aurora.games.driver import NOTHING, ScriptedDriver

if TYPE_CHECKING:
    from llava_aurora.generation.predictor import Predictor

GAME = "CarRacing-v3"
FRAMES = 2  # as in the paper
QUESTION = "The last frames of a car race, the newest on the right. What does the driver do?"
_ANSWER = 32  # tokens; an action has about ten


class Round:
    """One round of an open game, which waits for the next action as text."""

    def __init__(self, game: Any, *, seed: int) -> None:
        frame, _ = game.reset(seed=seed)
        self.game, self.seed = game, seed
        self.frames = deque([frame] * FRAMES, maxlen=FRAMES)  # RGB, uint8 96×96×3, the newest at the end
        self.score, self.steps, self.unreadable, self.ended = 0.0, 0, 0, False

    @property
    def frame(self) -> NDArray[np.uint8]:
        """The newest."""
        return self.frames[-1]

    @property
    def seen(self) -> Image.Image:
        """The frames side by side, the newest on the right."""
        return Image.fromarray(np.hstack(list(self.frames)))

    def act(self, text: str) -> None:
        """One step. Where no action can be read from the text, none is taken: the car rolls on."""
        action = read_action(text)
        frame, reward, ended, cut, _ = self.game.step(np.array(NOTHING if action is None else action, np.float32))
        self.frames.append(frame)
        self.score += float(reward)
        self.steps += 1
        self.unreadable += action is None
        self.ended = bool(ended or cut)


Player = Callable[[Sequence[Round]], Sequence[str]]  # what each of these rounds gets next, as text


def check_games() -> None:
    """Raises AuroraError where gymnasium or box2d is missing."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no window
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import Box2D  # noqa: F401
        import gymnasium  # noqa: F401
        import pygame  # noqa: F401
    except ImportError as error:
        raise AuroraError(f"{GAME} needs gymnasium with box2d ({error}); pip install llava_aurora[games]") from error


@contextmanager
def open_game() -> Iterator[Any]:
    """The game, without a window. Raises AuroraError as `check_games`."""
    check_games()
    import gymnasium

    game = gymnasium.make(GAME)
    try:
        yield game
    finally:
        game.close()


def play(player: Player, rounds: Sequence[Round], *, most_steps: int | None = None) -> Iterator[None]:
    """Plays rounds side by side, so that a model answers for all in one batch; yields before each step."""
    while running := [each for each in rounds if not each.ended and (most_steps is None or each.steps < most_steps)]:
        yield
        for each, text in zip(running, player(running), strict=True):
            each.act(text)


class ScriptedPlayer:
    """The scripted driver, one for each round."""

    def __init__(self) -> None:
        self._drivers: dict[int, ScriptedDriver] = {}

    def __call__(self, rounds: Sequence[Round]) -> list[str]:
        """The actions as text."""
        return [action_text(self._drivers.setdefault(each.seed, ScriptedDriver()).act(each.frame)) for each in rounds]


class RandomPlayer:
    """Uniform levels from a round's seed: steering 0 … 20, gas and brake 10 … 20."""

    def __call__(self, rounds: Sequence[Round]) -> list[str]:
        """The actions as text."""
        drawn = [np.random.default_rng((each.seed, each.steps)).integers([0, 10, 10], 21) for each in rounds]
        return [str(levels.tolist()) for levels in drawn]


class ModelPlayer:
    """A model that is asked at every step."""

    def __init__(self, predictor: "Predictor", **settings: Any) -> None:
        self.predictor = predictor
        self.settings = {**settings, "max_new_tokens": _ANSWER}  # of `Predictor.write`

    def __call__(self, rounds: Sequence[Round]) -> list[str]:
        """What it writes."""
        found = self.predictor.write([each.seen for each in rounds], [QUESTION] * len(rounds), **self.settings)
        return [each.text for each in found]
