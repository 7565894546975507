"""Training records of ray-cast scenes: every task of records.py, each as often as asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from llava_aurora.data.records import LETTERS, MarkedPoint, Record, RecordWriter, letter_points
from llava_aurora.data.sources.points import Point, any_points, depth_at, draw_points, sample_points
from llava_aurora.data.sources.scenes.scene import COLORS, SHAPES
from llava_aurora.data.sources.scenes.scene_folder import SceneRecord, read_scenes
from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_file, write_json
from llava_aurora.tokens.box import BoxKind
from llava_aurora.vqvae.maps import read_depth_map

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
TASKS = (
    *DEFAULT_SHARES,
    "depth_reading",
    "depth_chain_from_map",
    "depth_reading_from_map",
)  # in the order in which chance draws, so that a new one goes last


@dataclass(frozen=True, kw_only=True)
class SceneTasks:
    """What to ask of each scene.

    Args:
        shares: records of each task a scene, on average; 0.5 asks it of every second scene.
        points: the allowed numbers of points in a question.
        coordinate_frame: side of the frame that coordinates refer to.
        one_height: puts the points of a question at about one height (`sample_points`).
        read_points: how many points a reading has, anywhere in the image (`any_points`); None: those of the questions.
        seed: of everything that is drawn at random.
    """

    shares: Mapping[str, float]
    points: Sequence[int] = (2, 3, 4, 5)
    coordinate_frame: int = 336
    one_height: bool = False
    read_points: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := set(self.shares) - set(TASKS):
            raise AuroraError(f"unknown task {sorted(unknown)[0]!r}; there are: {', '.join(TASKS)}")
        if self.read_points is not None and not 1 <= self.read_points <= len(LETTERS):
            raise AuroraError(f"{self.read_points} points to be read: from 1 to {len(LETTERS)} have a letter")


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

    Args:
        out: the JSON file.
        scenes: a folder that `write_scenes` made.
        codes: codes of each depth map by its name, from `read_codes`.
        writer: wording and tokens.
        tasks: what to ask.
        keep: whether a record is written; all are if left out.

    Raises:
        AuroraError: naming file and scene, if one cannot be read, has no codes, a depth map of another size than its
            image, or a box outside of it.
    """
    records: list[Record] = []
    for scene in track(read_scenes(scenes), description="Writing records", transient=True):
        try:
            records += _ask(scene, folder=scenes, codes=codes, writer=writer, tasks=tasks, keep=keep)
        except AuroraError as error:
            raise AuroraError(f"{scenes / 'scenes.jsonl'}: scene {scene.id}: {error}") from error
    write_json(out, records, indent=None)
    return records


def _ask(
    scene: SceneRecord,
    *,
    folder: Path,
    codes: Mapping[str, Sequence[int]],
    writer: RecordWriter,
    tasks: SceneTasks,
    keep: Callable[[Record], bool] | None,
) -> list[Record]:
    """The records of one scene; they depend on its id and the seed alone."""
    rng = np.random.default_rng([tasks.seed, int(scene.id)])
    name = Path(scene.depth).stem
    if name not in codes:
        raise AuroraError(
            f"{folder / scene.depth}: has no codes; encode the folder again (`llava-aurora vqvae encode`)"
        )
    depth = read_depth_map(folder / scene.depth)
    if depth.shape != scene.size[::-1]:
        raise AuroraError(
            f"{folder / scene.depth}: the depth map is {depth.shape[1]} × {depth.shape[0]} pixels, its image"
            f" {scene.size[0]} × {scene.size[1]}; make them again (`llava-aurora data scenes`)"
        )
    points = _points(depth, rng, tasks)
    marked_image = f"marked/{scene.id}.png"
    image: dict[str, Any] = {"name": scene.id, "image": scene.image, "rng": rng}
    thing: dict[str, Any] = {**image, **_thing(scene, rng, tasks.coordinate_frame)}
    marked: dict[str, Any] = {**image, "image": marked_image, "points": points}
    asked: dict[str, Any] = {**image, "marked": False, "points": points}

    def to_read() -> list[MarkedPoint]:
        return _points_to_read(depth, rng, tasks) if tasks.read_points else points

    makers: dict[str, Callable[[], Record]] = {
        "depth_generation": lambda: writer.depth_generation(codes=codes[name], **image),
        "depth_chain": lambda: writer.depth_chain(codes=codes[name], **marked),
        "depth_direct": lambda: writer.depth_direct(**marked),
        "depth_chain_from_coordinates": lambda: writer.depth_chain(codes=codes[name], **asked),
        "depth_direct_from_coordinates": lambda: writer.depth_direct(**asked),
        "point_location": lambda: writer.point_location(**marked),
        "box_generation": lambda: writer.box_generation(**thing),
        "counting_chain": lambda: writer.counting_chain(**thing),
        "counting_direct": lambda: writer.counting_direct(**thing),
        "depth_reading": lambda: writer.depth_reading(codes=codes[name], points=to_read(), **image),
        "depth_chain_from_map": lambda: writer.depth_chain_from_map(
            codes=codes[name], points=points, name=scene.id, rng=rng
        ),
        "depth_reading_from_map": lambda: writer.depth_reading_from_map(
            codes=codes[name], points=to_read(), name=scene.id, rng=rng
        ),
    }
    made = []
    for task, maker in makers.items():
        wanted = rng.random() < tasks.shares.get(task, 0.0)
        if wanted and (points or not task.startswith(("depth_chain", "depth_direct", "depth_reading", "point"))):
            made.append(maker())
    records = list(filter(keep, made))  # before an image is marked for one
    if any(record.get("image") == marked_image for record in records):
        _mark(folder, scene, points, marked_image, tasks.coordinate_frame)
    for record in records:
        record["aurora"]["depth"] = scene.depth
        if "points" in record["aurora"]:  # how to draw them anew
            if tasks.read_points and record["aurora"]["task"].startswith("depth_reading"):
                record["aurora"]["any_points"] = True
            elif tasks.one_height:
                record["aurora"]["one_height"] = True
        if record.get("image") == marked_image:
            record["aurora"]["unmarked"] = scene.image  # see fresh_points.py
    return records


def _points(depth: np.ndarray, rng: np.random.Generator, tasks: SceneTasks) -> list[MarkedPoint]:
    """Points in the coordinate frame, lettered; none if the scene has no room for as many as were drawn."""
    count = int(rng.choice(list(tasks.points)))
    positions = sample_points(relative_depth=depth, count=count, rng=rng, one_height=tasks.one_height)
    return _lettered(positions or [], depth, rng, tasks)


def _points_to_read(depth: np.ndarray, rng: np.random.Generator, tasks: SceneTasks) -> list[MarkedPoint]:
    assert tasks.read_points is not None
    positions = any_points(depth, tasks.read_points, rng)
    if positions is None:
        raise AuroraError(f"its depth is known at fewer pixels than the {tasks.read_points} that are to be read")
    return _lettered(positions, depth, rng, tasks)


def _lettered(
    positions: Sequence[Point], depth: np.ndarray, rng: np.random.Generator, tasks: SceneTasks
) -> list[MarkedPoint]:
    """Pixels of a depth map as points of the coordinate frame."""
    if not positions:
        return []
    scale = tasks.coordinate_frame / depth.shape[1]
    depths = [depth_at(depth, position) for position in positions]
    return letter_points([(int(x * scale), int(y * scale)) for x, y in positions], depths, rng)


def _thing(scene: SceneRecord, rng: np.random.Generator, frame: int) -> dict[str, object]:
    """Something to count: mostly what is there, one time in five a kind drawn at random, often absent."""
    if scene.objects and rng.random() < 0.8:
        chosen = scene.objects[int(rng.integers(len(scene.objects)))]
        kind = (chosen.color, chosen.shape)
    else:
        kind = (str(rng.choice(list(COLORS))), str(rng.choice(list(SHAPES))))
    box = BoxKind(frame=frame)
    scale = frame / scene.size[0]
    found = [item for item in scene.objects if (item.color, item.shape) == kind]
    boxes = [box.encode([value * scale for value in item.box]) for item in found]
    singular = " ".join(kind)
    return {"singular": singular, "plural": f"{singular}s", "boxes": boxes}


def _mark(folder: Path, scene: SceneRecord, points: Sequence[MarkedPoint], name: str, frame: int) -> None:
    with Image.open(folder / scene.image) as picture:
        image = np.asarray(picture.convert("RGB"))
    scale = image.shape[1] / frame
    places = [(int(point.x * scale), int(point.y * scale)) for point in points]
    drawn = draw_points(image, places, [point.letter for point in points])
    with atomic_file(folder / name) as temporary:
        Image.fromarray(drawn).save(temporary, format="PNG", compress_level=3)
