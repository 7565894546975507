"""Examples on the page: scenes rendered when the server starts, or the images of a folder."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from llava_aurora.data.images.image_files import SUFFIXES
from llava_aurora.data.sources.scenes.phrases import unique_phrases
from llava_aurora.data.sources.scenes.scene import SceneConfig, relative_depth, render_scene, scene_seed
from llava_aurora.found_files import find_files
from llava_aurora.tasks.annotated import AnnotatedImage, AnnotatedObject
from llava_aurora.tasks.marks import Point
from llava_aurora.tasks.registry import families

MOST = 12  # of a folder
_SEED, _SCENES = 2024, 4


@dataclass(frozen=True)
class ImageExample:
    """Args: path: of the image; points: to mark in it, (x, y) in its pixels; question."""

    path: str
    points: Sequence[Point] = ()
    question: str = ""


def scene_examples(folder: Path, *, kinds: Collection[str]) -> list[ImageExample]:
    """Renders scenes into `folder`, the same at every start; task families take turns in asking about them.

    Args: kinds: token kinds that the model has; families whose chains need another do not ask.
    """
    asking = [family for family in families() if family.replaced_kind is None or family.replaced_kind in kinds]
    examples: list[ImageExample] = []
    for index in range(_SCENES):
        seed, path = scene_seed(_SEED, index), folder / f"scene_{index + 1}.png"
        scene = render_scene(seed=seed, config=SceneConfig(variety=0.5))
        Image.fromarray(scene.image).save(path)
        image = AnnotatedImage(
            name=path.stem,
            size=(scene.image.shape[1], scene.image.shape[0]),
            depth=relative_depth(scene.depth),
            objects=[
                AnnotatedObject(each.name, each.plural, each.box, phrases=named)
                for each, named in zip(scene.objects, unique_phrases(scene.objects, scene.image.shape[1]), strict=True)
            ],
        )
        offered = asking[index % len(asking)].example(image, np.random.default_rng(seed)) if asking else None
        question, points = offered or ("", ())
        examples.append(ImageExample(str(path), points, question))
    return examples


def folder_examples(folder: Path) -> list[ImageExample]:
    """The first images of a folder, by path, without questions. Raises AuroraError if it has none."""
    return [ImageExample(str(path.resolve())) for path in find_files(folder, SUFFIXES).paths[:MOST]]
