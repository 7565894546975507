"""What a text answers: the same whichever letter or number is the right one."""

import re
from string import ascii_uppercase

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llava_aurora.tasks.answers import (
    NUMBER_WORDS,
    named_number,
    stated,
    stated_choice,
    stated_letter,
    stated_number,
)
from llava_aurora.tasks.registry import tasks

# X is the letter or number that is stated; Y and Z are others.
LETTER_FORMS = r"""
    X | X. | X) | X: | (X) | ( X ) | **X** | "X" | Point X | option (X) | It is far away.\nX | X\n\nIt is low.
    The answer is X | answer: X | Answer: **(X)** | The correct option is (X). | \boxed{X}
    the answer is point X, as it is low | The answer is X because it is lower in the image.
    The answer is X and Y is farther. | The answer: X, since it is low | Not (Y). The answer is (X).
    Point Y is farther, so the answer is X | The correct answer is X, not Y. | The answer is (Y). No, the answer is (X).
    The answer is (X). (Y) is farther away. | X: it is lower than Y. | X, it is low | Point (X) is nearer. (Y) is not.
    Point X is closest | X is the point closest to the camera. | X seems to be the nearest
    Based on the image, point X is closer. | X is closer to the camera than Y. | The closest point is X. | Nearest: X
    The point closest to the camera is (X) | Y is far away. So point X is the nearest to the camera.
    Between X and Y, X is closer. | Of Y, X and Z, X appears to be closest. | X is closest. Y is closer than Z.
    Y is farther and X is closest | I'd say X. | Which point is closest, (X) or (Y)? (X)
    The points are X (<PIXEL_1>,<PIXEL_2>), Y (3,4). The answer is (X). | X because it is low
    Option X is correct. Y is not. | X is the right answer | So X. | Thus, (X). | X - it is the lowest
"""
NO_LETTER_FORMS = r"""
    The answer is X point that cannot be seen. | The answer is not X | Point X is farther
    I see (X) and (Y). It is not (X)
    Which of the marked points X, Y or Z is closest to the camera? Think step by step. | X, Y or Z is closest
    X and Y are closest | Which of the points X (<PIXEL_1>,<PIXEL_2>) or Y (<PIXEL_3>,<PIXEL_4>) is closest?
    Say which of the points X, Y is nearest. | The points are X (<PIXEL_1>,<PIXEL_2>), Y (<PIXEL_1>,<PIXEL_2>).
    X (1,2) 57, Y (3,4) 30 | X: 57, Y: 30 | X) lamp Y) cup | X cup is closest. | If X is closest, then
    I do not think that X is closest. | X is closer to Y than to Z | (X) is far. (Y) is far.
    X is not correct | X is right of Y. | Is X correct?
"""
NUMBER_FORMS = r"""
    X | (X) | X. | X cups | There are X. | There are X cups. | The answer is X. | answer: X | The answer is (X).
    \boxed{X} | There are X cups. There are no other cups in the image.
    There is one cup and one mug, so X cups in total. | I count X cups. | I can see X red cups on the table.
    There are about X cups. | There's X cups | A total of X cups. | The total is X.
    The number of red cups in the image is X. | Based on the boxes, there are X cups on two tables.
    How many cups are there? X | The answer is X. There are 30 tables. | There is one cup there. The answer is X.
    There are exactly X cups. There is one more mug. | X cups stand on the table | I see a cup.\nX
    No, there are X cups. | So X. | 1. (1,2,3,4)\nThere are X.
    There appear to be X cups. | There are X cups, not 30.
"""
NO_NUMBER_FORMS = r"""
    There are X red cups and there are X blue cups. | between X-X | more than X | at least X cups | twenty-X
    X hundred cups | How many of the X cups are there? | Are there X cups? | There are not X cups | If there are X cups
    at <PIXEL_X> | X of the cups are red and X are blue | One cup stands on the left and X on the right. | X more cups
    There are X or 30 cups. | There are X to 30 cups. | I see 30 or X cups.
"""
NO_DIGITS_FORMS = r"""
    at (X,X,X,X) | 1. (X,X,X,X)\n2. (X,X,X,X) | at [X, X] | about X.5 | X,000 | X. First, look at the image. | X%
"""


def forms(table, **names):
    lines = [form.strip() for line in table.strip().splitlines() for form in line.split(" | ")]
    return [re.sub(r"\b[XYZ]\b|(?<=_)X", lambda name: names[name[0]], form.replace("\\n", "\n")) for form in lines]


def read(parse, table, **names):
    """What is read in each form of a table."""
    return {form: parse(form) for form in forms(table, **names)}


@pytest.mark.parametrize("letter", ascii_uppercase)
def test_every_letter_is_read_alike(letter):
    place = ascii_uppercase.index(letter)
    names = {"X": letter, "Y": ascii_uppercase[place - 1], "Z": ascii_uppercase[place - 2]}
    assert {form: said for form, said in read(stated_letter, LETTER_FORMS, **names).items() if said != letter} == {}
    assert {form: said for form, said in read(stated_letter, NO_LETTER_FORMS, **names).items() if said} == {}


@pytest.mark.parametrize("number", range(21))
def test_every_number_is_read_alike_in_digits_and_in_words(number):
    for spelled in (str(number), f"0{number}", NUMBER_WORDS[number], NUMBER_WORDS[number].upper()):
        found = read(stated_number, NUMBER_FORMS, X=spelled)
        assert {form: said for form, said in found.items() if said != str(number)} == {}
        tables = [NO_NUMBER_FORMS] if number else []
        tables += [NO_DIGITS_FORMS] if spelled.isdigit() else []
        for table in tables:
            assert {form: said for form, said in read(stated_number, table, X=spelled).items() if said} == {}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("I count 1, 2, 3 cups.", "3"),
        ("one, two, and three", "3"),
        ("2 red cups + 1 blue cup = 3 cups", "3"),
        ("There are three cups, one red and two blue.", "3"),
        ("I see 3 cups: one red and two blue.", "3"),
        ("No cups are visible.", "0"),
        ("There are no red cubes in the image.", "0"),
        ("There are not any cups.", "0"),
        ("There aren't any cups.", "0"),
        ("I can't see any cups.", "0"),
        ("none", "0"),
        ("There is a single cup.", "1"),
        ("1. (10,20,30,40)\nThere is one.", "1"),
        ("There are no cups on the table. I see 2 plates.", None),
        ("2 cups, 3 plates", None),
        ("the nearest one is red", None),
        ("no idea", None),
        ("B", None),
        ("", None),
    ],
)
def test_counts_none_and_sums(text, number):
    assert stated_number(text) == number


_WORDS = sorted(set(re.findall(r"[a-z]+|[.,:;()?\n]", LETTER_FORMS + NO_LETTER_FORMS)))


@settings(max_examples=300)
@given(
    parts=st.lists(st.sampled_from(_WORDS) | st.sampled_from(ascii_uppercase), max_size=15),
    renamed=st.permutations(ascii_uppercase),
)
@example(parts=["the", "answer", "is", "A", "because"], renamed=ascii_uppercase[::-1])
def test_renaming_the_letters_renames_the_answer(parts, renamed):
    names = {**dict(zip(ascii_uppercase, renamed, strict=True)), None: None}
    assert stated_letter(" ".join(names.get(part, part) for part in parts)) == names[stated_letter(" ".join(parts))]


@pytest.mark.parametrize("text", ["", "   \n", "a", "7", "<DEPTH_START><DEPTH_1><DEPTH_END>"])
def test_what_states_no_letter(text):
    assert stated_letter(text) is None


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("lamp", "lamp"),
        ("The Lamp.", "lamp"),
        ("The coffee table is closer to the camera than the lamp.", "coffee table"),
        ("table", "table"),
        ("The answer is the table, not the lamp.", "table"),
        ("The lamp (highlighted by a red box) is closer than the table.", "lamp"),
        ("the lamp and the table", None),
        ("Which is closer, the lamp or the table?", None),
        ("Which is closer, the lamp or the table? The table", "table"),
        ("lamps", None),
        ("The lamp is farther away.", None),
        ("The closest object is the lamp.", "lamp"),
        ("", None),
    ],
)
def test_choices(text, choice):
    assert stated_choice(text, ["lamp", "table", "coffee table"]) == choice


@pytest.mark.parametrize(
    "task", [task for task in tasks().values() if task.answer not in (None, "choice")], ids=lambda task: task.name
)
def test_every_answer_of_the_records_is_understood(task):
    values = {
        "map": "<DEPTH_START><DEPTH_3><DEPTH_END>",
        "points": "A (<PIXEL_1>,<PIXEL_2>), B (<PIXEL_3>,<PIXEL_4>)",
        "answer": "B",
        "letters": "A or B",
        "thing": "cup",
        "things": "cups",
        "boxes": "1. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)",
        "masks": "1. <MASK_START><MASK_3><MASK_END>",
        "region": "(<PIXEL_1>,<PIXEL_2>)",
        "count": 7,
    }
    for template in task.wording.answers:
        assert task.stated(template.format(**values)) == {"number": "7", "letter": "B"}[task.answer]
    for template in task.wording.questions:
        assert task.stated(template.format(**{**values, "count": ""})) is None


@pytest.mark.parametrize(
    ("option", "number"),
    [("3", "3"), ("Three", "3"), ("none.", "0"), ("03", "3"), ("more than 3", None), ("3 cups", None), ("", None)],
)
def test_an_option_is_a_number_as_a_whole_or_none(option, number):
    assert named_number(option) == number


def test_the_kind_decides_what_is_looked_for():
    text = "(A) the lamp, 3"
    assert stated(text, kind="number") == "3"
    assert stated(text, kind="letter") == "A"
    assert stated(text, kind="choice", choices=["lamp", "cup"]) == "lamp"
