"""Annotation files of LVIS and COCO: which boxes are in an image, and of which categories that is all there is.

Only what a count can rest on is kept. LVIS says for each image which categories are not labelled to the last instance
(`not_exhaustive_category_ids`) and which are known to be absent (`neg_category_ids`). In COCO every category is
labelled in every image, unless some of its instances are boxed as one crowd (`iscrowd`).
"""

import contextlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llava_aurora.data.images.frame import Box
from llava_aurora.errors import AuroraError

if TYPE_CHECKING:
    from pycocotools.coco import COCO

TOLERANCE = 1.0  # pixels by which rounding may put an edge outside of its image
_KEPT = ("id", "image_id", "category_id", "bbox", "iscrowd")
_NEEDED: Mapping[str, Mapping[str, type]] = {
    "images": {"id": int, "width": int, "height": int},
    "annotations": {"id": int, "image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """One image and what is surely in it, or surely not.

    Attributes:
        names: where its file may lie, relative to the image folder; the first that exists counts.
        width, height: in pixels, as annotated.
        boxes: all boxes (x1, y1, x2, y2) of a category by its id, in pixels of the image; only categories of which
            every instance is labelled.
        absent: ids of categories of which there is none.
    """

    id: int
    names: tuple[str, ...]
    width: int
    height: int
    boxes: Mapping[int, tuple[Box, ...]]
    absent: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class BoxAnnotations:
    """Attributes:
    categories: names by id, as the file spells them.
    images: in the order of their ids.
    failures: what of the file could not be used, one line each; its category is left out of that image.
    """

    categories: Mapping[int, str]
    images: list[AnnotatedImage]
    failures: list[str]


def read_annotations(path: str | Path) -> BoxAnnotations:
    """Reads an annotation file of LVIS (0.5 or 1) or COCO ("instances").

    Raises:
        AuroraError: naming the file, if it cannot be read or is none.
    """
    path = Path(path)
    index = _index(path)
    categories: dict[int, str] = {id: category["name"] for id, category in index.cats.items()}
    # LVIS lists absent categories for each image; a file without such lists labels all categories everywhere.
    federated = any("neg_category_ids" in image for image in index.imgs.values())
    failures = [
        f"{path}: annotation {annotation['id']}: there is no image {annotation['image_id']}"
        for annotation in index.anns.values()
        if annotation["image_id"] not in index.imgs
    ]
    images = []
    for id, image in sorted(index.imgs.items()):
        where = f"{path}: image {id}"
        boxes, doubtful = _boxes(image, index.imgToAnns.get(id, ()), categories, where, failures)
        left_out = doubtful | _ids(image, "not_exhaustive_category_ids", where)
        absent = _ids(image, "neg_category_ids", where) & set(categories) if federated else set(categories)
        images.append(
            AnnotatedImage(
                id=id,
                names=_names(image),
                width=image["width"],
                height=image["height"],
                boxes={category: tuple(found) for category, found in boxes.items() if category not in left_out},
                absent=tuple(sorted(absent - set(boxes) - left_out)),
            )
        )
    return BoxAnnotations(categories=categories, images=images, failures=failures)


def _index(path: Path) -> "COCO":
    """The file as pycocotools indexes it, without the outlines, which are most of what it holds."""
    try:
        from pycocotools.coco import COCO
    except ModuleNotFoundError as error:
        raise AuroraError("LVIS and COCO files are read with pycocotools: pip install 'llava-aurora[data]'") from error
    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file, object_hook=_without_outline)
    except OSError as error:
        raise AuroraError(f"{path}: cannot read the annotations: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise AuroraError(f"{path}: the annotations are not valid JSON: {error}") from error
    for part, needed in _NEEDED.items():
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not entries:
            raise AuroraError(f"{path}: no annotations of LVIS or COCO: a list under {part!r} is expected")
        for number, entry in enumerate(entries):
            for key, kind in needed.items():
                if not isinstance(entry, dict) or type(entry.get(key)) is not kind:
                    what = "whole number" if kind is int else "text"
                    raise AuroraError(f"{path}: entry {number} of {part!r} has no {what} under {key!r}")
        if len({entry["id"] for entry in entries}) < len(entries):
            raise AuroraError(f"{path}: an id occurs twice in {part!r}")
    index = COCO()
    index.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress by printing
        index.createIndex()
    return index


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in _KEPT if key in entry} if "bbox" in entry else entry


def _boxes(
    image: Mapping[str, Any], annotations: Any, categories: Mapping[int, str], where: str, failures: list[str]
) -> tuple[dict[int, list[Box]], set[int]]:
    """The boxes of an image by category, and the categories that no count can be made of."""
    boxes: dict[int, list[Box]] = {}
    doubtful = set()
    for annotation in annotations:
        category = annotation["category_id"]
        if category not in categories:
            failures.append(f"{where}: annotation {annotation['id']}: there is no category {category}")
            continue
        found = boxes.setdefault(category, [])
        try:
            found.append(_box(annotation.get("bbox"), image["width"], image["height"]))
        except ValueError as error:
            failures.append(f"{where}: annotation {annotation['id']} ({categories[category]}): {error}")
            doubtful.add(category)
        if annotation.get("iscrowd"):
            doubtful.add(category)
    return boxes, doubtful


def _box(values: Any, width: int, height: int) -> Box:
    """[x, y, width, height] as (x1, y1, x2, y2), cut to the image. ValueError if it is no box in the image."""
    if not isinstance(values, list) or len(values) != 4 or not all(_is_number(value) for value in values):
        raise ValueError(f"a box is [x, y, width, height], not {values}")
    x, y, across, down = values
    if across <= 0 or down <= 0:
        raise ValueError(f"the box {values} has no area")
    if min(x, y) < -TOLERANCE or x + across > width + TOLERANCE or y + down > height + TOLERANCE:
        raise ValueError(f"the box {values} leaves its image of {width} × {height} pixels")
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + across, width), min(y + down, height)
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"the box {values} has no area inside its image")
    return float(x1), float(y1), float(x2), float(y2)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _ids(image: Mapping[str, Any], key: str, where: str) -> set[int]:
    ids = image.get(key) or []
    if not isinstance(ids, list) or not all(type(id) is int for id in ids):
        raise AuroraError(f"{where}: {key} is a list of whole numbers")
    return set(ids)


def _names(image: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths to try: as `file_name` says, and as `coco_url` ends, with and without its folder (train2017, val2017)."""
    names = []
    if isinstance(image.get("file_name"), str):
        names.append(image["file_name"])
        if PurePosixPath(image["file_name"]).name.startswith("COCO_"):  # LVIS 0.5: names of 2014, files of 2017
            names.append(image["file_name"].rpartition("_")[2])
    if isinstance(image.get("coco_url"), str):
        parts = PurePosixPath(urlsplit(image["coco_url"]).path).parts
        names += ["/".join(parts[-2:]), parts[-1]] if len(parts) > 2 else list(parts[-1:])
    return tuple(names)
