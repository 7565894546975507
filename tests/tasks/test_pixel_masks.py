"""Records that ask whether a pixel is part of a thing, and their places drawn anew."""

import numpy as np
import pytest

from llava_aurora.data.transforms.pixels import FreshPixels
from llava_aurora.data.validation.records import TextChecks
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.benchmarks.record_questions import record_question
from llava_aurora.tasks.annotated import AnnotatedImage, AnnotatedObject, Drawing
from llava_aurora.tasks.mask_measures import filled_box, stretched
from llava_aurora.tasks.pixel_masks import BITS, SAID, SIDE, TASKS, drawn_place
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter, write_records
from llava_aurora.tokens.vocabulary import mask_family, pixel_family

FRAME = 64
PIXELS = pixel_family(frame=FRAME)
WRITER = RecordWriter(prompts=Prompts(), families=(PIXELS, mask_family()))
ROWS, COLUMNS = np.mgrid[:128, :128]
DISC = (ROWS - 40) ** 2 + (COLUMNS - 80) ** 2 < 26**2
IN_FRAME = stretched(DISC, (FRAME, FRAME))


def image(mask=DISC, **about):
    item = AnnotatedObject("red cube", "red cubes", (54, 14, 106, 66), mask=mask, phrases=("red cube",), **about)
    return AnnotatedImage(name="7", size=(128, 128), objects=[item])


def written(task, shown=None, writer=WRITER, **options):
    shares, drawing = {task: 1}, Drawing(frame=FRAME)
    shown = shown or image()
    return list(write_records(shown, image="7.png", shares=shares, drawing=drawing, writer=writer, **options))


def turns(record):
    return [turn["value"] for turn in record["conversations"]]


@pytest.mark.parametrize("seed", range(8))
def test_a_record_asks_whether_a_pixel_of_the_frame_is_part_of_the_thing(seed):
    (record,) = written("pixel_segmentation", seed=seed)
    x, y = record["aurora"]["cell"]
    question = f"<image>\nIs the pixel at {PIXELS.text((x, y))} part of the red cube?"
    assert turns(record) == [question, SAID[int(IN_FRAME[y, x])]]
    found = []
    TextChecks(families=WRITER.families, frame=FRAME).run(record, lambda *problem: found.append(problem))
    assert not found


@pytest.mark.parametrize("seed", range(8))
def test_the_plain_wording_is_the_papers(seed):
    (record,) = written("pixel_segmentation_plain", writer=RecordWriter(prompts=Prompts()), seed=seed)
    x, y = record["aurora"]["cell"]
    cells = stretched(DISC, (SIDE, SIDE))
    assert turns(record) == [f"<image>\n[segmentation] red cube loc: [{x},{y}] mask:", BITS[int(cells[y, x])]]


def test_half_of_the_places_are_on_the_thing_and_most_others_beside_it_in_its_box():
    rng = np.random.default_rng(0)
    drawn = [drawn_place(DISC, "", rng, side=FRAME, frame=FRAME) for _ in range(2000)]
    inside = np.array([each.inside for each in drawn])
    near = np.array([filled_box(IN_FRAME)[each.cell[1], each.cell[0]] for each in drawn]) & ~inside
    assert abs(inside.mean() - 0.5) < 0.04
    assert abs(near.mean() - 0.41) < 0.04
    assert all(each.inside == IN_FRAME[each.cell[1], each.cell[0]] for each in drawn)
    assert len({each.cell for each in drawn}) > 300


def test_a_thing_that_fills_its_box_has_its_other_places_around_it():
    drawn = [drawn_place(filled_box(DISC), "", np.random.default_rng(s), side=64, frame=64) for s in range(50)]
    assert {each.inside for each in drawn} == {True, False}
    full = drawn_place(np.ones((4, 4), bool), "", np.random.default_rng(0), side=64, frame=64)
    assert full.inside


def test_what_has_no_mask_and_what_is_thinner_than_a_cell_is_not_asked():
    assert written("pixel_segmentation", image(mask=None)) == []
    assert written("pixel_segmentation", AnnotatedImage(name="7", size=(8, 8))) == []
    thin = np.zeros((640, 640), bool)
    thin[:, 0] = True
    assert written("pixel_segmentation", image(mask=thin)) == []


@pytest.mark.parametrize("task", [task.name for task in TASKS])
@pytest.mark.parametrize("families", [WRITER.families, ()], ids=["tokens", "numbers"])
def test_each_epoch_asks_for_another_place(task, families):
    writer = RecordWriter(prompts=Prompts(), families=families)
    (record,) = written(task, writer=writer)
    step = FreshPixels(writer=writer, image_folder="nowhere", aspect_ratio="pad")
    assert step.changes(next(each for each in TASKS if each.name == task))
    seen, cells = set(), stretched(DISC, (record["aurora"]["side"],) * 2)
    for epoch in range(12):
        step.set_epoch(epoch)
        other = step(record)
        assert other == step(record)
        about, (question, answer) = other["aurora"], turns(other)
        x, y = about["cell"]
        assert answer == about["answer"] == about["choices"][int(cells[y, x])]
        assert (f"[{x},{y}]" if "plain" in task else writer.coordinates((x, y))) in question
        assert about["masks"] == record["aurora"]["masks"]
        seen.add((x, y))
    assert len(seen) > 8


def test_what_a_record_lacks_is_named():
    (record,) = written("pixel_segmentation")
    step = FreshPixels(writer=WRITER, image_folder="nowhere", aspect_ratio="pad")
    for name, message in (("masks", "its mask is missing"), ("cell", "its phrase, cell, answer or frame is missing")):
        about = {key: value for key, value in record["aurora"].items() if key != name}
        with pytest.raises(AuroraError, match=rf"record \(id 7/pixel_segmentation\): {message}"):
            step({**record, "aurora": about})


def test_another_answer_than_the_true_one_is_found():
    (record,) = written("pixel_segmentation")
    false = {"No": "Yes", "Yes": "No"}[record["aurora"]["answer"]]
    changed = [record["conversations"][0], {"from": "gpt", "value": false}]
    found = []
    TextChecks(families=WRITER.families, frame=FRAME).run(
        {**record, "conversations": changed}, lambda *problem: found.append(problem)
    )
    assert "which is the answer" in str(found)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_records_are_a_benchmark_of_yes_or_no(task, tmp_path):
    (record,) = written(task.name)
    question = record_question(tmp_path, record, task)
    assert (question.chance, question.family) == (0.5, "pixel_masks")
    assert question.answer in question.choices
