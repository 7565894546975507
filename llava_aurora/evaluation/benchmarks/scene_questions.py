"""Our own benchmark, where everything is exact: ray-cast scenes with true depth, points, boxes and counts."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llava_aurora.data.sources.scenes.scene_folder import mean_depth, read_scenes
from llava_aurora.data.sources.scenes.scene_records import annotated_scene
from llava_aurora.evaluation.benchmarks.question import Question, QuestionSet, question_set
from llava_aurora.tasks.annotated import AnnotatedImage
from llava_aurora.tasks.counting import count_facts
from llava_aurora.tasks.depth import DepthFacts
from llava_aurora.tasks.marks import depth_at, sample_points
from llava_aurora.tasks.points import letter_points
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tasks.task import Record
from llava_aurora.vqvae.maps import read_depth_map

POINTS = (2, 3, 4, 5)
_MEAN_SIDE = 112
_MOST_OF_ONE_COUNT = 0.25


def read_scene_depth(
    folder: Path, *, writer: RecordWriter, frame: int, marked: bool, one_height: bool = False, seed: int = 0
) -> QuestionSet:
    """Of each scene, which of 2, 3, 4 and 5 points is closest; fewer where it has no room for as many.

    The mean map of the folder's scenes, and which point is the lowest, get as much right as chance (`sample_points`).

    Args:
        folder: of `data scenes`.
        frame: side of the frame that coordinates refer to.
        marked: the points are drawn into the image; otherwise the question gives their coordinates.
        one_height: the points lie at about one height, which then says nothing about the answer.
        seed: of points and letters.
    Raises AuroraError if the folder or a depth map cannot be read.
    """
    left_out: Counter[str] = Counter()

    def questions() -> Iterator[Question]:
        mean = mean_depth(folder, side=_MEAN_SIDE)
        for scene in read_scenes(folder):
            depth = read_depth_map(folder / scene.depth)
            for count in POINTS:
                rng = np.random.default_rng([seed, int(scene.id), count])
                positions = sample_points(
                    relative_depth=depth, count=count, rng=rng, one_height=one_height, mean_depth=mean
                )
                if positions is None:
                    left_out[f"no room for {count} points"] += 1
                    continue
                scale = frame / depth.shape[1]
                places = [(int(x * scale), int(y * scale)) for x, y in positions]
                points = letter_points(places, [depth_at(depth, position) for position in positions], rng)
                task = "depth_direct" if marked else "depth_direct_from_coordinates"
                record = writer.write(task, DepthFacts(points), name=scene.id, image=scene.image, rng=rng)
                yield Question(
                    id=f"{scene.id}/{count}points",
                    image=folder / scene.image,
                    text=question_of(record),
                    kind="letter",
                    answer=record["aurora"]["answer"],
                    category=f"{count} points",
                    family="depth",
                    chance=1 / count,
                    frame=frame,
                    points={point.letter: (point.x, point.y) for point in points},
                    unmarked=marked,
                    depth=folder / scene.depth,
                )

    return question_set(questions(), where=folder, left_out=left_out)


def read_scene_counting(folder: Path, *, writer: RecordWriter, frame: int, seed: int = 0) -> QuestionSet:
    """Of each scene, how many there are of one kind: of the kinds in it, or of one that is absent, the one whose count
    was asked for least so far. Where a count is still the answer to more than a quarter, its last questions are left
    out, so that always answering the same gets a quarter right, given four counts that are as frequent.

    Arguments and errors as for `read_scene_depth`.
    """
    times: Counter[int] = Counter()
    questions = []
    for scene in read_scenes(folder):
        rng = np.random.default_rng([seed, int(scene.id)])
        image = annotated_scene(folder, scene, codes={}, with_depth=False)
        counts = _counts(image, rng)
        thing = min(counts, key=lambda each: times[counts[each]])
        times[counts[thing]] += 1
        facts = count_facts(image, thing, frame=frame)
        record = writer.write("counting_direct", facts, name=scene.id, image=scene.image, rng=rng)
        questions.append(
            Question(
                id=scene.id,
                image=folder / scene.image,
                text=question_of(record),
                kind="number",
                answer=record["aurora"]["answer"],
                category="scenes",
                family="counting",
                frame=frame,
                boxes=tuple(map(tuple, facts.boxes)),
                depth=folder / scene.depth,
            )
        )
    kept = _even(questions)
    left_out = {"its count is asked for often enough": len(questions) - len(kept)} if len(kept) < len(questions) else {}
    return question_set(kept, where=folder, left_out=left_out)


def _even(questions: list[Question]) -> list[Question]:
    """Without the last questions of the most frequent answers, until none is the answer to more than its share."""
    by_answer: dict[str, list[Question]] = {}
    for question in questions:
        by_answer.setdefault(question.answer, []).append(question)
    if len(by_answer) < 1 / _MOST_OF_ONE_COUNT:
        return questions
    while (most := max(by_answer.values(), key=len)) and len(most) > max(
        1, _MOST_OF_ONE_COUNT * sum(map(len, by_answer.values()))
    ):
        most.pop()
    kept = {question.id for each in by_answer.values() for question in each}
    return [question for question in questions if question.id in kept]


def _counts(image: AnnotatedImage, rng: np.random.Generator) -> dict[tuple[str, str], int]:
    """The things that can be asked about, one that is absent among them, in a random order, with how many there are."""
    counts = Counter((item.thing, item.things) for item in image.objects)
    if image.absent:
        counts[image.absent[int(rng.integers(len(image.absent)))]] = 0
    things = list(counts)
    return {things[place]: counts[things[place]] for place in rng.permutation(len(things))}


def question_of(record: Record) -> str:
    """The question of a record, without the image token."""
    return record["conversations"][0]["value"].replace("<image>", "").strip()
