"""Training records of ray-cast scenes: every task, each as often as asked for."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from llava_aurora.data.images.crop import crop
from llava_aurora.data.images.image_files import open_image, save_png
from llava_aurora.data.images.seen_colors import seen_colors
from llava_aurora.data.sources.scenes.phrases import unique_phrases
from llava_aurora.data.sources.scenes.scene import COLORS, SHAPES
from llava_aurora.data.sources.scenes.scene_folder import SceneRecord, mean_depth, read_scenes, scene_masks
from llava_aurora.data.store.record_file import refuse_other_than_records
from llava_aurora.errors import AuroraError
from llava_aurora.files import write_json
from llava_aurora.progress import tracked
from llava_aurora.tasks.annotated import AnnotatedImage, AnnotatedObject, Drawing
from llava_aurora.tasks.depth_tasks import DepthTask
from llava_aurora.tasks.marks import mark_points
from llava_aurora.tasks.records import RecordWriter, write_records
from llava_aurora.tasks.registry import task_named, task_of
from llava_aurora.tasks.task import Record
from llava_aurora.vqvae.maps import read_depth_map

MEAN_DEPTH = "mean_depth.png"  # in the folder of scenes
MOST_COUNTED = 4
# The paper's mixture asks for maps and for answers; locating points and points given by coordinates are added, since
# its maps are right more often than its answers.
DEFAULT_SHARES: Mapping[str, float] = {
    "depth_generation": 1.0,
    "depth_chain": 1.0,
    "depth_direct": 1.0,
    "depth_chain_from_coordinates": 1.0,
    "depth_direct_from_coordinates": 1.0,
    "point_location": 1.0,
    "box_generation": 1.0,
    "counting_chain": 1.0,
    "counting_direct": 1.0,
}


@dataclass(frozen=True, kw_only=True)
class SceneTasks:
    """What to ask of each scene."""

    shares: Mapping[str, float]  # records of each task a scene, on average; 0.5 asks it of every second scene
    drawing: Drawing = field(default_factory=Drawing)  # what is drawn of a scene
    seed: int = 0  # of everything that is drawn at random

    def __post_init__(self) -> None:
        for name in self.shares:
            task_named(name)


def write_scene_records(
    out: Path,
    *,
    scenes: Path,
    codes: Mapping[str, Sequence[int]],
    writer: RecordWriter,
    tasks: SceneTasks,
    keep: Callable[[Record], bool] | None = None,
) -> list[Record]:
    """Writes a JSON file in LLaVA's format; its image paths are relative to `scenes`, where marked images are put.

    Nothing can be guessed: the points of a question are drawn against the mean map of the scenes (`sample_points`),
    which is put beside them for `--fresh_points`, and each count is asked for as often as the others, unless `tasks`
    says which.

    Args:
        scenes: a folder that `write_scenes` made.
        codes: codes of each depth map by its name, from `read_codes`.
        keep: whether a record is written; all are if left out.
    Raises AuroraError naming file and scene, if one cannot be read, has no codes, a depth map of another size than its
    image, or a box outside of it; if `out` is there and holds no records.
    """
    refuse_other_than_records(out)
    records: list[Record] = []
    known = read_scenes(scenes)
    mean = np.rint(mean_depth(scenes, side=known[0].size[0])).astype(np.uint8)
    save_png(scenes / MEAN_DEPTH, mean)
    if tasks.drawing.counts is None:
        tasks = replace(tasks, drawing=replace(tasks.drawing, counts=even_counts(known)))
    for scene in tracked(known, "Writing records"):
        try:
            records += _ask(scene, folder=scenes, codes=codes, mean=mean, writer=writer, tasks=tasks, keep=keep)
        except AuroraError as error:
            raise AuroraError(f"{scenes / 'scenes.jsonl'}: scene {scene.id}: {error}") from error
    if not records:
        raise AuroraError(f"{scenes}: none of these tasks could be asked about its scenes; nothing was written")
    write_json(out, records, indent=None)
    return records


def even_counts(scenes: Sequence[SceneRecord]) -> dict[int, float]:
    """Shares in which counts from 0 to MOST_COUNTED are to be drawn so that each is asked for as often as the others.

    A count that fewer scenes have is drawn more often; one that hardly any has is left out.
    """
    held: Counter[int] = Counter()
    for scene in scenes:
        held.update(set(Counter((item.color, item.shape) for item in scene.objects).values()) | {0})
    rare = {count: len(scenes) / held[count] for count in range(MOST_COUNTED + 1) if held[count] > len(scenes) / 50}
    return {count: each / sum(rare.values()) for count, each in rare.items()}


def annotated_scene(
    folder: Path, scene: SceneRecord, *, codes: Mapping[str, Sequence[int]], with_depth: bool = True
) -> AnnotatedImage:
    """A scene with its true depth and objects.

    Args:
        folder: that `write_scenes` made.
        codes: by token kind, of the whole image.
        with_depth: read its depth map and masks.
    Raises AuroraError naming a depth map or masks that cannot be read or are of another size than the image.
    """
    depth = read_depth_map(folder / scene.depth) if with_depth else None
    if depth is not None and depth.shape != scene.size[::-1]:
        raise AuroraError(
            f"{folder / scene.depth}: the depth map is {depth.shape[1]} × {depth.shape[0]} pixels, its image"
            f" {scene.size[0]} × {scene.size[1]}; make them again (`llava-aurora data scenes`)"
        )
    masks = dict(enumerate(scene_masks(folder, scene) if with_depth else []))
    phrases = unique_phrases(scene.objects, scene.size[0])
    present = {_names(item.color, item.shape) for item in scene.objects}
    things = [_names(color, shape) for color in COLORS for shape in SHAPES]
    return AnnotatedImage(
        name=scene.id,
        size=scene.size,
        depth=depth,
        codes=codes,
        objects=[
            AnnotatedObject(
                *_names(item.color, item.shape), item.box, mask=masks.get(number), phrases=named, color=item.color
            )
            for number, (item, named) in enumerate(zip(scene.objects, phrases, strict=True))
        ],
        absent=[names for names in things if names not in present],
        colors=tuple(COLORS),
        seen_colors=partial(_seen_colors, folder / scene.image),
    )


def _seen_colors(path: Path) -> np.ndarray:
    return seen_colors(open_image(path, upright=False, on_white=False), aspect_ratio="resize")


def _names(color: str, shape: str) -> tuple[str, str]:
    return f"{color} {shape}", f"{color} {shape}s"


def _ask(
    scene: SceneRecord,
    *,
    folder: Path,
    codes: Mapping[str, Sequence[int]],
    mean: np.ndarray,
    writer: RecordWriter,
    tasks: SceneTasks,
    keep: Callable[[Record], bool] | None,
) -> list[Record]:
    """The records of one scene; they depend on its id, the seed and what the folder's scenes are like."""
    name, drawing = Path(scene.depth).stem, tasks.drawing
    if name not in codes:
        raise AuroraError(
            f"{folder / scene.depth}: has no codes; encode the folder again (`llava-aurora vqvae encode`)"
        )
    annotated = replace(annotated_scene(folder, scene, codes={"depth": codes[name]}), mean_depth=mean)
    marked_image = f"marked/{scene.id}.png"
    made = write_records(
        annotated,
        image=scene.image,
        marked_image=marked_image,
        shares=tasks.shares,
        drawing=drawing,
        writer=writer,
        seed=tasks.seed,
    )
    records = list(filter(keep, made))  # before an image is marked for one
    marked = [record for record in records if record.get("image") == marked_image]
    if marked:
        shown = mark_points(_open(folder, scene), marked[0]["aurora"]["points"], frame=drawing.frame)
        save_png(folder / marked_image, shown)
    for record in records:
        record["aurora"]["depth"] = scene.depth
        if "points" in record["aurora"]:  # how to draw them anew
            task = task_of(record)
            if drawing.read_points and isinstance(task, DepthTask) and task.points == "read":
                record["aurora"]["any_points"] = True
            else:
                record["aurora"]["mean_depth"] = MEAN_DEPTH
                if drawing.one_height:
                    record["aurora"]["one_height"] = True
        if isinstance(record.get("image"), list):
            box = [edge * scene.size[0] / drawing.frame for edge in record["aurora"]["boxes"][0]]
            save_png(folder / record["image"][1], crop(_open(folder, scene), box))
        if record.get("image") == marked_image:
            record["aurora"]["unmarked"] = scene.image  # see transforms/fresh.py
    return records


def _open(folder: Path, scene: SceneRecord) -> Image.Image:
    return open_image(folder / scene.image, upright=False, on_white=False)
