"""The table of tasks covers what the record writer writes."""

import pytest

from llava_aurora.data.prompts import FIELDS
from llava_aurora.data.tasks import KINDS, OTHER, TASK_NAMES, TASKS, VARIANTS, task_name


def test_every_task_with_a_wording_is_in_the_table_or_a_variant_of_one_that_is():
    assert {*TASKS, *VARIANTS} == set(FIELDS)
    assert set(VARIANTS.values()) <= set(TASKS)
    assert {task.kind for task in TASKS.values()} == set(KINDS)
    assert (*TASKS, OTHER) == TASK_NAMES


@pytest.mark.parametrize("boxes", [[], [(1, 2, 30, 40)]])
def test_what_the_writer_writes_is_recognised(writer, boxes):
    import numpy as np

    about = {"name": "0", "image": "0.png", "rng": np.random.default_rng(0), "boxes": boxes}
    about |= {"singular": "cube", "plural": "cubes"}
    for task in ("box_generation", "counting_chain", "counting_direct"):
        assert task_name(getattr(writer, task)(**about)) == task


@pytest.mark.parametrize("record", [{}, {"aurora": None}, {"aurora": {}}, {"aurora": {"task": "flow"}}])
def test_records_of_no_known_task_are_other(record):
    assert task_name(record) == OTHER
