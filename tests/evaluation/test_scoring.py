"""What a text answers."""

import pytest

from llava_aurora.data.prompts import TEMPLATES
from llava_aurora.evaluation.scoring import (
    NUMBER_WORDS,
    named_number,
    stated,
    stated_answer,
    stated_choice,
    stated_letter,
    stated_number,
)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(B)", "B"),
        ("( B )", "B"),
        ("B", "B"),
        ("B.", "B"),
        ("Point B", "B"),
        ("**B**", "B"),
        ("Not (A). The answer is (C).", "C"),
        ("The answer is C", "C"),
        ("answer: D", "D"),
        ("Answer: **(D)**", "D"),
        ("the answer is point B because it is bright", "B"),
        ("The answer is A.", "A"),
        ("The answer is A point that I cannot see.", None),
        ("The answer is not A", None),
        ("Point A is farther than the other, so the answer is B", "B"),
        ("Point A is farther. The correct answer is B, not A.", "B"),
        ("The answer is (A). No, the answer is (B).", "B"),
        ("The answer is (B). (A) is farther away.", "B"),
        ("Point (A) is nearer. (B) is not.", "A"),
        ("Point B is closest", "B"),
        ("A is far away. So point C is the nearest to the camera.", "C"),
        ("The value is highest at C, so it is closest. The answer is (C).", "C"),
        ("Point A is farther", None),
        ("I see (A) and (B). It is not (A)", "B"),
        ("Which of the marked points A, B or C is closest to the camera? Think step by step.", None),
        ("Which of the points A (<PIXEL_1>,<PIXEL_2>) or B (<PIXEL_3>,<PIXEL_4>) is closest?", None),
        ("Which point is closest, (A) or (B)?", None),
        ("Which point is closest, (A) or (B)? (A)", "A"),
        ("A, B or C is closest", None),
        ("The points are A (<PIXEL_1>,<PIXEL_2>). The answer is (A).", "A"),
        ("The points are A (<PIXEL_1>,<PIXEL_2>), B (<PIXEL_1>,<PIXEL_2>).", None),
        ("<DEPTH_START><DEPTH_1><DEPTH_END>", None),
        ("a", None),
        ("7", None),
        ("It is far away.\nB", "B"),
        ("", None),
        ("   \n", None),
    ],
)
def test_letters(text, letter):
    assert stated_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", "3"),
        ("(3)", None),
        ("The answer is (3).", "3"),
        ("There are 2. The answer is 2.", "2"),
        ("1. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)\nSo there are 1. The answer is 1.", "1"),
        ("1. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)\n2. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)", None),
        ("1. (10,20,30,40)\n2. (50,60,70,80)\n", None),
        ("1. [10, 20, 30, 40]\nThere is one.", "1"),
        ("at (10,20,30,40)", None),
        ("at <PIXEL_7>", None),
        ("about 2.5", None),
        ("between 3-4", None),
        ("1,000", None),
        ("based on the boxes there are seven", "7"),
        ("Based on the boxes, there are seven cups on 2 tables.", "7"),
        ("I count twelve cups.", "12"),
        ("A total of 4 cups.", "4"),
        ("seven", "7"),
        ("Seven cups.", "7"),
        ("Twenty", "20"),
        ("twenty-one", None),
        ("There are no red cubes in the image.", "0"),
        ("none", "0"),
        ("The answer is zero.", "0"),
        ("answer: three", "3"),
        ("the nearest one is red", None),
        ("How many of the 3 red cubes are there?", None),
        ("How many red cubes are there? 2", "2"),
        ("The answer is 2. There are 3 tables.", "2"),
        ("007", "7"),
        ("B", None),
        ("", None),
    ],
)
def test_numbers(text, number):
    assert stated_number(text) == number


@pytest.mark.parametrize("number", range(21))
def test_every_number_word_up_to_twenty_is_known(number):
    word = NUMBER_WORDS[number]
    assert stated_number(f"The answer is {word}.") == str(number)
    assert stated_number(word.capitalize()) == str(number)


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
        ("", None),
    ],
)
def test_choices(text, choice):
    assert stated_choice(text, ["lamp", "table", "coffee table"]) == choice


@pytest.mark.parametrize("task", [task for task in TEMPLATES if "chain" in task or "direct" in task])
def test_every_answer_of_the_records_is_understood(task):
    values = {
        "map": "<DEPTH_START><DEPTH_3><DEPTH_END>",
        "points": "A (<PIXEL_1>,<PIXEL_2>), B (<PIXEL_3>,<PIXEL_4>)",
        "answer": "B",
        "letters": "A or B",
        "thing": "cup",
        "things": "cups",
        "boxes": "1. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)",
        "count": 7,
    }
    for template in TEMPLATES[task]["answers"]:
        assert stated_answer(template.format(**values), task=task) == ("7" if task.startswith("counting") else "B")
    for template in TEMPLATES[task]["questions"]:
        question = template.format(**{**values, "count": ""})
        assert stated_answer(question, task=task) is None


@pytest.mark.parametrize(
    ("option", "number"),
    [("3", "3"), ("Three", "3"), ("none.", "0"), ("03", "3"), ("more than 3", None), ("3 cups", None), ("", None)],
)
def test_an_option_is_a_number_as_a_whole_or_none(option, number):
    assert named_number(option) == number


def test_the_kind_decides_what_is_looked_for():
    text = "(A) the lamp, 3"
    assert stated(text, kind="number") == stated_answer(text, task="counting_direct") == "3"
    assert stated(text, kind="letter") == stated_answer(text, task="depth_direct") == "A"
    assert stated(text, kind="choice", choices=["lamp", "cup"]) == "lamp"
