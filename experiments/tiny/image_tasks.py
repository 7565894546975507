"""Questions of the pretraining about a ray-cast scene: what is where, in words or in pixels of the frame.

Nothing of depth, boxes or how many there are.
"""

from collections import Counter

import numpy as np

from llava_aurora.data.sources.scenes.scene import COLORS, SHAPES
from llava_aurora.tasks.forms import LETTERS
from llava_aurora.tasks.marks import draw_points
from tiny.pictures import FRAME, GRID
from tiny.text_tasks import between, in_rows

CELL = FRAME // GRID
EDGE, APART = 3, 7  # pixels between a mark and the frame, and between two marks
THINGS = ("", "floor", "wall", "ceiling", *(f"{color} {shape}" for color in COLORS for shape in SHAPES))
SHADES = ("bright", "red", "green", "blue")
WHOLE = (
    "image row by row",
    "shades row by row",
    "things from left to right",
    "things and places from left to right",
)
TABLES = WHOLE[:2]
SHARES = (0.15, 0.65, 0.05, 0.15)
Turns = list[tuple[str, str, str]]  # ability, question, answer


def mirrored(
    cells: list[str], objects: list[tuple[str, float, float]]
) -> tuple[list[str], list[tuple[str, float, float]]]:
    """What a scene holds in its mirror image."""
    rows = [cells[row * GRID : (row + 1) * GRID][::-1] for row in range(GRID)]
    return [cell for row in rows for cell in row], [(name, FRAME - 1 - x, y) for name, x, y in objects]


def labels(cells: list[str], objects: list[tuple[str, float, float]], marks: dict[int, str]) -> np.ndarray:
    """What the tower itself is taught of each cell.

    What is in its middle, which object's middle lies in it, which mark, and its row and column.

    Returns:
        int64 (5, GRID²): indices of THINGS twice, of LETTERS from 1, and places from 1; 0 where there is nothing.
    """
    found = np.zeros((5, GRID**2), np.int64)
    found[3], found[4] = np.arange(GRID**2) // GRID + 1, np.arange(GRID**2) % GRID + 1
    found[0] = [THINGS.index(cell) for cell in cells]
    for name, x, y in objects:
        found[1, int(y) // CELL * GRID + int(x) // CELL] = THINGS.index(name)
    for cell, letter in marks.items():
        found[2, cell] = 1 + LETTERS.index(letter)
    return found


def _place(x: float, y: float) -> str:
    return f"({int(x)},{int(y)})"


def _somewhere(rng: np.random.Generator, cell: int) -> tuple[int, int]:
    """A place in the middle half of a cell, as pixels."""
    x, y = rng.integers(CELL // 4, CELL - CELL // 4, size=2)
    return cell % GRID * CELL + int(x), cell // GRID * CELL + int(y)


def _apart(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Places anywhere, as pixels, of which no two are closer than a mark is wide."""
    spots: list[tuple[int, int]] = []
    while len(spots) < count:
        x, y = (int(each) for each in rng.integers(EDGE, FRAME - EDGE, size=2))
        if all((x - u) ** 2 + (y - v) ** 2 >= APART**2 for u, v in spots):
            spots.append((x, y))
    return spots


def row_by_row(rng: np.random.Generator, cells: list[str]) -> tuple[str, str]:
    """Of an object its colour: one word a cell; half of the time some places are read in it afterwards."""
    colors = [cell.split()[0] for cell in cells]
    text = _in_rows(rng, colors)
    if rng.random() < 0.5:
        return "Describe the image row by row.", text
    chosen = [int(cell) for cell in rng.choice(GRID**2, int(rng.integers(2, 6)), replace=False)]
    places = [f"{letter} {_place(*_somewhere(rng, i))}" for letter, i in zip(LETTERS, chosen, strict=False)]
    answer = ", ".join(f"{place} {colors[i]}" for place, i in zip(places, chosen, strict=True))
    question = f"Describe the image row by row and read the places {', '.join(places)}."
    return question, f"{text}. The points are {answer}."


def _in_rows(rng: np.random.Generator, entries: list[str]) -> str:
    return in_rows(entries, GRID, labelled=bool(rng.random() < 0.6))


def shades(rng: np.random.Generator, image: np.ndarray) -> tuple[str, str]:
    """How bright or how red, green or blue each cell is on average, in 25 steps of two digits.

    Two thirds of the time some places are read in it afterwards, between the middles of its cells, and the highest is
    named, as in a chain of reasoning.
    """
    number = int(rng.integers(len(SHADES)))
    of_cells = image.reshape(GRID, CELL, GRID, CELL, 3).mean((1, 3))
    field = (of_cells.mean(-1) if number == 0 else of_cells[..., number - 1]).astype(int) * 25 // 256 * 4 + 2
    text = _in_rows(rng, [f"{value:02d}" for value in field.ravel()])
    if rng.random() < 0.6:
        text = f"The {('table', 'image')[rng.integers(2)]} is{'' if text[0].isspace() else ' '}{text}"
    form = rng.integers(3)
    if form == 0:
        return f"How {SHADES[number]} is the image, row by row?", text
    places = rng.integers(FRAME, size=(int(rng.integers(2, 6)), 2))
    found = between(field, places)
    names = [f"{letter} {_place(x, y)}" for letter, (x, y) in zip(LETTERS, places, strict=False)]
    answer = ", ".join(f"{name} {value:02d}" for name, value in zip(names, found, strict=True))
    question = f"How {SHADES[number]} is the image, row by row? Read the points {', '.join(names)}."
    if form == 2:
        named = f"{', '.join(names[:-1])} or {names[-1]}"
        question = f"Which of the points {named} is {SHADES[number]}? Think step by step."
    return question, f"{text}. The points are {answer}. The value is highest at {LETTERS[int(found.argmax())]}."


def at_places(rng: np.random.Generator, cells: list[str]) -> tuple[str, str]:
    """Half of the places show an object, where there are such."""
    of_objects = [i for i, cell in enumerate(cells) if " " in cell]
    chosen = [int(i) for i in rng.choice(GRID**2, int(rng.integers(2, 5)), replace=False)]
    chosen = [int(rng.choice(of_objects)) if of_objects and rng.random() < 0.5 else i for i in chosen]
    places = [f"{letter} {_place(*_somewhere(rng, i))}" for letter, i in zip(LETTERS, chosen, strict=False)]
    answer = ", ".join(f"{place} {cells[i]}" for place, i in zip(places, chosen, strict=True))
    return f"What is at the places {', '.join(places)}?", answer


def left_to_right(objects: list[tuple[str, float, float]]) -> tuple[str, str]:
    return "What is there, from left to right?", ", ".join(name for name, _, _ in objects)


def what_and_where(objects: list[tuple[str, float, float]]) -> tuple[str, str]:
    return "Name what you see and the places.", ", ".join(f"{name} {_place(x, y)}" for name, x, y in objects)


def where(name: str, objects: list[tuple[str, float, float]]) -> tuple[str, str]:
    """All objects of a name, from left to right."""
    return f"Where are the {name}s?", ", ".join(_place(x, y) for each, x, y in objects if each == name)


def color_of(rng: np.random.Generator, objects: list[tuple[str, float, float]]) -> tuple[str, str] | None:
    shapes = Counter(name.split()[1] for name, _, _ in objects)
    once = [name for name, _, _ in objects if shapes[name.split()[1]] == 1]
    if not once:
        return None
    color, shape = once[int(rng.integers(len(once)))].split()
    return f"What color is the {shape}?", color


def relation(rng: np.random.Generator, objects: list[tuple[str, float, float]]) -> tuple[str, str] | None:
    """Of two things that there are once each, at least half a cell apart."""
    names = Counter(name for name, _, _ in objects)
    once = [each for each in objects if names[each[0]] == 1]
    if len(once) < 2:
        return None
    (one, x, y), (other, u, v) = (once[i] for i in rng.choice(len(once), 2, replace=False))
    if rng.random() < 0.5:
        question, answer = f"Is the {one} left or right of the {other}?", "left" if x < u else "right"
        return (question, answer) if abs(x - u) >= CELL / 2 else None
    question, answer = f"Is the {one} above or below the {other}?", "above" if y < v else "below"
    return (question, answer) if abs(y - v) >= CELL / 2 else None


def about_scene(
    rng: np.random.Generator, image: np.ndarray, cells: list[str], objects: list[tuple[str, float, float]]
) -> Turns:
    """Turns about an unmarked image, in a random order."""
    names = list(dict.fromkeys(name for name, _, _ in objects))
    whole = (
        row_by_row(rng, cells),
        shades(rng, image),
        left_to_right(objects),
        what_and_where(objects),
    )
    number = rng.choice(len(WHOLE), p=SHARES)
    turns = [
        ("what is at places", at_places(rng, cells)),
        ("color of a thing", color_of(rng, objects)),
        ("relation of two things", relation(rng, objects)),
        (WHOLE[number], whole[number]),
        *(("where are things", where(names[i], objects)) for i in rng.permutation(len(names))[:3]),
    ]
    found = [(ability, *turn) for ability, turn in turns if turn is not None]
    order = [found[i] for i in rng.permutation(len(found))]
    if WHOLE[number] in TABLES and rng.random() < 0.5:
        order.sort(key=lambda turn: turn[0] != WHOLE[number])
    return order


def marked(
    rng: np.random.Generator, image: np.ndarray, cells: list[str], objects: list[tuple[str, float, float]]
) -> tuple[np.ndarray, Turns, dict[int, str]]:
    """An image with two to five lettered marks, turns about them, and the letters by cell."""
    count = int(rng.integers(2, 6))
    anywhere = rng.random() < 0.6
    if anywhere:
        spots = _apart(rng, count)
        chosen = [y // CELL * GRID + x // CELL for x, y in spots]
    else:
        chosen = rng.choice(GRID**2, count, replace=False).tolist()
        spots = [_somewhere(rng, i) for i in chosen]
    names = {letter: cells[i] for letter, i in zip(LETTERS, chosen, strict=False)}
    letters = list(names)
    order = [letters[i] for i in rng.permutation(count)]
    places = dict(zip(letters, spots, strict=True))
    drawn = draw_points(image, [places[letter] for letter in order], order)
    turns = [
        (
            "where marks are",
            f"Where are {', '.join(letters)}?",
            ", ".join(f"{letter} {_place(*places[letter])}" for letter in letters),
        )
    ]
    if not anywhere:  # what is known of a cell is true of its middle
        turns += [("what is at a mark", f"What is at {letter}?", names[letter]) for letter in order[:3]]
    axis, last = rng.integers(2), rng.integers(2)
    ends = sorted(letters, key=lambda letter: places[letter][axis], reverse=bool(last))
    if places[ends[0]][axis] != places[ends[1]][axis]:
        word = (("leftmost", "rightmost"), ("topmost", "lowest"))[axis][last]
        turns.append(("which mark stands where", f"Which letter is the {word}?", ends[0]))
    return drawn, [turns[i] for i in rng.permutation(len(turns))], dict(zip(chosen, letters, strict=True))
