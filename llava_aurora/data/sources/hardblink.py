"""HardBLINK: which of 3, 4 or 5 points at mid height is closest. Reads its files, and makes such files of other images.

The published layout, with n points in each image:

    images/blink{n}pointscenter/N.png               336 × 336, points marked
    questions/blink_{n}pointscenter_questions.jsonl  question_id, image, text, category
    answers/blink_{n}pointscenter_answers.jsonl      question_id, text: the letter in brackets, category
"""

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava_aurora.data.images.image_files import opened_image, path_inside, refuse_turned, to_rgb
from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_folder, read_json_lines, write_text
from llava_aurora.found_files import find_files
from llava_aurora.progress import tracked
from llava_aurora.tasks.forms import LETTERS
from llava_aurora.tasks.marks import depth_at, depth_radius, draw_points, sample_points
from llava_aurora.tasks.points import closest, letter_points
from llava_aurora.vqvae.depth_scale import DepthScale
from llava_aurora.vqvae.maps import MAP_SUFFIXES, read_depth_map, resize_nearest

FRAME = 336
MARGIN = 10  # pixels left and right of all points
# Rows of the highest and lowest points in eight published questions of each kind, without one with five points that
# goes down to row 310. Where these rows hold no points far enough apart, all rows are used.
MID_HEIGHT: Mapping[int, tuple[int, int]] = {3: (115, 207), 4: (99, 224), 5: (98, 224)}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
CATEGORY = "relative_depth"
TEXT = (
    "Points are marked in the image by circles, each with a letter next to it. Which of them is nearest to the camera?"
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkQuestion:
    """One question of a benchmark."""

    id: int
    image: Path  # path of the marked image
    text: str  # the question, without options
    answer: str  # the letter of the closest point
    points: int  # how many are marked


# --- reading ----------------------------------------------------------------------------------------------------------


def read_hardblink(folder: str | Path, points: int) -> list[BenchmarkQuestion]:
    """Questions of a folder in the published layout, in the order of its question file.

    Args: points: 3, 4 or 5, or another number for which the folder has files.
    Raises AuroraError naming file and line, if a file is missing or malformed, the ids of questions and answers differ,
    an image is missing or outside of its folder, or an answer is no letter of a point.
    """
    folder = Path(folder)
    _, questions_path, answers_path = _paths(folder, points)
    answers = {id: (text, where) for where, id, text, _ in _lines(answers_path)}
    questions = []
    for where, id, text, line in _lines(questions_path):
        if id not in answers:
            raise AuroraError(f"{where}: question {id} has no answer in {answers_path}")
        answer, answered = answers.pop(id)
        letter = re.fullmatch(r"\s*\(?([A-Z])\)?\s*", answer)
        if letter is None or letter[1] not in LETTERS[:points]:
            raise AuroraError(f"{answered}: {answer!r} is none of ({LETTERS[0]}) to ({LETTERS[points - 1]})")
        image = _image(folder, points, line.get("image"), where)
        questions.append(BenchmarkQuestion(id=id, image=image, text=text, answer=letter[1], points=points))
    if answers:
        id, (_, where) = next(iter(answers.items()))
        raise AuroraError(f"{where}: there is no question {id} in {questions_path}")
    return questions


def _image(folder: Path, points: int, name: Any, where: str) -> Path:
    images, _, _ = _paths(folder, points)
    if not isinstance(name, str):
        raise AuroraError(f"{where}: 'image' is the name of a file, not {name!r}")
    try:
        path = path_inside(images, name)
    except AuroraError as error:
        raise AuroraError(f"{where}: {error}") from error
    if not path.is_file():
        raise AuroraError(f"{where}: there is no image {path}")
    return path


def _lines(path: Path) -> Iterator[tuple[str, int, str, dict[str, Any]]]:
    """Place, question_id, text and the whole entry of each line; ids are unique and there is at least one line."""
    seen = set()
    for where, entry in read_json_lines(path, what="HardBLINK file"):
        if not isinstance(entry, dict) or type(entry.get("question_id")) is not int:
            raise AuroraError(f"{where}: no integer under 'question_id'")
        if not isinstance(entry.get("text"), str):
            raise AuroraError(f"{where}: there is no text under 'text'")
        if entry["question_id"] in seen:
            raise AuroraError(f"{where}: question {entry['question_id']} occurs twice")
        seen.add(entry["question_id"])
        yield where, entry["question_id"], entry["text"], entry
    if not seen:
        raise AuroraError(f"{path}: it holds no questions")


def _paths(folder: Path, points: int) -> tuple[Path, Path, Path]:
    """Folder of images, file of questions, file of answers."""
    name = f"blink_{points}pointscenter"
    return (
        folder / "images" / name.replace("_", ""),
        folder / "questions" / f"{name}_questions.jsonl",
        folder / "answers" / f"{name}_answers.jsonl",
    )


# --- making -----------------------------------------------------------------------------------------------------------


@dataclass
class HardblinkReport:
    """What was made: questions by their number of points, one line for each failure, and files passed over by kind."""

    counts: dict[int, int]
    failures: list[str]
    passed_over: Counter[str]


def write_hardblink(
    out: Path, *, images: Path, depth: Path, scale: DepthScale | None = None, seed: int = 0
) -> HardblinkReport:
    """Makes questions with 3, 4 and 5 points from images and their depth maps.

    Images are resized to 336 × 336 whatever their ratio, as the published ones are. The id of an image in all three
    sets is its position among all images, sorted by path; one without enough points is left out, which leaves a gap in
    the ids. Points and letters depend on the path of the image, the number of points and the seed.

    Args:
        out: a folder to make.
        images: a folder of .jpg, .jpeg, .png or .webp files, in folders inside too.
        depth: a folder of maps with the paths of the images but for the suffix, higher = closer, see `read_depth_map`;
            each of its image's ratio, or square if the image was resized to a square first.
        scale: what the values of the maps mean, if not relative depth.
        seed: of points and letters.
    Raises AuroraError if `out` is not empty, there are no images or maps, or no question could be made.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AuroraError(f"{out}: is not empty; choose another folder")
    found, found_maps = find_files(images, IMAGE_SUFFIXES), find_files(depth, MAP_SUFFIXES)
    maps = {path.relative_to(depth).with_suffix("").as_posix(): path for path in found_maps.paths}
    lines: dict[int, list[tuple[str, str]]] = {count: [] for count in MID_HEIGHT}
    failures: list[str] = []
    with atomic_folder(out) as folder:
        for id, path in enumerate(tracked(found.paths, "Marking points")):
            name = path.relative_to(images).with_suffix("").as_posix()
            try:
                image, relative_depth = _load(path, maps.get(name), depth / name, scale)
            except AuroraError as error:
                failures.append(str(error))
                continue
            for count in MID_HEIGHT:
                rng = np.random.default_rng([seed, count, zlib.crc32(name.encode())])
                if line := _mark(folder, id, image, relative_depth, count, rng):
                    lines[count].append(line)
                else:
                    failures.append(f"{path}: its depth map has no {count} points far enough apart")
        if not any(lines.values()):
            raise AuroraError(f"{images}: no question could be made; the first failure: {failures[0]}")
        for count, written in lines.items():
            _, questions_path, answers_path = _paths(folder, count)
            write_text(questions_path, "".join(question for question, _ in written))
            write_text(answers_path, "".join(answer for _, answer in written))
    counts = {count: len(written) for count, written in lines.items()}
    return HardblinkReport(counts, failures, found.passed_over + found_maps.passed_over)


def _load(path: Path, map_path: Path | None, expected: Path, scale: DepthScale | None) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (336, 336, 3) and relative depth uint8 (336, 336)."""
    if map_path is None:
        raise AuroraError(f"{path}: there is no depth map {expected}.png or .npy")
    with opened_image(path) as picture:
        refuse_turned(picture, path)
        width, height = picture.size
        image = np.array(to_rgb(picture, upright=False, on_white=True).resize((FRAME, FRAME), Image.Resampling.BICUBIC))
    relative_depth = read_depth_map(map_path, scale)
    rows, columns = relative_depth.shape
    if rows != columns and abs(columns * height - rows * width) > max(rows, columns, width, height):
        raise AuroraError(f"{map_path}: the depth map is {columns} × {rows} pixels, its image {width} × {height}")
    return image, resize_nearest(relative_depth, (FRAME, FRAME))


def _mark(
    folder: Path, id: int, image: np.ndarray, relative_depth: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[str, str] | None:
    """Writes the marked image; returns its lines of questions and answers, or None if there are too few points."""
    first, last = MID_HEIGHT[count]
    reach = depth_radius(FRAME, FRAME)
    middle = np.zeros_like(relative_depth)  # 0 is unknown depth, where no point is put
    middle[first - reach : last + reach + 1] = relative_depth[first - reach : last + reach + 1]
    for allowed in (middle, relative_depth):
        positions = sample_points(relative_depth=allowed, count=count, rng=rng, margin=MARGIN)
        if positions is not None:
            break
    else:
        return None
    points = letter_points(positions, [depth_at(relative_depth, place) for place in positions], rng)
    path = _paths(folder, count)[0] / f"{id}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    marked = draw_points(image, [(point.x, point.y) for point in points], [point.letter for point in points])
    Image.fromarray(marked).save(path, format="PNG")
    answer = closest(points).letter
    about = {"question_id": id, "image": path.name, "text": TEXT, "category": CATEGORY}
    answered = {"question_id": id, "text": f"({answer})", "category": CATEGORY}
    return json.dumps(about) + "\n", json.dumps(answered) + "\n"
