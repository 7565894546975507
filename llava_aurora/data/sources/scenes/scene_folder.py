"""Scenes on disk: many rendered through several processes, and read back as records.

A folder holds

    scenes.json         seed and configuration of all its scenes
    scenes.jsonl        one line a scene, written last: what it lists is there and whole; of each object, with what
                        phrases it can be named alone
    images/NNNNNN.png   8-bit colour
    depth/NNNNNN.png    8-bit relative depth, higher = closer (`scenes.relative_depth`)
    instances/NNNNNN.png    8-bit numbers: 0 is the room, n the n-th object of the scene's line
    metric/NNNNNN.png   16-bit z-depth in millimetres, if asked for
"""

import json
import multiprocessing
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llava_aurora.batches import batches
from llava_aurora.data.images.image_files import open_image, path_inside, save_png
from llava_aurora.data.sources.scenes.phrases import unique_phrases
from llava_aurora.data.sources.scenes.scene import SceneConfig, SceneObject, relative_depth, render_scene, scene_seed
from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json_lines, write_text
from llava_aurora.ownership import claim_folder
from llava_aurora.progress import count_bars
from llava_aurora.vqvae.maps import read_depth_map, resize_nearest

# Raised whenever the same seed would no longer give the same pixels, so that a folder never mixes two renderers.
RENDERER = 1

_BATCH = 16  # scenes a worker makes between two reports
_LISTED_AT_LEAST_EVERY = 512


@dataclass(frozen=True, kw_only=True)
class SceneRecord:
    """One line of scenes.jsonl."""

    id: str  # six digits, the scene's index in the collection
    # image, depth: paths relative to the folder
    image: str
    depth: str
    instances: str | None  # the same for the objects' numbers; None in folders made before they were saved
    metric_depth: str | None  # the same for the 16-bit depth in millimetres; None if it was not asked for
    size: tuple[int, int]  # (width, height) in pixels
    objects: tuple[SceneObject, ...]  # from left to right, see `SceneObject`


def write_scenes(
    *, out: str | Path, count: int, seed: int, config: SceneConfig, workers: int = 1, metric_depth: bool = False
) -> list[SceneRecord]:
    """Renders the first `count` scenes of a seed into a folder, with a progress bar.

    A scene depends on seed, index and configuration alone, never on `count` or `workers`. Scenes that the folder lists
    already are kept as they are, so that a stopped run resumes.

    Args:
        workers: processes; 1 renders in this one.
        metric_depth: also write 16-bit depth in millimetres.
    Returns: The records of the folder, `count` of them.
    Raises AuroraError if the folder holds scenes of another seed or configuration, or anything else; if it cannot be
    written; if `count` or `workers` is not positive; if a scene cannot be made (see `render_scene`).
    """
    out = Path(out)
    if count < 1 or workers < 1:
        raise AuroraError(f"{out}: count ({count}) and workers ({workers}) must be at least 1")
    settings = {"renderer": RENDERER, "seed": seed, "metric_depth": metric_depth, "config": asdict(config)}
    claim_folder(out, "scenes.json", settings, what="scenes")
    done = {int(record.id): record for record in _whole_records(out) if int(record.id) < count}
    missing = [index for index in range(count) if index not in done]
    portions = list(batches(missing, _BATCH))
    arguments = (out, seed, config, metric_depth)
    listed = len(done)
    try:
        with count_bars() as progress:
            bar = progress.add_task("rendering scenes", total=count, completed=len(done))
            for records in _in_processes(portions, arguments, workers=workers):
                done.update((int(record.id), record) for record in records)
                progress.advance(bar, len(records))
                if len(done) - listed >= max(_LISTED_AT_LEAST_EVERY, listed // 4):
                    _list(out, done)
                    listed = len(done)
    except BrokenProcessPool as error:
        raise AuroraError(
            f"{out}: a worker process died after {len(done)} of {count} scenes; run again with fewer workers to resume"
        ) from error
    finally:
        _list(out, done)
    return [done[index] for index in range(count)]


def read_scenes(folder: str | Path) -> list[SceneRecord]:
    """Records of a folder that `write_scenes` made, in order.

    Raises AuroraError if scenes.jsonl is missing or empty, or a line is not a scene: names file and line.
    """
    records = _records(Path(folder))
    if not records:
        raise AuroraError(
            f"{Path(folder) / 'scenes.jsonl'}: holds no scenes; make them with `llava-aurora data scenes`"
        )
    return records


def _records(folder: Path) -> list[SceneRecord]:
    path = folder / "scenes.jsonl"
    if not path.exists():
        raise AuroraError(f"{path}: there are no scenes; make them with `llava-aurora data scenes`")
    return [_parse(value, where) for where, value in read_json_lines(path, what="scenes")]


def scene_masks(folder: Path, scene: SceneRecord) -> list[np.ndarray]:
    """The pixels of each object, bool (H, W); none for a scene of a folder made before they were saved.

    Raises AuroraError naming the file, if it is missing or holds other objects than the scene.
    """
    if scene.instances is None:
        return []
    numbers = np.asarray(open_image(folder / scene.instances, upright=False, on_white=False).convert("L"))
    count = len(scene.objects)
    if numbers.shape != scene.size[::-1] or set(np.unique(numbers)) - {0} != set(range(1, count + 1)):
        raise AuroraError(
            f"{folder / scene.instances}: does not hold the pixels of the scene's {count} objects; make the folder"
            " again (`llava-aurora data scenes`)"
        )
    return [numbers == number for number in range(1, count + 1)]


def mean_depth(folder: str | Path, *, side: int) -> np.ndarray:
    """float64 (side, side): the mean of the first thousand depth maps of a folder that `write_scenes` made.

    What can be known of a scene's depth without looking at it. Raises AuroraError, naming scene and map, if one cannot
    be read.
    """
    maps = []
    for scene in read_scenes(folder)[:1000]:
        try:
            maps.append(resize_nearest(read_depth_map(Path(folder) / scene.depth), (side, side)))
        except AuroraError as error:
            raise AuroraError(f"{Path(folder) / 'scenes.jsonl'}: scene {scene.id}: {error}") from error
    return np.mean(maps, axis=0)


def _whole_records(out: Path) -> Iterable[SceneRecord]:
    """Records listed in the folder whose files are all there."""
    if not (out / "scenes.jsonl").exists():
        return []
    return [record for record in _records(out) if all((out / name).exists() for name in _files(record))]


def _files(record: SceneRecord) -> list[str]:
    names = (record.image, record.depth, record.instances, record.metric_depth)
    return [name for name in names if name is not None]


def _in_processes(
    portions: list[list[int]], arguments: tuple[Path, int, SceneConfig, bool], *, workers: int
) -> Iterator[list[SceneRecord]]:
    """Results of `_render_batch`, as they come."""
    if min(workers, len(portions)) < 2:
        for batch in portions:
            yield _render_batch(batch, *arguments)
        return
    # Fresh processes: a fork of one that has run torch can hang in its threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(portions)), mp_context=context) as pool:
        try:
            for future in as_completed([pool.submit(_render_batch, batch, *arguments) for batch in portions]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _render_batch(indices: list[int], out: Path, seed: int, config: SceneConfig, metric: bool) -> list[SceneRecord]:
    return [_write_scene(index, out, seed, config, metric) for index in indices]


def _write_scene(index: int, out: Path, seed: int, config: SceneConfig, metric: bool) -> SceneRecord:
    scene = render_scene(seed=scene_seed(seed, index), config=config)
    name = f"{index:06d}"
    record = SceneRecord(
        id=name,
        image=f"images/{name}.png",
        depth=f"depth/{name}.png",
        instances=f"instances/{name}.png",
        metric_depth=f"metric/{name}.png" if metric else None,
        size=(config.frame, config.frame),
        objects=scene.objects,
    )
    save_png(out / record.image, scene.image)
    save_png(out / record.depth, relative_depth(scene.depth))
    save_png(out / f"instances/{name}.png", scene.instances.astype(np.uint8))
    if record.metric_depth is not None:
        save_png(out / record.metric_depth, np.rint(scene.depth * 1000).astype(np.uint16))
    return record


def _list(out: Path, records: Mapping[int, SceneRecord]) -> None:
    write_text(out / "scenes.jsonl", "".join(_line(records[index]) for index in sorted(records)))


def _line(record: SceneRecord) -> str:
    phrases = unique_phrases(record.objects, record.size[0])
    objects = [
        {"name": item.name, **asdict(item), "phrases": named}
        for item, named in zip(record.objects, phrases, strict=True)
    ]
    return json.dumps({**asdict(record), "objects": objects}) + "\n"


def _parse(value: Any, where: str) -> SceneRecord:
    try:
        objects = []
        for item in value["objects"]:
            x1, y1, x2, y2 = map(_whole, item["box"])
            numbers = {"near": float(item["near"]), "far": float(item["far"])}
            seen = _whole(item["visible_pixels"])
            color, shape = str(item["color"]), str(item["shape"])
            objects.append(SceneObject(color=color, shape=shape, box=(x1, y1, x2, y2), visible_pixels=seen, **numbers))
        width, height = map(_whole, value["size"])
        if not re.fullmatch(r"[0-9]{6,}", value["id"]):
            raise ValueError(f"its id is {value['id']!r}")
        instances, metric_depth = (value.get(name) for name in ("instances", "metric_depth"))
        return SceneRecord(
            id=value["id"],
            image=_inside(value["image"]),
            depth=_inside(value["depth"]),
            instances=None if instances is None else _inside(instances),
            metric_depth=None if metric_depth is None else _inside(metric_depth),
            size=(width, height),
            objects=tuple(objects),
        )
    except KeyError as error:
        raise AuroraError(f"{where}: the scene has no {error}; make the folder again") from error
    except (AuroraError, TypeError, ValueError) as error:
        raise AuroraError(f"{where}: this is not a scene ({error}); make the folder again") from error


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an integer")
    return value


def _inside(name: Any) -> str:
    """A path relative to the folder of scenes."""
    if not isinstance(name, str) or Path(name).is_absolute():
        raise TypeError(f"{name!r} is not a path inside the folder")
    path_inside(".", name)
    return name
