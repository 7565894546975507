"""The words of the pretraining, and the text that its tokenizer is trained on."""

import re
from collections.abc import Iterator
from itertools import product

from llava_aurora.data.sources.scenes.scene import COLORS, SHAPES
from llava_aurora.tasks.forms import LETTERS
from llava_aurora.tasks.registry import tasks
from tiny.pictures import FRAME

# Three letters each, without meaning: what is copied, listed and looked up must be read, for nothing can be guessed.
WORDS: tuple[str, ...] = tuple(map("".join, product("bdgklmnrvz", "aeiou", "lmnr")))
# A coordinate is one piece, and a value of two digits is: what they stand for is then one embedding, from which a token
# for the same number can start.
VALUES: tuple[str, ...] = tuple(f"{value:02d}" for value in range(100))
PIECES: tuple[str, ...] = (
    *(f"▁{word}" for word in (*WORDS, *VALUES)),
    *(str(place) for place in range(10, FRAME)),  # one digit is a piece in any case
)


def corpus() -> Iterator[str]:
    """Wording of the tasks here and of the package's own, so that its questions are few tokens; letters and digits."""
    wordings = [wording for task in tasks().values() for wording in task.wordings.values()]
    for text in (text for wording in wordings for text in (*wording.questions, *wording.answers)):
        yield from [re.sub(r"\{\w+\}", "", text)] * 40
    things = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    for thing in things:
        yield from [
            f"What is at A? a {thing}, the {thing}s are left of the {thing}, wall floor ceiling, above or below it"
        ] * 20
    yield from [f"Where is {letter}? ({letter})" for letter in LETTERS for _ in range(5)]
    yield from ["".join(map(chr, range(33, 127)))] * 3
    for text in TEMPLATES:
        yield from [text] * 60


TEMPLATES = (
    "Repeat this: . Say it again. The list is . What is entry number ? What are the entries ?",
    "The table is . The rows are . What is in row , column ? What is at the places ? The entries are .",
    "Write down the table and read the places . Describe the image row by row and read the places .",
    "Which is larger, or ? Which number is the largest? The value is highest at . The value is lowest at ."
    " The answer is .",
    "How many entries does the list have? How often does the word stand in the list? Number the words. So there are .",
    "What stands for ? What color is the ? Describe the image row by row. What is there, from left to right?",
    "Where is the letter ? Which letter is the leftmost, the rightmost, the topmost, the lowest? yes no left right"
    " above below",
    "Is the left or right of the ? Is it above or below? Name what you see at the places . There are no in the image.",
)
