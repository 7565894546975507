"""Questions of the pretraining that need no image: copying, looking up, comparing, counting entries of lists.

A task is a function of a random generator and a level in [0, 1], how long its lists and tables may be; it returns
turns, pairs of question and answer.
"""

from collections.abc import Callable, Sequence

import numpy as np

from llava_aurora.tasks.forms import LETTERS
from tiny.words import WORDS

Turns = list[tuple[str, str]]
SIDE = 7


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


def _places(rng: np.random.Generator, count: int, side: int = 99) -> list[str]:
    return [f"({x},{y})" for x, y in rng.integers(side, size=(count, 2))]


def copy(rng: np.random.Generator, level: float) -> Turns:
    """Long from the beginning: many tokens that stand in the text already are what copying is learned from."""
    form = rng.integers(5)
    if form < 2:
        text = " ".join(_pick(rng, WORDS, int(rng.integers(8, 41))))
    elif form == 2:
        text = " ".join(_numbers(rng, int(rng.integers(2, 8))))
    else:
        count = int(rng.integers(2, 6))
        values = _pick(rng, WORDS, count) if form == 3 else _places(rng, count)
        text = ", ".join(f"{letter} {value}" for letter, value in zip(_letters(rng, count), values, strict=True))
    return [(f"{('Repeat this', 'Say it again')[rng.integers(2)]}: {text}.", text)]


def stands_for(rng: np.random.Generator, level: float) -> Turns:
    count = int(rng.integers(2, 10))
    values = _pick(rng, WORDS, count) if rng.random() < 0.7 else _numbers(rng, count)
    keys = _distinct(rng, WORDS, count) if rng.random() < 0.5 else list(LETTERS[:count])
    text = ", ".join(f"{key} {value}" for key, value in zip(keys, values, strict=True))
    asked = rng.permutation(count)[:4].tolist()
    question = f"The list is {text}. What stands for {', '.join(keys[each] for each in asked)}?"
    return [(question, ", ".join(values[each] for each in asked))]


def entry(rng: np.random.Generator, level: float) -> Turns:
    count = int(rng.integers(3, 10))
    words = _pick(rng, WORDS, count) if rng.random() < 0.8 else _numbers(rng, count)
    asked = rng.permutation(count)[:5].tolist()
    which = " ".join(str(each + 1) for each in asked)
    return [(f"The list is {' '.join(words)}. What are the entries {which}?", " ".join(words[each] for each in asked))]


def table(rng: np.random.Generator, level: float) -> Turns:
    """Entries by column and row, counted from 0; rows of seven stand behind one another without a mark."""
    side = SIDE if rng.random() < level - 0.3 else _length(rng, level, 2, 6)
    words = _pick(rng, _distinct(rng, WORDS, int(rng.integers(4, 40))), side**2)
    rows = [" ".join(words[row * side : (row + 1) * side]) for row in range(side)]
    text = " ".join(rows) if side == SIDE else " / ".join(rows)
    cells = rng.choice(side**2, min(side**2, int(rng.integers(3, 6))), replace=False).tolist()
    letters = _letters(rng, len(cells))
    places = [f"{letter} ({cell % side},{cell // side})" for letter, cell in zip(letters, cells, strict=True)]
    answer = ", ".join(f"{place} {words[cell]}" for place, cell in zip(places, cells, strict=True))
    if rng.random() < 0.5:
        return [(f"What is at the places {', '.join(places)}? The table is {text}.", f"The entries are {answer}.")]
    return [(f"The table is {text}. What is at the places {', '.join(places)}?", f"The entries are {answer}.")]


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
    "stands_for": stands_for,
    "entry": entry,
    "table": table,
    "compare": compare,
    "largest": largest,
    "count_entries": count_entries,
}
_ALL = {
    "copy": 1.5,
    "stands_for": 1.5,
    "entry": 1.5,
    "table": 3.0,
    "compare": 0.3,
    "largest": 0.5,
    "count_entries": 0.4,
}
# Which tasks are drawn how often from which step on. A little of everything is never learned: copying and looking up
# take two layers that are of no use one without the other. Once they are there, everything else is quick.
PHASES: dict[int, dict[str, float]] = {
    0: {**_ALL, "copy": 2.0},
    2000: {**_ALL, "copy": 15.0},
    2750: _ALL,
    3750: {**_ALL, "stands_for": 8.0, "entry": 8.0, "table": 16.0},
    5250: {**_ALL, "table": 8.0, "largest": 10.0, "compare": 3.0, "stands_for": 3.0},
    6750: {**_ALL, "table": 16.0},
    7900: _ALL,
}


def weights(step: int) -> dict[str, float]:
    """How often each task is drawn at a step."""
    return next(drawn for begun, drawn in reversed(PHASES.items()) if step >= begun)


def level(name: str, step: int, steps: int) -> float:
    """How long the lists of a task may be, in [0, 1]; tables, which come late, grow until late."""
    through = step / steps
    return min(1.0, max(0.0, 4.6 * (through - 0.4))) if name == "table" else min(1.0, 0.15 + 5 * through)
