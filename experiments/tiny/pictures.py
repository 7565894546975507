"""Pictures for the pretraining of the tiny base: ray-cast scenes, rendered once into one array on disk.

Of each scene the image is kept, what is seen at the middle of each cell of a grid, and the named objects. No depth, and
no boxes: a place is one of the grid's cells.
"""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llava_aurora.data.sources.scenes.raycaster import CEILING, FLOOR
from llava_aurora.data.sources.scenes.scene import SceneConfig, render_scene, scene_seed
from llava_aurora.files import read_json, write_json

FRAME, GRID = 112, 7
SCENES = SceneConfig(frame=FRAME, shadows=False, variety=0.5, max_objects=8, min_visible_area=0.008)
# Seeds of collections of scenes; the demo's are 0 and 1, those of tests and of `llava-aurora data scenes` are small.
TRAINING_SEED, HELD_OUT_SEED = 1_000_000, 1_000_001
_BATCH = 64


@dataclass(frozen=True)
class Pictures:
    """Args:
    images: uint8 (scenes, FRAME, FRAME, 3), mapped from disk.
    cells: for each scene GRID × GRID names, row by row, of what is in the middle of a cell.
    objects: for each scene its objects from left to right: name, and x, y of the middle of what is visible of it.
    """

    images: np.ndarray
    cells: list[list[str]]
    objects: list[list[tuple[str, float, float]]]


def load_pictures(folder: Path, *, count: int, seed: int, workers: int = 1) -> Pictures:
    """The first `count` scenes of a seed, rendered into a folder unless they are there."""
    array, described = folder / "images.npy", folder / "scenes.json"
    if not described.is_file() or len(read_json(described, what="scenes")) < count:
        folder.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(array, mode="w+", dtype=np.uint8, shape=(count, FRAME, FRAME, 3))
        found: list[dict] = []
        jobs = [(seed, range(start, min(count, start + _BATCH))) for start in range(0, count, _BATCH)]
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for rendered, about in pool.map(_render, jobs):
                images[len(found) : len(found) + len(about)] = rendered
                found += about
        images.flush()
        write_json(described, found, indent=None)
    scenes = json.loads(described.read_text(encoding="utf-8"))[:count]
    return Pictures(
        images=np.load(array, mmap_mode="r")[:count],
        cells=[scene["cells"] for scene in scenes],
        objects=[[(name, x, y) for name, x, y in scene["objects"]] for scene in scenes],
    )


def _render(job: tuple[int, range]) -> tuple[np.ndarray, list[dict]]:
    seed, indices = job
    images, about = [], []
    for index in indices:
        scene = render_scene(seed=scene_seed(seed, index), config=SCENES)
        middle = FRAME // GRID // 2
        faces, instances = (
            each[middle :: FRAME // GRID, middle :: FRAME // GRID].ravel() for each in (scene.faces, scene.instances)
        )
        rooms = {FLOOR: "floor", CEILING: "ceiling"}
        cells = [
            scene.objects[instance - 1].name if instance else rooms.get(face, "wall")
            for face, instance in zip(faces.tolist(), instances.tolist(), strict=True)
        ]
        objects = []
        for number, item in enumerate(scene.objects, start=1):
            rows, columns = np.nonzero(scene.instances == number)
            objects.append((item.name, round(float(columns.mean()), 1), round(float(rows.mean()), 1)))
        images.append(scene.image)
        about.append({"cells": cells, "objects": objects})
    return np.stack(images), about
