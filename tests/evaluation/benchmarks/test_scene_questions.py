"""Questions about ray-cast scenes, checked against the scenes."""

from collections import Counter

import numpy as np
import pytest

from llava_aurora.data.sources.scenes.scene_folder import read_scenes
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS, Wording, benchmark_names
from llava_aurora.tasks.marks import depth_at
from llava_aurora.tasks.registry import tasks
from llava_aurora.tasks.task import STEP_BY_STEP
from llava_aurora.tokens.vocabulary import pixel_family

WORDING = Wording(56, (pixel_family(frame=56),))


@pytest.mark.parametrize(
    "name", ["scenes_depth", "scenes_coordinates", "scenes_one_height", "scenes_one_height_coordinates"]
)
def test_the_closest_point_is_the_answer(scenes, name):
    found = BENCHMARKS[name].read(scenes, WORDING).questions
    assert {question.category for question in found} == {"2 points", "3 points", "4 points", "5 points"}
    for question in found:
        depth = question.true_depth()
        assert question.frame == 56
        values = {
            letter: depth_at(depth, (round((x + 0.5) * 1.5), round((y + 0.5) * 1.5)))
            for letter, (x, y) in question.points.items()
        }
        assert values[question.answer] >= max(values.values()) - 10  # within a point's circle
        assert question.chance == 1 / len(question.points)


def test_letters_do_not_give_the_answer_away(scenes):
    found = BENCHMARKS["scenes_coordinates"].read(scenes, WORDING).questions
    answers = Counter(question.answer for question in found if question.category == "2 points")
    assert min(answers["A"], answers["B"]) >= 5


def test_points_are_in_the_image_or_in_the_question(scenes):
    marked = BENCHMARKS["scenes_depth"].read(scenes, WORDING).questions[0]
    told = BENCHMARKS["scenes_coordinates"].read(scenes, WORDING).questions[0]
    assert not np.array_equal(np.asarray(marked.open()), np.asarray(told.open()))
    assert "<PIXEL_" in told.text
    assert "<PIXEL_" not in marked.text
    plain = BENCHMARKS["scenes_coordinates"].read(scenes, Wording(56)).questions[0]
    assert plain.text == WORDING.families[0].plain(told.text)


def test_questions_are_worded_as_in_training(scenes):
    chain, direct = (
        tasks()[f"depth_{kind}"].wording.questions[0].format(letters="A or B") for kind in ("chain", "direct")
    )
    question = BENCHMARKS["scenes_depth"].read(scenes, WORDING).questions[0]
    assert (question.prompt("chain"), question.prompt("direct")) == (chain, direct)
    assert chain.endswith(STEP_BY_STEP)


def test_counts_and_boxes_are_those_of_the_scene(scenes):
    found = BENCHMARKS["scenes_counting"].read(scenes, WORDING).questions
    records = {scene.id: scene for scene in read_scenes(scenes)}
    assert len(found) == 24
    for question in found:
        boxes = [item.box for item in records[question.id].objects if item.plural in question.text]
        assert question.answer == str(len(boxes))
        assert np.divide(boxes, 1.5) == pytest.approx(np.array(question.boxes), abs=1)
    counts = Counter(question.answer for question in found)
    assert counts.most_common(1)[0][1] < 0.6 * len(found)


def test_the_same_folder_gives_the_same_questions(scenes):
    read = BENCHMARKS["scenes_counting"].read
    assert read(scenes, WORDING).digest == read(scenes, WORDING).digest
    depth = BENCHMARKS["scenes_coordinates"].read
    assert depth(scenes, WORDING).digest != depth(scenes, Wording(84)).digest


def test_names_of_benchmarks():
    assert benchmark_names(["scenes", "hardblink", "scenes_depth"]) == [
        "scenes_depth",
        "scenes_coordinates",
        "scenes_counting",
        "hardblink",
    ]
    with pytest.raises(AuroraError, match="unknown benchmark 'blink'; available: scenes, masks, hardblink"):
        benchmark_names(["blink"])
