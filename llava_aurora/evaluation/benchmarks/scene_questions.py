"""Our own benchmark, where everything is exact: ray-cast scenes with true depth, points, boxes and counts."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llava_aurora.data.records import Record, RecordWriter, letter_points
from llava_aurora.data.sources.points import depth_at, sample_points
from llava_aurora.data.sources.scenes.scene import COLORS, SHAPES
from llava_aurora.data.sources.scenes.scene_folder import SceneRecord, read_scenes
from llava_aurora.evaluation.benchmarks.question import Question, QuestionSet, question_set
from llava_aurora.evaluation.outcomes import question as asked
from llava_aurora.tokens.box import BoxKind
from llava_aurora.vqvae.maps import read_depth_map

POINTS = (2, 3, 4, 5)


def read_scene_depth(
    folder: Path, *, writer: RecordWriter, frame: int, marked: bool, one_height: bool = False, seed: int = 0
) -> QuestionSet:
    """Of each scene, which of 2, 3, 4 and 5 points is closest; fewer where it has no room for as many.

    Args:
        folder: of `data scenes`.
        writer: wording and coordinate tokens.
        frame: side of the frame that coordinates refer to.
        marked: the points are drawn into the image; otherwise the question gives their coordinates.
        one_height: the points lie at about one height, which then says nothing about the answer.
        seed: of points and letters.

    Raises:
        AuroraError: if the folder or a depth map cannot be read.
    """
    left_out: Counter[str] = Counter()

    def questions() -> Iterator[Question]:
        for scene in read_scenes(folder):
            depth = read_depth_map(folder / scene.depth)
            for count in POINTS:
                rng = np.random.default_rng([seed, int(scene.id), count])
                positions = sample_points(relative_depth=depth, count=count, rng=rng, one_height=one_height)
                if positions is None:
                    left_out[f"no room for {count} points"] += 1
                    continue
                scale = frame / depth.shape[1]
                places = [(int(x * scale), int(y * scale)) for x, y in positions]
                points = letter_points(places, [depth_at(depth, position) for position in positions], rng)
                record = writer.depth_direct(name=scene.id, image=scene.image, points=points, rng=rng, marked=marked)
                yield Question(
                    id=f"{scene.id}/{count}points",
                    image=folder / scene.image,
                    text=asked(record),
                    kind="letter",
                    answer=record["aurora"]["answer"],
                    category=f"{count} points",
                    chance=1 / count,
                    frame=frame,
                    points={point.letter: (point.x, point.y) for point in points},
                    unmarked=marked,
                    depth=folder / scene.depth,
                )

    return question_set(questions(), where=folder, left_out=left_out)


def read_scene_counting(folder: Path, *, writer: RecordWriter, frame: int, seed: int = 0) -> QuestionSet:
    """Of each scene, how many there are of one kind: of the kinds in it, or of one that is absent, the one whose count
    was asked for least so far, so that always answering the same gets as little as possible right.

    Arguments and errors as for `read_scene_depth`.
    """
    times: Counter[int] = Counter()
    questions = []
    for scene in read_scenes(folder):
        rng = np.random.default_rng([seed, int(scene.id)])
        kinds = _kinds(scene, rng)
        kind = min(kinds, key=lambda each: times[kinds[each]])
        times[kinds[kind]] += 1
        boxes = _boxes(scene, kind, frame)
        record: Record = writer.counting_direct(
            name=scene.id,
            image=scene.image,
            singular=" ".join(kind),
            plural=f"{' '.join(kind)}s",
            boxes=boxes,
            rng=rng,
        )
        questions.append(
            Question(
                id=scene.id,
                image=folder / scene.image,
                text=asked(record),
                kind="number",
                answer=record["aurora"]["answer"],
                category="scenes",
                frame=frame,
                boxes=tuple(map(tuple, boxes)),
                depth=folder / scene.depth,
            )
        )
    return question_set(questions, where=folder, left_out={})


def _kinds(scene: SceneRecord, rng: np.random.Generator) -> dict[tuple[str, str], int]:
    """Colour and shape of what can be asked about, in a random order, with how many there are."""
    present = Counter((item.color, item.shape) for item in scene.objects)
    absent = [(color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in present]
    if absent:
        present[absent[int(rng.integers(len(absent)))]] = 0
    kinds = list(present)
    return {kinds[place]: present[kinds[place]] for place in rng.permutation(len(kinds))}


def _boxes(scene: SceneRecord, kind: tuple[str, str], frame: int) -> list[list[int]]:
    box, scale = BoxKind(frame=frame), frame / scene.size[0]
    return [
        box.encode([edge * scale for edge in item.box]) for item in scene.objects if (item.color, item.shape) == kind
    ]
