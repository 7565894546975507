"""Questions about masks: referring segmentation on RefCOCO and on ray-cast scenes, and grounded descriptions."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llava_aurora.data.sources.masks.referring import Referred, read_referred
from llava_aurora.data.sources.scenes.scene_folder import SceneRecord, read_scenes
from llava_aurora.data.sources.scenes.scene_records import annotated_scene
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.benchmarks.question import Question, QuestionSet, question_set
from llava_aurora.tasks.annotated import AnnotatedImage, AnnotatedObject
from llava_aurora.tasks.mask_measures import FOUND
from llava_aurora.tasks.outcome import TrueMask
from llava_aurora.tasks.registry import task_named

_TRAIN = "train"


def read_refcoco(folder: Path, *, aspect_ratio: str) -> QuestionSet:
    """RefCOCO, RefCOCO+ and RefCOCOg, every phrase a question; the split `train` is left out.

    Args:
        folder: of one of them, or of several in folders of their own (`read_referred`).
        aspect_ratio: how the model's square shows an image.
    Raises AuroraError naming file and record.
    """
    left_out: Counter[str] = Counter()

    def questions() -> Iterator[Question]:
        for each in read_referred(folder):
            if each.split == _TRAIN:
                left_out["references for training"] += len(each.phrases)
                continue
            mask = TrueMask.of(each.mask())
            for number, phrase in enumerate(each.phrases):
                yield _question(
                    _text("segmentation", phrase=phrase),
                    phrase=phrase,
                    id=f"{each.file.parent.name}/{each.id}/{number}",
                    image=each.image,
                    image_id=each.image_name,
                    category=f"{_name(each)} {each.split}".strip(),
                    masks=(mask,),
                    aspect_ratio=aspect_ratio,
                )

    return question_set(questions(), where=folder, left_out=left_out)


def read_scene_masks(folder: Path, *, aspect_ratio: str, seed: int = 0) -> QuestionSet:
    """Of each scene up to three phrases: a thing by its name, one by its place, and one that is not there.

    Arguments and errors as for `read_refcoco`; a folder made before scenes kept their masks is refused. Args: seed: of
    the phrases.
    """

    def questions() -> Iterator[Question]:
        for scene, image, objects in _scenes(folder):
            rng = np.random.default_rng([seed, int(scene.id)])
            named = [(phrase, item) for item in objects for phrase in item.phrases]
            kinds: dict[str, list[tuple[str, AnnotatedObject | None]]] = {
                "by name": [(phrase, item) for phrase, item in named if phrase == item.thing],
                "by place": [(phrase, item) for phrase, item in named if phrase != item.thing],
                "not there": [(thing, None) for thing, _ in image.absent],
            }
            for category, found in kinds.items():
                if found:
                    phrase, item = found[int(rng.integers(len(found)))]
                    yield _question(
                        _text("segmentation", phrase=phrase),
                        phrase=phrase,
                        id=f"{scene.id}/{category}",
                        image=folder / scene.image,
                        image_id=scene.id,
                        category=category,
                        masks=(_true(item, image),),
                        aspect_ratio=aspect_ratio,
                    )

    return question_set(questions(), where=folder, left_out={})


def read_grounded(folder: Path, *, aspect_ratio: str) -> QuestionSet:
    """Of each scene a description, each thing in it with its mask. Arguments and errors as for `read_scene_masks`."""

    def questions() -> Iterator[Question]:
        for scene, image, objects in _scenes(folder):
            yield _question(
                _text("grounded_description"),
                id=scene.id,
                image=folder / scene.image,
                image_id=scene.id,
                category="scenes",
                masks=tuple(_true(item, image, item.thing) for item in objects),
                aspect_ratio=aspect_ratio,
            )

    return question_set(questions(), where=folder, left_out={})


def _scenes(folder: Path) -> Iterator[tuple[SceneRecord, AnnotatedImage, Sequence[AnnotatedObject]]]:
    for scene in read_scenes(folder):
        if scene.instances is None:
            raise AuroraError(f"{folder}: keeps no masks; make the scenes again (`llava-aurora data scenes`)")
        image = annotated_scene(folder, scene, codes={})
        yield scene, image, image.objects


def _true(item: AnnotatedObject | None, image: AnnotatedImage, phrase: str = "") -> TrueMask:
    """Empty for what is not there."""
    mask = item.mask if item is not None else None
    return TrueMask.of(np.zeros(image.size[::-1], bool) if mask is None else mask, phrase)


def _text(task: str, **fields: str) -> str:
    return task_named(task).wording.questions[0].format(**fields)


def _question(text: str, **about: Any) -> Question:
    return Question(text=text, kind="mask", answer=FOUND, family="masks", **about)


def _name(each: Referred) -> str:
    """RefCOCO, RefCOCO+ or RefCOCOg, by the names of the folders above; "" of others."""
    for part in reversed(each.file.parts[:-1]):
        if known := re.search(r"refcoco(\+|_?plus|g)?", part.lower()):
            return "RefCOCO" + {"g": "g", None: ""}.get(known[1], "+")
    return ""
