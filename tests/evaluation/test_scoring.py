"""What a text answers."""

import pytest

from llava_aurora.evaluation.scoring import stated_answer, stated_letter, stated_number


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(B)", "B"),
        ("B", "B"),
        ("B.", "B"),
        ("Not (A). The answer is (C).", "C"),
        ("Point B is closest", None),
        ("The points are A (<PIXEL_1>,<PIXEL_2>). The answer is (A).", "A"),
        ("", None),
    ],
)
def test_letters(text, letter):
    assert stated_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", "3"),
        ("There are 2. The answer is 2.", "2"),
        ("1. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)\nSo there are 1. The answer is 1.", "1"),
        ("at (10,20,30,40)", None),
        ("about 2.5", None),
        ("none", None),
        ("007", "7"),
    ],
)
def test_numbers(text, number):
    assert stated_number(text) == number


def test_the_task_decides_what_is_looked_for():
    assert stated_answer("(A) 3", task="counting_direct") == "3"
    assert stated_answer("(A) 3", task="depth_direct") == "A"
