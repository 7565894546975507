"""The registry of tasks, and the forms of their fields."""

import re

import pytest
from written import write_record

from llava_aurora.tasks import forms
from llava_aurora.tasks.registry import (
    OTHER,
    families,
    family_of,
    register_family,
    task_name,
    task_names,
    task_of,
    tasks,
)
from llava_aurora.tasks.task import KINDS, TaskFamily
from llava_aurora.tokens.vocabulary import by_kind, color_family, mask_family


def test_every_task_is_of_a_family_and_every_kind_is_there():
    assert {task.kind for task in tasks().values()} == set(KINDS)
    assert (*tasks(), OTHER) == task_names()
    assert [family.name for family in families()] == [
        "depth",
        "counting",
        "masks",
        "look_again",
        "pixels",
        "pixel_masks",
    ]
    assert all(task in family_of(task).tasks for task in tasks().values())


@pytest.mark.parametrize("boxes", [[], [(1, 2, 30, 40)]], ids=["none", "one"])
@pytest.mark.parametrize("task", ["box_generation", "counting_chain", "counting_direct"])
def test_what_the_writer_writes_is_recognised(writer, task, boxes):
    record = write_record(writer, task, boxes=boxes)
    assert task_name(record) == task
    assert task_of(record) is tasks()[task]


@pytest.mark.parametrize("record", [{}, {"aurora": None}, {"aurora": {}}, {"aurora": {"task": "flow"}}])
def test_records_of_no_known_task_are_other(record):
    assert task_name(record) == OTHER
    assert task_of(record) is None


def test_no_name_is_registered_twice():
    for name, taken in (("depth", ()), ("another", (tasks()["counting_direct"],))):
        cls = type("Family", (TaskFamily,), {"name": name, "tasks": taken})
        with pytest.raises(ValueError, match="is registered already"):
            register_family(cls)


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_every_field_has_an_example(family, writer):
    known = by_kind((*writer.families, mask_family(), color_family()))
    assert all(forms.example(form, known) for form in family.fields.values())
    listed = forms.example(forms.Listed(forms.sequence(forms.Letter(), " ", forms.Number(9)), ", ", example=3), known)
    assert listed == "A 1, B 2, C 3"


def test_coordinates_without_tokens_are_numbers():
    assert re.fullmatch(r"\(0,0,0,0\)", forms.example(forms.Coordinates(4), {}))
