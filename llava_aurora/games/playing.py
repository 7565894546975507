"""Rounds of CarRacing-v3. The clock is the game's own: it advances by a step once an action is there, however long
the player thinks."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

Player = Callable[[Image.Image, NDArray[np.uint8]], str]  # tiled frames and the newest frame → action as text


@dataclass(frozen=True)
class Step:
    """What was seen, what was written, and what it brought."""

    seen: Image.Image
    frame: NDArray[np.uint8]
    text: str
    readable: bool
    reward: float


@contextmanager
def open_game() -> Iterator[Any]:
    """The game, without a window. Raises AuroraError where gymnasium or box2d is missing."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        import Box2D  # noqa: F401
        import gymnasium
        import pygame  # noqa: F401
    except ImportError as error:
        raise AuroraError(f"{GAME} needs gymnasium with box2d ({error}); pip install llava_aurora[games]") from error
    game = gymnasium.make(GAME)
    try:
        yield game
    finally:
        game.close()


def tiled(frames: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """Frames H×W×3 side by side, the newest on the right."""
    return Image.fromarray(np.hstack(list(frames)))


def play(game: Any, player: Player, *, seed: int, most_steps: int | None = None) -> Iterator[Step]:
    """One round. Where no action can be read from the player's text, none is taken: the car rolls on."""
    frame, _ = game.reset(seed=seed)
    frames = deque([frame] * FRAMES, maxlen=FRAMES)
    done, steps = False, 0
    while not done and (most_steps is None or steps < most_steps):
        seen = tiled(frames)
        text = player(seen, frame)
        action = read_action(text)
        before = frame
        frame, reward, ended, cut, _ = game.step(np.array(NOTHING if action is None else action, np.float32))
        frames.append(frame)
        yield Step(seen, before, text, action is not None, float(reward))
        done, steps = ended or cut, steps + 1


def scripted_player() -> Player:
    """The scripted driver; one player a round."""
    driver = ScriptedDriver()
    return lambda _, frame: action_text(driver.act(frame))


def random_player(seed: int) -> Player:
    """Uniform levels: steering 0 … 20, gas and brake 10 … 20."""
    rng = np.random.default_rng(seed)
    return lambda *_: f"[{rng.integers(21)},{rng.integers(10, 21)},{rng.integers(10, 21)}]"


def model_player(predictor: "Predictor") -> Player:
    """A model that is asked at every step."""
    return lambda seen, _: predictor.write([seen], [QUESTION], max_new_tokens=16)[0].text
