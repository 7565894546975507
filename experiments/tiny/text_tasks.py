"""Questions of the pretraining that need no image: copying, looking up, comparing, counting entries of lists.

A task is a function of a random generator and a level in [0, 1], how long its lists and tables may be; it returns
turns, pairs of question and answer.
"""

from collections.abc import Callable, Sequence

import numpy as np

from llava_aurora.tasks.forms import LETTERS
from tiny.pictures import FRAME, GRID
from tiny.words import WORDS

Turns = list[tuple[str, str]]
SIDE = GRID


def _pick(rng: np.random.Generator, items: Sequence[str], count: int) -> list[str]:
    return [items[i] for i in rng.integers(len(items), size=count)]


def _distinct(rng: np.random.Generator, items: Sequence[str], count: int) -> list[str]:
    return [items[i] for i in rng.choice(len(items), count, replace=False)]


def _numbers(rng: np.random.Generator, count: int) -> list[str]:
    return [f"{i:02d}" for i in rng.choice(100, count, replace=False)]


def _length(rng: np.random.Generator, level: float, low: int, high: int) -> int:
    return int(rng.integers(low, round(low + level * (high - low)) + 1))


def _letters(rng: np.random.Generator, count: int) -> list[str]:
    return sorted(LETTERS[:count]) if rng.random() < 0.7 else sorted(_distinct(rng, LETTERS[:8], count))


def _places(rng: np.random.Generator, count: int) -> list[str]:
    return [f"({x},{y})" for x, y in rng.integers(FRAME, size=(count, 2))]


def copy(rng: np.random.Generator, level: float) -> Turns:
    """Long from the beginning: many tokens that stand in the text already are what copying is learned from."""
    form = rng.integers(5)
    if form < 2:
        text = " ".join(_pick(rng, WORDS, int(rng.integers(8, 41))))
    elif form == 2:
        text = " ".join(_numbers(rng, int(rng.integers(2, 20))))
    else:
        count = int(rng.integers(2, 6))
        values = _pick(rng, WORDS, count) if form == 3 else _places(rng, count)
        text = ", ".join(f"{letter} {value}" for letter, value in zip(_letters(rng, count), values, strict=True))
    return [(f"{('Repeat this', 'Say it again')[rng.integers(2)]}: {text}.", text)]


def entry(rng: np.random.Generator, level: float) -> Turns:
    count = int(rng.integers(3, 10))
    words = _pick(rng, WORDS, count) if rng.random() < 0.8 else _numbers(rng, count)
    asked = rng.permutation(count)[:5].tolist()
    which = " ".join(str(each + 1) for each in asked)
    return [(f"The list is {' '.join(words)}. What are the entries {which}?", " ".join(words[each] for each in asked))]


def in_rows(entries: Sequence[str], side: int, *, labelled: bool) -> str:
    """A table row by row, without marks between the rows or with the coordinate of its middle before each."""
    rows = [" ".join(entries[row * side : (row + 1) * side]) for row in range(side)]
    if not labelled:
        return " ".join(rows)
    return "".join(f"\n{(2 * row + 1) * FRAME // (2 * side)} {entries}" for row, entries in enumerate(rows))


def table(rng: np.random.Generator, level: float) -> Turns:
    """Entries at places, given in pixels of a square of side FRAME that the table fills.

    Words are read at the nearest entry; numbers, which change smoothly, between the four around.
    """
    side = SIDE if rng.random() < level else int(rng.integers(2, SIDE))
    count = int(rng.integers(3, 7))
    places = rng.integers(FRAME, size=(count, 2))
    if rng.random() < 0.5:
        entries = _pick(rng, _distinct(rng, WORDS, int(rng.integers(4, 40))), side**2)
        cells = places * side // FRAME
        found = [entries[y * side + x] for x, y in cells]
    else:
        field = smooth(rng, side)
        entries = [f"{value:02d}" for value in field.ravel()]
        found = [f"{value:02d}" for value in between(field, places)]
    names = [f"{letter} ({x},{y})" for letter, (x, y) in zip(_letters(rng, count), places, strict=True)]
    text = in_rows(entries, side, labelled=bool(rng.random() < 0.5))
    answer = ", ".join(f"{name} {value}" for name, value in zip(names, found, strict=True))
    form = rng.integers(3)
    if form == 0:
        return [(f"What is at the places {', '.join(names)}? The table is {text}.", f"The points are {answer}.")]
    if form == 1:
        return [(f"The table is {text}. What is at the places {', '.join(names)}?", f"The points are {answer}.")]
    question = f"Write down the table and read the places {', '.join(names)}. The table is {text}."
    return [(question, f"The table is {text}. The points are {answer}.")]


def smooth(rng: np.random.Generator, side: int) -> np.ndarray:
    """Whole numbers in [0, 100): a slope, a bump or two, some noise. int64 (side, side)."""
    y, x = np.mgrid[:side, :side] / side
    turn = rng.uniform(0, 2 * np.pi)
    field = rng.uniform(0, 2) * (np.cos(turn) * x + np.sin(turn) * y)
    for _ in range(rng.integers(0, 4)):
        (u, v), wide = rng.random(2), rng.uniform(0.1, 0.3)
        field += rng.uniform(-1, 1) * (np.hypot(x - u, y - v) < wide)
    field += rng.normal(0, 0.05, field.shape)
    low, high = rng.uniform(0, 40), rng.uniform(60, 99)
    return np.rint(low + (high - low) * (field - field.min()) / np.ptp(field)).astype(int)


def between(field: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The values of a table at places (N, 2) in pixels, bilinear between the middles of its entries."""
    side = len(field)
    at = np.clip((places + 0.5) * side / FRAME - 0.5, 0, side - 1)
    first = np.minimum(at.astype(int), side - 2)
    (x, y), (u, v) = first.T, (at - first).T
    rows = [field[y + down, x] * (1 - u) + field[y + down, x + 1] * u for down in (0, 1)]
    return np.rint(rows[0] * (1 - v) + rows[1] * v).astype(int)


def compare(rng: np.random.Generator, level: float) -> Turns:
    turns = []
    for _ in range(3):
        one, other = _numbers(rng, 2)
        larger = rng.random() < 0.7
        question = f"Which is {'larger' if larger else 'smaller'}, {one} or {other}?"
        turns.append((question, (max if larger else min)(one, other)))
    return turns


def largest(rng: np.random.Generator, level: float) -> Turns:
    """Which of some numbers is the largest; half of the time all are put in order first."""
    count = int(rng.integers(2, 6))
    letters, numbers = _letters(rng, count), _numbers(rng, count)
    places = _places(rng, count)
    names = letters if rng.random() < 0.7 else [" ".join(pair) for pair in zip(letters, places, strict=True)]
    text = ", ".join(f"{name} {number}" for name, number in zip(names, numbers, strict=True))
    order = [letters[i] for i in np.argsort(numbers)[::-1]]
    best = f"The value is highest at {order[0]}. ({order[0]})"
    if rng.random() < 0.5:
        return [(f"The values are {text}. Which number is the largest?", best)]
    return [(f"The values are {text}. What is larger than what?", f"{', '.join(order)}. {best}")]


def count_entries(rng: np.random.Generator, level: float) -> Turns:
    count = _length(rng, level, 1, 9)
    words = _pick(rng, WORDS, count)
    form = rng.integers(3)
    if form == 0:
        return [(f"The list is {' '.join(words)}. How many entries does the list have?", str(count))]
    numbered = "\n".join(f"{number}. {word}" for number, word in enumerate(words, start=1))
    if form == 1:
        return [(f"Number the words {' '.join(words)}.", f"The words are\n{numbered}\nSo there are {count}.")]
    return [(f"The words are\n{numbered}\nHow many entries does the list have?", str(count))]


TEXT_TASKS: dict[str, Callable[[np.random.Generator, float], Turns]] = {
    "copy": copy,
    "entry": entry,
    "table": table,
    "compare": compare,
    "largest": largest,
    "count_entries": count_entries,
}
_ALL = {"copy": 1.5, "entry": 1.0, "table": 12.0, "compare": 0.6, "largest": 2.0, "count_entries": 0.3}
# Which tasks are drawn how often from which step on. A little of everything is never learned: copying and looking up
# take two layers that are of no use one without the other. Once they are there, everything else is quick.
PHASES: dict[int, dict[str, float]] = {0: {**_ALL, "copy": 20.0}, 2000: _ALL}


def weights(step: int) -> dict[str, float]:
    """How often each task is drawn at a step."""
    return next(drawn for begun, drawn in reversed(PHASES.items()) if step >= begun)


def level(name: str, step: int, steps: int) -> float:
    """How long the lists of a task may be, in [0, 1]; tables come later."""
    through = step / steps
    return min(1.0, max(0.0, 4 * (through - 0.2))) if name == "table" else min(1.0, 0.15 + 5 * through)
