"""Examples on the page: scenes rendered when the server starts, or the images of a folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from llava_aurora.data.sources.scenes.scene import Scene, SceneConfig, relative_depth, render_scene, scene_seed
from llava_aurora.errors import AuroraError
from llava_aurora.serving.marks import suggested_question
from llava_aurora.tasks.marks import Point, sample_points
from llava_aurora.tasks.task import task_named

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MOST = 12  # of a folder
_SEED = 2024
_SCENES = 4
_CONFIG = SceneConfig(variety=0.5)


@dataclass(frozen=True)
class Example:
    """Args: path: of the image; points: to mark in it, (x, y) in its pixels; question."""

    path: str
    points: tuple[Point, ...]
    question: str


def scene_examples(folder: Path) -> list[Example]:
    """Renders scenes into `folder`, the same at every start; asks about points, about objects, and for the map."""
    examples = []
    for index in range(_SCENES):
        scene = render_scene(seed=scene_seed(_SEED, index), config=_CONFIG)
        path = folder / f"scene_{index + 1}.png"
        Image.fromarray(scene.image).save(path)
        points, question = _asked(scene, index)
        examples.append(Example(str(path), points, question))
    return examples


def folder_examples(folder: Path) -> list[Example]:
    """The first images of a folder, by name, without questions. Raises AuroraError if it has none."""
    if not folder.is_dir():
        raise AuroraError(f"--examples {folder}: no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise AuroraError(f"--examples {folder}: no images ({', '.join(SUFFIXES)}) in this folder")
    return [Example(str(path.resolve()), (), "") for path in paths[:MOST]]


def _asked(scene: Scene, index: int) -> tuple[tuple[Point, ...], str]:
    if index % 2 == 0:
        rng = np.random.default_rng(scene_seed(_SEED, index))
        points = tuple(sample_points(relative_depth=relative_depth(scene.depth), count=3 + index // 2, rng=rng) or ())
        return points, suggested_question("ABCDE"[: len(points)])
    if index % 4 == 1:
        return (), task_named("counting_direct").wording.questions[0].format(things=scene.objects[0].plural)
    return (), task_named("depth_generation").wording.questions[0]
