"""Reads annotation files of LVIS, COCO and COCO's layout: the boxes of each image, and the categories surely absent.

Only categories whose count is known are kept. In LVIS, `not_exhaustive_category_ids` lists the categories that are not
fully labelled in an image, `neg_category_ids` those known to be absent. In COCO every category is labelled in every
image, except where a flag on an annotation or another convention (docs/boxes_and_hardblink.md) makes a count doubtful.
"""

import contextlib
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llava_aurora.data.images.frame import Box
from llava_aurora.data.sources.boxes.plurals import has_letters
from llava_aurora.errors import AuroraError
from llava_aurora.files import regular_file

if TYPE_CHECKING:
    from pycocotools.coco import COCO

TOLERANCE = 1.0  # pixels by which rounding may put an edge outside of its image
SAME_OVERLAP = 0.9  # least intersection over union of two boxes that may be one instance annotated twice
_DROPPED = ("segmentation", "keypoints")  # most of what a file holds
# Flags of instances that are a group, are to be ignored, or are no real thing: COCO, CrowdHuman and CityPersons,
# Pascal VOC, Objects365, Open Images. Written in any case, with or without underscores.
_FLAGS = frozenset(("iscrowd", "ignore", "ignored", "difficult", "isfake", "isreflected", "isgroupof", "isdepiction"))
# Categories whose boxes mark regions where nothing is annotated (VisDrone, KITTI), and catch-alls that name nothing.
_REGIONS = {"ignored regions", "ignored region", "ignore regions", "ignore region", "ignore", "ignored"}
_REGIONS |= {"dontcare", "dont care", "don't care"}
_CATCH_ALL = {"other", "others", "misc", "miscellaneous", "unknown", "unlabeled", "unlabelled", "undefined"}
_CATCH_ALL |= {"background", "void"}
_LONGEST_NAME = 200  # characters of a category; finding the plural of a name takes time that grows with its square
_NEEDED: Mapping[str, Mapping[str, type]] = {
    "images": {"id": int, "width": int, "height": int},
    "annotations": {"id": int, "image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """One image and what is surely in it, or surely not."""

    id: int
    names: tuple[str, ...]  # where its file may lie, relative to the image folder; the first that exists counts
    # width, height: in pixels, as annotated
    width: int
    height: int
    # all boxes (x1, y1, x2, y2) of a category by its id, in pixels of the image; only categories of which every
    # instance is labelled
    boxes: Mapping[int, tuple[Box, ...]]
    absent: tuple[int, ...]  # ids of categories of which there is none
    # of each box the id of its annotation and its `segmentation` as JSON text, where outlines were asked for
    outlines: Mapping[int, tuple[tuple[int, str], ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BoxAnnotations:
    categories: Mapping[int, str]  # names by id, as the file spells them
    images: list[AnnotatedImage]  # in the order of their ids
    failures: list[str]  # what of the file could not be used, one line each; its category is left out of that image
    passed_over: Counter[str]  # what was left out or counted once because of a convention, by kind


def read_annotations(path: str | Path, *, outlines: bool = False) -> BoxAnnotations:
    """Reads an annotation file of LVIS (0.5 or 1) or COCO ("instances").

    Args: outlines: keep the outlines too, which are most of what a file holds.
    Raises AuroraError naming the file, if it cannot be read or is none.
    """
    path = Path(path)
    index = _index(path, outlines=outlines)
    failures, passed_over = [], Counter[str]()
    for annotation in index.anns.values():
        if annotation["image_id"] not in index.imgs:
            failures.append(f"{path}: annotation {annotation['id']}: there is no image {annotation['image_id']}")
    categories = _Categories(index, passed_over)
    # LVIS lists absent categories for each image; a file without such lists labels all categories everywhere.
    federated = any("neg_category_ids" in image for image in index.imgs.values())
    listed = Counter(name for image in index.imgs.values() for name in _names(image)[:1])
    images = []
    for id, image in sorted(index.imgs.items()):
        where = f"{path}: image {id}"
        names = _names(image)
        if names and listed[names[0]] > 1:
            failures.append(f"{where}: {names[0]} is listed under {listed[names[0]]} ids")
            continue
        annotations = index.imgToAnns.get(id, ())
        if any(annotation["category_id"] in categories.regions for annotation in annotations):
            passed_over["images with ignored regions"] += 1
            continue
        boxes, drawn, doubtful = _boxes(image, annotations, categories, where, failures, passed_over)
        left_out = doubtful | _ids(image, "not_exhaustive_category_ids", where)
        absent = _ids(image, "neg_category_ids", where) & set(index.cats) if federated else set(index.cats)
        images.append(
            AnnotatedImage(
                id=id,
                names=names,
                width=image["width"],
                height=image["height"],
                boxes={category: tuple(found) for category, found in boxes.items() if category not in left_out},
                absent=tuple(sorted(absent - set(boxes) - left_out - categories.unasked)),
                outlines={category: tuple(drawn[category]) for category in drawn if category not in left_out},
            )
        )
    return BoxAnnotations(categories=categories.names, images=images, failures=failures, passed_over=passed_over)


class _Categories:
    """How the categories of a file are treated.

    Attributes:
        same: for each category id, the id that its boxes count for: the first category of that name in any case.
        regions: ids of categories that mark regions where nothing is annotated.
        unasked: ids of categories that no question is asked about.
        below: for the id of a category, the ids of the categories that name it as their supercategory.
    """

    def __init__(self, index: "COCO", passed_over: Counter[str]) -> None:
        self.names: dict[int, str] = {id: category["name"] for id, category in index.cats.items()}
        first: dict[str, int] = {}
        self.same = {id: first.setdefault(_key(name), id) for id, name in self.names.items()}
        self.regions = {id for name, id in first.items() if name in _REGIONS}
        unnamed = {id for name, id in first.items() if _names_nothing(name)}
        self.below: dict[int, set[int]] = defaultdict(set)
        for id, category in index.cats.items():
            above = first.get(_key(str(category.get("supercategory"))))
            if above is not None and above != self.same[id]:
                self.below[above].add(self.same[id])
        used = {self.same.get(annotation["category_id"]) for annotation in index.anns.values()}
        roots = set(self.below) - used - unnamed - self.regions
        twice = {id for id, other in self.same.items() if id != other}
        self.unasked = self.regions | unnamed | roots | twice
        for kind, ids in (
            ("categories of ignored regions", self.regions),
            ("categories that name nothing", unnamed),
            ("supercategories without annotations", roots),
            ("categories of a name that another one has", twice),
        ):
            if ids:
                passed_over[kind] += len(ids)


def _key(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").lower().split())


def _names_nothing(key: str) -> bool:
    return key in _CATCH_ALL or key.startswith("other ") or not has_letters(key)


def _index(path: Path, *, outlines: bool) -> "COCO":
    """The file as pycocotools indexes it, without the outlines or with them as texts."""
    try:
        from pycocotools.coco import COCO
    except ModuleNotFoundError as error:
        raise AuroraError("LVIS and COCO files are read with pycocotools: pip install 'llava-aurora[data]'") from error
    try:
        with regular_file(path, what="annotations").open(encoding="utf-8") as file:
            content = json.load(file, object_hook=_with_text if outlines else _without_outline)
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
                    what = "integer" if kind is int else "text"
                    raise AuroraError(f"{path}: entry {number} of {part!r} has no {what} under {key!r}")
            if len(str(entry.get("name", ""))) > _LONGEST_NAME:
                raise AuroraError(f"{path}: entry {number} of {part!r} has a name of {len(entry['name'])} characters")
        if len({entry["id"] for entry in entries}) < len(entries):
            raise AuroraError(f"{path}: an id occurs twice in {part!r}")
    index = COCO()
    index.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress by printing
        index.createIndex()
    return index


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in _DROPPED} if "bbox" in entry else entry


def _with_text(entry: dict[str, Any]) -> dict[str, Any]:
    """Outlines as texts take a twentieth of the memory."""
    if "bbox" in entry:
        entry["segmentation"] = json.dumps(entry.get("segmentation"), separators=(",", ":"))
    return entry


def _boxes(
    image: Mapping[str, Any],
    annotations: Iterable[Mapping[str, Any]],
    categories: _Categories,
    where: str,
    failures: list[str],
    passed_over: Counter[str],
) -> tuple[dict[int, list[Box]], dict[int, list[tuple[int, str]]], set[int]]:
    """The boxes of an image by category, their outlines, and the categories whose count is doubtful."""
    boxes: dict[int, list[Box]] = defaultdict(list)
    drawn: dict[int, list[tuple[int, str]]] = defaultdict(list)
    doubtful: dict[int, str] = {}
    for annotation in annotations:
        here = f"{where}: annotation {annotation['id']}"
        category = categories.same.get(annotation["category_id"])
        if category is None:
            failures.append(f"{here}: there is no category {annotation['category_id']}")
            continue
        if category in categories.unasked:
            continue
        found = boxes[category]
        if _is_flagged(annotation):
            doubtful[category] = "flagged instances (crowd, ignore, ...)"
        try:
            box = _box(annotation.get("bbox"), image["width"], image["height"])
        except ValueError as error:
            failures.append(f"{here} ({categories.names[category]}): {error}")
            doubtful.setdefault(category, "")
            continue
        alike = [other for other in found if _overlap(box, other) >= SAME_OVERLAP]
        if any(max(abs(a - b) for a, b in zip(box, other, strict=True)) <= TOLERANCE for other in alike):
            passed_over["boxes annotated twice"] += 1
            continue
        if alike:
            doubtful[category] = "boxes that may be one instance"
        found.append(box)
        if "segmentation" in annotation:
            drawn[category].append((annotation["id"], annotation["segmentation"]))
    for category, below in categories.below.items():
        if below & set(boxes):  # these are instances of the category as well, but are not annotated as such
            doubtful.setdefault(category, "instances of a subcategory" if category in boxes else "")
    passed_over.update(f"categories of an image with {reason}" for reason in doubtful.values() if reason)
    return boxes, drawn, set(doubtful)


def _is_flagged(annotation: Mapping[str, Any]) -> bool:
    """Whether it is a group, to be ignored, or no real thing; CrowdHuman's tag "mask" is the second."""
    if annotation.get("tag") == "mask":
        return True
    parts = [annotation, annotation.get("extra"), annotation.get("attributes")]
    return any(_is_flag(key) and _is_set(part[key]) for part in parts if isinstance(part, dict) for key in part)


@lru_cache(maxsize=1024)
def _is_flag(key: str) -> bool:
    return key.lower().replace("_", "") in _FLAGS


def _is_set(value: Any) -> bool:
    return value.strip().lower() not in ("", "0", "false", "no") if isinstance(value, str) else bool(value)


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one, other))
    return width * height / (areas - width * height)


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
        raise AuroraError(f"{where}: {key} must be a list of integers")
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
