"""Small things looked at twice, on scenes."""

import json

import pytest
from PIL import Image

from llava_aurora.data.images.crop import crop
from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.data.sources.scenes.scene_records import SceneTasks, write_scene_records
from llava_aurora.data.store.record_file import read_records
from llava_aurora.data.validation.records import TextChecks
from llava_aurora.evaluation.benchmarks.record_questions import record_question
from llava_aurora.tasks.annotated import Drawing
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tasks.registry import family_named, task_of
from llava_aurora.tokens.vocabulary import pixel_family

FRAME = 64
PIXELS = pixel_family(frame=FRAME)
CHAIN, DIRECT = family_named("look_again").tasks


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(out=folder, count=12, seed=3, config=SceneConfig(frame=FRAME, shadows=False, antialias=False))
    write_scene_records(
        folder / "records.json",
        scenes=folder,
        codes={f"{number:06d}": [0] for number in range(12)},
        writer=RecordWriter(prompts=Prompts(), families=(PIXELS,)),
        tasks=SceneTasks(shares={CHAIN.name: 1.0, DIRECT.name: 1.0}, drawing=Drawing(frame=FRAME)),
    )
    return folder, read_records(folder / "records.json", families=[PIXELS])


def test_a_chain_gives_the_box_and_then_the_answer_about_its_crop(records):
    folder, found = records
    chains = [record for record in found if task_of(record) is CHAIN]
    assert len(chains) > 3
    for record in chains:
        (box,) = record["aurora"]["boxes"]
        image, shown = record["image"]
        assert [turn["value"].count("<image>") for turn in record["conversations"]] == [1, 0, 1, 0]
        assert [list(span.codes) for span in PIXELS.parse(record["conversations"][1]["value"])] == [box]
        assert record["conversations"][3]["value"] == f"The answer is {record['aurora']['answer']}."
        with Image.open(folder / image) as whole, Image.open(folder / shown) as part:
            assert part.tobytes() == crop(whole.convert("RGB"), box).tobytes()


def test_chain_and_direct_question_are_about_the_same_thing(records):
    _, found = records
    direct = {record["aurora"]["answer"] for record in found if task_of(record) is DIRECT}
    assert direct == {record["aurora"]["answer"] for record in found if task_of(record) is CHAIN}


def test_records_are_questions_and_nothing_is_wrong_with_them(records):
    folder, found = records
    checks = TextChecks(families=(PIXELS,), frame=FRAME, image_folder=folder)
    problems = []
    for record in found:
        assert checks.run(record, lambda kind, message: problems.append(message))
        question = record_question(folder, record, task_of(record))
        said = record["conversations"][-1]["value"]
        assert question.answer in said
        assert question.image == folder / f"images/{record['id'][:6]}.png"
    assert problems == []


@pytest.mark.parametrize("kind", ["boxes", "answers"])
def test_what_contradicts_the_truth_is_found(records, kind):
    _, found = records
    record = json.loads(json.dumps(next(record for record in found if task_of(record) is CHAIN)))
    turn = record["conversations"][1 if kind == "boxes" else 3]
    turn["value"] = PIXELS.text([1, 1, 2, 2]) if kind == "boxes" else "No."
    family = family_named("look_again")
    assert [each.kind for each in family.problems(CHAIN, record, frame=FRAME, families={"box": PIXELS})] == [kind]
