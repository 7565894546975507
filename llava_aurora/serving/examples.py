"""Examples on the page: scenes rendered when the server starts, or the images of a folder."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from llava_aurora.data.sources.scenes.scene import SceneConfig, relative_depth, render_scene, scene_seed
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.marks import Point, sample_points
from llava_aurora.tasks.registry import task_named

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MOST = 12  # of a folder
_SEED, _SCENES = 2024, 4


@dataclass(frozen=True)
class Example:
    """Args: path: of the image; points: to mark in it, (x, y) in its pixels; question."""

    path: str
    points: tuple[Point, ...] = ()
    question: str = ""


def scene_examples(folder: Path, *, kinds: Collection[str]) -> list[Example]:
    """Renders scenes into `folder`, the same at every start, with points if the model has depth maps."""
    examples, config = [], SceneConfig(variety=0.5)
    for index in range(_SCENES):
        seed, path = scene_seed(_SEED, index), folder / f"scene_{index + 1}.png"
        scene = render_scene(seed=seed, config=config)
        Image.fromarray(scene.image).save(path)
        if "depth" in kinds and index % 2 == 0:
            found = sample_points(relative_depth=relative_depth(scene.depth), count=3, rng=np.random.default_rng(seed))
            examples.append(Example(str(path), tuple(found or ())))
        else:
            question = task_named("counting_direct").wording.questions[0].format(things=scene.objects[0].plural)
            examples.append(Example(str(path), question=question))
    return examples


def folder_examples(folder: Path) -> list[Example]:
    """The first images of a folder, by name, without questions. Raises AuroraError if it has none."""
    if not folder.is_dir():
        raise AuroraError(f"--examples {folder}: no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise AuroraError(f"--examples {folder}: no images ({', '.join(SUFFIXES)}) in this folder")
    return [Example(str(path.resolve())) for path in paths[:MOST]]
