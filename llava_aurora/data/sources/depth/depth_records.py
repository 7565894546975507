"""Training records about the depth of photographs, from a folder of images and a folder of their depth maps.

image and depth map -> the square frame that training shows -> codes of the map in it, points -> records
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.images.image_files import SUFFIXES, opened_image, refuse_turned, save_png
from llava_aurora.data.sources.made_records import MadeRecords, check_aspect_ratio
from llava_aurora.errors import AuroraError
from llava_aurora.found_files import find_files
from llava_aurora.progress import tracked
from llava_aurora.tasks.annotated import AnnotatedImage, Drawing
from llava_aurora.tasks.depth_tasks import TASKS, DepthTask
from llava_aurora.tasks.marks import PLATE_REACH, draw_points
from llava_aurora.tasks.records import RecordWriter, write_records
from llava_aurora.tasks.registry import task_of
from llava_aurora.tasks.task import Record
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.vqvae.depth_scale import DepthScale
from llava_aurora.vqvae.maps import read_depth_map

# As AURORA: maps to be written, chains and direct questions about marked points; and the same points by coordinates.
DEFAULT_SHARES: Mapping[str, float] = dict.fromkeys(
    (
        "depth_generation",
        "depth_chain",
        "depth_direct",
        "depth_chain_from_coordinates",
        "depth_direct_from_coordinates",
    ),
    1.0,
)
_RATIO = 0.02  # by which the aspect ratios of an image and its depth map may differ


@dataclass(frozen=True, kw_only=True)
class DepthTasks:
    """What to ask of each photograph."""

    # records of each task an image, on average
    shares: Mapping[str, float] = field(default_factory=lambda: DEFAULT_SHARES)
    drawing: Drawing = field(default_factory=Drawing)  # what is drawn of it
    aspect_ratio: str = "resize"  # how training gets images into the frame, see `FrameTransform.of`
    validation_share: float = 0.0  # of the images, in [0, 1)
    seed: int = 0  # of everything that is drawn at random

    def __post_init__(self) -> None:
        known = [task.name for task in TASKS]
        if unknown := set(self.shares) - set(known):
            raise AuroraError(f"unknown task {sorted(unknown)[0]!r} about depth; available: {', '.join(known)}")
        check_aspect_ratio(self.aspect_ratio)


@dataclass(kw_only=True)
class DepthRecords(MadeRecords):
    """What was made."""

    # whether the records say where their depth maps lie, so that points can be drawn anew each epoch
    redrawable: bool = False


def write_depth_records(
    out: Path,
    *,
    images: Path,
    depth: Path,
    kind: DepthKind,
    writer: RecordWriter,
    tasks: DepthTasks,
    marked: str = "aurora_marked",
    scale: DepthScale | None = None,
    codes: Mapping[str, Sequence[int]] | None = None,
    validation_out: Path | None = None,
) -> DepthRecords:
    """Writes a JSON file in LLaVA's format; its image paths are relative to `images`.

    Args:
        out, validation_out: the JSON files; the second is needed just if `tasks.validation_share` is not 0.
        depth: the map of `a/b.jpg` is `a/b.png` or `a/b.npy` here: relative depth, uint8, higher = closer, 0 = unknown.
        kind: encodes the maps, each as the frame shows it.
        marked: folder inside `images` for copies with the points drawn in.
        scale: what the values of the maps mean, if not that; points cannot be drawn anew in such maps.
        codes: of the whole maps by name, from `read_codes`, in the place of encoding; for the aspect ratio "resize".
    Raises AuroraError if there are no images, arguments do not go together, or no record could be written; nothing is
    written then but marked copies. What cannot be used of single images is in `failures`.
    """
    if codes is not None and tasks.aspect_ratio != "resize":
        raise AuroraError(
            f"codes of whole maps need the aspect ratio resize, not {tasks.aspect_ratio}; leave --codes out"
        )
    inside = depth.resolve().is_relative_to(images.resolve()) and scale is None
    share, seed = tasks.validation_share, tasks.seed
    made = DepthRecords(out=out, validation_out=validation_out, validation_share=share, seed=seed, redrawable=inside)
    found = find_files(images, SUFFIXES)
    made.passed_over = found.passed_over
    for path in tracked(found.paths, "Writing records"):
        name = path.relative_to(images)
        if name.parts[0] == marked:
            made.passed_over["marked copies"] += 1
            continue
        if path.is_relative_to(depth):
            made.passed_over["depth maps"] += 1
            continue
        map_path = next((p for s in (".png", ".npy") if (p := depth / name.with_suffix(s)).is_file()), None)
        if map_path is None:
            made.passed_over["images without a depth map"] += 1
            continue
        try:
            whole = read_depth_map(map_path, scale)
            records = _ask(
                path, name, map_path, whole, kind=kind, writer=writer, tasks=tasks, marked=marked, codes=codes
            )
        except AuroraError as error:
            made.failures.append(str(error))
            continue
        if inside:
            for record in records:
                record["aurora"]["depth"] = map_path.resolve().relative_to(images.resolve()).as_posix()
        made.of_image(str(name)).extend(records)
    made.write(lacking="no image has a depth map with room for two points")
    return made


def _ask(
    path: Path,
    name: Path,
    map_path: Path,
    whole: np.ndarray,
    *,
    kind: DepthKind,
    writer: RecordWriter,
    tasks: DepthTasks,
    marked: str,
    codes: Mapping[str, Sequence[int]] | None,
) -> list[Record]:
    """The records of one image; they depend on its name and the seed alone. Raises AuroraError naming the file."""
    frame = tasks.drawing.frame
    with opened_image(path) as picture:
        refuse_turned(picture, path)
        width, height = picture.size
    if abs(whole.shape[1] / whole.shape[0] * height / width - 1) > _RATIO:
        raise AuroraError(
            f"{map_path}: {whole.shape[1]} × {whole.shape[0]} pixels, its image {width} × {height}: not the same shape"
        )
    into = FrameTransform.of(width=whole.shape[1], height=whole.shape[0], frame=frame, aspect_ratio=tasks.aspect_ratio)
    seen, key = into.view(whole), name.with_suffix("").as_posix()
    if codes is not None and key not in codes:
        raise AuroraError(f"{map_path}: has no codes; encode the folder again (`llava-aurora vqvae encode`)")
    annotated = AnnotatedImage(
        name=key,
        size=(frame, frame),
        depth=seen,
        codes={"depth": codes[key] if codes is not None else kind.encode(seen)},
    )
    # Where the frame cuts the image off, it must not cut off a letter.
    cut = min(into.shift) < 0
    drawing = replace(tasks.drawing, margin=round(PLATE_REACH * frame)) if cut else tasks.drawing
    copy = f"{marked}/{key}.png"
    records = list(
        write_records(
            annotated,
            image=name.as_posix(),
            marked_image=copy,
            shares=tasks.shares,
            drawing=drawing,
            writer=writer,
            seed=tasks.seed,
        )
    )
    shown = [record for record in records if record.get("image") == copy]
    if shown:
        _mark(path, shown[0]["aurora"]["points"], path.parents[len(name.parts) - 1] / copy, tasks)
    for record in records:
        record["aurora"] |= {"aspect_ratio": tasks.aspect_ratio, "frame": frame}
        if record.get("image") == copy:
            record["aurora"]["unmarked"] = name.as_posix()
        task = task_of(record)
        if tasks.drawing.read_points and isinstance(task, DepthTask) and task.points == "read":
            record["aurora"]["any_points"] = True
        elif tasks.drawing.one_height and "points" in record["aurora"]:
            record["aurora"]["one_height"] = True
    return records


def _mark(path: Path, points: Mapping[str, Sequence[int]], copy: Path, tasks: DepthTasks) -> None:
    """Writes a copy of an image, in its own size, with points of the frame drawn in."""
    frame = tasks.drawing.frame
    with opened_image(path) as picture:
        image = picture.convert("RGB")
    into = FrameTransform.of(width=image.width, height=image.height, frame=frame, aspect_ratio=tasks.aspect_ratio)
    places = [into.place(point, image.size) for point in points.values()]
    drawn = draw_points(np.asarray(image), places, list(points), side=round(frame / max(into.scale)))
    save_png(copy, drawn)
