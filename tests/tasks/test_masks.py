"""Tasks about masks, on scenes whose masks are exact."""

import re
from dataclasses import replace

import numpy as np
import pytest

from llava_aurora.data.sources.scenes.scene import COLORS, SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import read_scenes, write_scenes
from llava_aurora.data.sources.scenes.scene_records import annotated_scene
from llava_aurora.data.validation.records import TextChecks
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.benchmarks.record_questions import record_question
from llava_aurora.generation.grammar import grammar
from llava_aurora.tasks.annotated import AnnotatedImage, AnnotatedObject, Drawing
from llava_aurora.tasks.mask_measures import mask_iou
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter, write_records
from llava_aurora.tasks.registry import family_named, task_named, task_of
from llava_aurora.tokens.mask import decode_mask
from llava_aurora.tokens.vocabulary import PerceptionVocabulary, mask_family, pixel_family

FRAME = 64
PIXELS, MASKS = pixel_family(frame=FRAME), mask_family()
FAMILY = family_named("masks")
NAMES = [task.name for task in FAMILY.tasks]
WRITER = RecordWriter(prompts=Prompts(), families=(PIXELS, MASKS))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(out=folder, count=40, seed=3, config=SceneConfig(frame=FRAME, shadows=False, antialias=False))
    return {scene.id: annotated_scene(folder, scene, codes={}) for scene in read_scenes(folder)}


@pytest.fixture(scope="module")
def records(images):
    """Of each task a record of each scene that it can be asked of, with the scene."""
    drawing = Drawing(frame=FRAME)
    return [
        (record, image)
        for image in images.values()
        for record in write_records(
            image, image="i.png", shares=dict.fromkeys(NAMES, 1.0), drawing=drawing, writer=WRITER
        )
    ]


def of(records, name):
    return [pair for pair in records if task_of(pair[0]).name == name]


def question(record):
    return record["conversations"][0]["value"].removeprefix("<image>\n")


def answer(record):
    return record["conversations"][1]["value"]


def masks_of(text):
    return [decode_mask(span.codes, (FRAME, FRAME)) for span in MASKS.parse(text)]


def test_every_task_is_asked_and_nothing_is_wrong_with_its_records(records):
    checks, found = TextChecks(families=(PIXELS, MASKS), frame=FRAME), []
    for record, _ in records:
        checks.run(record, lambda *problem: found.append(problem))
    assert not found
    assert all(len(of(records, name)) >= 15 for name in NAMES)


@pytest.mark.parametrize("name", ["segmentation", "segmentation_by_place", "box_then_mask", "mask_then_box"])
def test_a_phrase_is_answered_by_the_mask_of_the_one_thing_that_it_names(records, name):
    nothing = 0
    for record, image in of(records, name):
        phrase = record["aurora"]["phrase"]
        assert phrase in question(record)
        named = [item for item in image.objects if phrase in item.phrases]
        if record["aurora"]["task"].endswith("_of_none"):
            nothing += 1
            assert not named
            assert record["aurora"]["masks"] == []
            assert answer(record) == f"There is no {record['aurora']['thing']} in the image."
            continue
        (item,) = named
        (mask,) = masks_of(answer(record))
        assert mask_iou(mask, item.mask) > 0.6
        if name.startswith("segmentation"):
            assert (phrase == item.thing) == (name == "segmentation")
        else:
            assert PIXELS.parse(answer(record))[0].codes == pytest.approx(item.box, abs=1)
            mask_first = answer(record).index("<MASK") < answer(record).index("<PIXEL")
            assert mask_first == (name == "mask_then_box")
    assert 0.05 < nothing / len(of(records, name)) < 0.5


def test_a_count_is_that_of_the_masks(records):
    for record, image in of(records, "mask_counting_chain"):
        alike = [item for item in image.objects if item.things == record["aurora"]["phrase"]]
        assert record["aurora"]["answer"] == str(len(masks_of(answer(record)))) == str(len(alike))
        assert answer(record).endswith(f"The answer is {len(alike)}.")


def test_a_description_names_everything_once_with_its_mask(records):
    for record, image in of(records, "grounded_description"):
        phrases = re.findall(r"<p>an? (.*?)</p> <MASK_START>", answer(record))
        assert sorted(phrases) == sorted(item.thing for item in image.objects)
        for mask, item in zip(masks_of(answer(record)), sorted(image.objects, key=lambda i: i.box), strict=True):
            assert mask_iou(mask, item.mask) > 0.6


def test_a_region_lies_on_the_thing_that_is_asked_about(records):
    shown = set()
    for record, image in (pair for name in NAMES[-3:] for pair in of(records, name)):
        about, text = record["aurora"], question(record)
        shown.add(about["region"])
        if about["region"] == "mask":
            (place,) = masks_of(text)
        else:
            (span,) = PIXELS.parse(text)
            x, y = (
                span.codes[:2]
                if about["region"] == "point"
                else (sum(span.codes[::2]) // 2, sum(span.codes[1::2]) // 2)
            )
            place = np.zeros((FRAME, FRAME), bool)
            place[y, x] = True
        item = max(image.objects, key=lambda item: mask_iou(item.mask, place))
        if about["region"] != "box":  # the middle of a box may lie on what stands before the thing
            assert item.thing == about["thing"]
        alike = [each for each in image.objects if each.thing == about["thing"]]
        right = {"region_naming": about["thing"], "region_color": about["thing"].split()[0]}
        assert about["answer"] == right.get(about["task"], str(len(alike)))
        if about["task"] != "region_counting":
            assert about["answer"] in about["choices"]
            assert set(about["choices"]) == set(COLORS) or len(about["choices"]) == 3 * len(COLORS)
    assert shown == {"point", "box", "mask"}


def test_regions_are_questions_of_a_benchmark(records, tmp_path):
    record, _ = of(records, "region_naming")[0]
    asked = record_question(tmp_path, {**record, "image": "i.png"}, task_of(record))
    assert (asked.kind, asked.answer) == ("choice", record["aurora"]["thing"])
    assert asked.chance == pytest.approx(1 / 21)


@pytest.mark.parametrize(
    ("task", "change", "kind"),
    [
        ("segmentation", lambda text: text + text, "masks"),
        ("mask_then_box", lambda text: text + text[text.index("(") :], "masks"),
        ("mask_counting_chain", lambda text: re.sub(r"\d+\.$", "77.", text), "counts"),
        ("region_naming", lambda text: "It is the pink cup.", "answers"),
    ],
)
def test_what_contradicts_the_truth_is_found(records, task, change, kind):
    record, _ = next(pair for pair in of(records, task) if pair[0]["aurora"]["task"] == task)
    human, model = record["conversations"]
    wrong = {**record, "conversations": [human, {**model, "value": change(model["value"])}]}
    found = FAMILY.problems(task_named(task), wrong, frame=FRAME, families={"mask": MASKS, "box": PIXELS})
    assert kind in {problem.kind for problem in found}


@pytest.mark.parametrize("name", NAMES)
def test_the_grammar_reads_the_answers(records, name):
    pattern = re.compile(grammar(PerceptionVocabulary((PIXELS, MASKS)), notation="regex", task=name))
    assert all(pattern.fullmatch(answer(record)) for record, _ in of(records, name)[:10])


def test_images_without_masks_are_not_asked_and_bad_ones_are_named(images):
    image = next(iter(images.values()))
    bare = replace(image, objects=[replace(item, mask=None) for item in image.objects])
    draw = {"drawing": Drawing(frame=FRAME), "rng": np.random.default_rng(0)}
    assert all(FAMILY.facts(task, bare, **draw) is None for task in FAMILY.tasks)
    empty = AnnotatedObject("cup", "cups", (1, 1, 5, 5), mask=np.zeros((9, 9), bool), phrases=("cup",))
    facts = FAMILY.facts(
        task_named("grounded_description"), AnnotatedImage(name="a", size=(9, 9), objects=[empty]), **draw
    )
    with pytest.raises(AuroraError, match="the mask of the cup: the mask is empty"):
        WRITER.write("grounded_description", facts, name="a", image="a.png", rng=draw["rng"])
    with pytest.raises(ValueError, match="this writer has no tokens for them"):
        replace(WRITER, families=(PIXELS,)).write("segmentation", facts, name="a", image="a.png", rng=draw["rng"])
