"""Phrases and the masks that they name: RefCOCO, RefCOCO+ and RefCOCOg, in the forms they are published in.

Parquet as lmms-lab publishes them, a row for each annotated thing with the image in it; or `refs(unc).p`, `refs.json`,
`grefs(unc).json` beside `instances.json`, with the images of COCO.
"""

import io
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llava_aurora.data.images.image_files import open_image, path_inside
from llava_aurora.data.sources.masks.segments import read_segment
from llava_aurora.data.sources.tables import EmbeddedImage, table_rows
from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json, regular_file

INSTANCES = "instances.json"
_ARTICLE = re.compile(r"^(the|an?) +(?=\w)", re.IGNORECASE)  # questions say "the" themselves
_ROW_OF_COCO = re.compile(r"(COCO_\w+?_\d+)_\d+\.jpg")  # COCO_train2014_000000581857_16.jpg: image, number of its row
_REFS = re.compile(r"g?refs(\([\w+]+\))?\.(json|p)")


@dataclass(frozen=True, kw_only=True)
class Referred:
    """A thing in an image and what it is called."""

    where: str  # file and record, for errors
    file: Path
    id: str  # unique in its folder
    image: Path | EmbeddedImage
    image_name: str  # of the image's file, the same for all that is in one image
    phrases: tuple[str, ...]  # at least one
    split: str  # such as "val"
    segments: tuple[Any, ...]  # `segmentation` of each of its parts; none for what is not there
    size: tuple[int, int] | None  # width and height of the image; None where only the image tells

    def mask(self) -> np.ndarray:
        """bool (H, W), in pixels of the image; empty for what is not there. Raises AuroraError naming the record."""
        size = self.size
        if size is None:
            size = (self.image.open() if isinstance(self.image, EmbeddedImage) else open_image(self.image)).size
        mask = np.zeros(size[::-1], bool)
        for segment in self.segments:
            mask |= read_segment(segment, size=size, where=self.where)
        return mask


def is_referring(source: Path) -> bool:
    """Whether it is a file or folder of `read_referred`, and not an annotation file of COCO or LVIS."""
    return source.is_dir() or source.suffix == ".parquet" or _REFS.fullmatch(source.name) is not None


def read_referred(source: Path, *, images: Path | None = None) -> Iterator[Referred]:
    """What a file or folder refers to.

    Args:
        source: a Parquet file, a `refs` file beside `instances.json`, or a folder with such files in it or below.
        images: folder of COCO's images, for `refs`; the folder of the file, or `images` or `train2014` in it.
    Raises AuroraError naming file and record.
    """
    refs = [source] if _REFS.fullmatch(source.name) else sorted(p for p in source.rglob("*") if _REFS.fullmatch(p.name))
    if len({path.parent for path in refs}) < len(refs):
        raise AuroraError(f"{source}: holds {', '.join(path.name for path in refs)}; name one of them")
    for path in refs:
        yield from _read_refs(path, images)
    if not refs:
        yield from _read_rows(source)


def _read_rows(source: Path) -> Iterator[Referred]:
    """Columns image, answer (phrases), segmentation, file_name; question_id and bbox are not needed."""
    for number, row in enumerate(table_rows(source, images=["image"])):
        name, file = row.text("file_name"), Path(row.where.rpartition(", row")[0])
        known = _ROW_OF_COCO.fullmatch(name)
        yield Referred(
            where=row.where,
            file=file,
            id=f"{name}/{number}",
            image=row.image("image"),
            image_name=f"{known[1]}.jpg" if known else name,
            phrases=_phrases(row.values.get("answer"), row.where),
            split=file.stem.partition("-")[0],  # of val-00000-of-00004.parquet
            segments=(row.values.get("segmentation"),),
            size=None,
        )


def _read_refs(path: Path, images: Path | None) -> Iterator[Referred]:
    """Each of ref_id, image_id, ann_id (several, or -1 for what is not there), split, sentences [{"sent": …}]."""
    refs = _unpickled(path) if path.suffix == ".p" else read_json(path, what="references")
    instances = read_json(path.parent / INSTANCES, what="annotations of the references")
    if not isinstance(refs, list) or not isinstance(instances, dict):
        raise AuroraError(f"{path}: a list of references is expected, and an object in {INSTANCES}")
    try:
        pictures = {each["id"]: each for each in instances["images"]}
        segments = {each["id"]: each["segmentation"] for each in instances["annotations"]}
    except (KeyError, TypeError) as error:
        raise AuroraError(f"{path.parent / INSTANCES}: is not in COCO's layout ({error!r})") from error
    folders = [images] if images else [path.parent / name for name in ("", "images", "train2014")]
    for number, ref in enumerate(refs):
        where = f"{path}: reference {number}"
        try:
            picture = pictures[ref["image_id"]]
            numbers = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
            parts = tuple(segments[each] for each in numbers if each != -1)
            sentences, size = ref["sentences"], (picture["width"], picture["height"])
            phrases = _phrases([each["sent"] for each in sentences], where)
            candidates = [path_inside(folder, picture["file_name"]) for folder in folders]
        except (KeyError, TypeError) as error:
            raise AuroraError(f"{where}: lacks {error} of a reference, its image or its annotation") from error
        yield Referred(
            where=where,
            file=path,
            id=str(ref["ref_id"]),
            image=next((each for each in candidates if each.is_file()), candidates[0]),
            image_name=picture["file_name"],
            phrases=phrases,
            split=str(ref.get("split", "")),
            segments=parts,
            size=size,
        )


def _phrases(value: Any, where: str) -> tuple[str, ...]:
    phrases = [value] if isinstance(value, str) else value
    if not isinstance(phrases, list) or not phrases or not all(isinstance(p, str) and p.strip() for p in phrases):
        raise AuroraError(f"{where}: has no phrase, or an empty one")
    return tuple(dict.fromkeys(_ARTICLE.sub("", " ".join(phrase.split())) for phrase in phrases))


class _Plain(pickle.Unpickler):
    """Reads lists, dicts, tuples, sets, texts and numbers; no class and no function, so that nothing is run."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only lists, dicts, texts and numbers are read")


def _unpickled(path: Path) -> Any:
    try:
        return _Plain(
            io.BytesIO(regular_file(path, what="references").read_bytes()), encoding="utf-8", errors="replace"
        ).load()
    except OSError as error:
        raise AuroraError(f"{path}: cannot read the references: {error.strerror}") from error
    except Exception as error:  # a damaged pickle raises anything
        raise AuroraError(
            f"{path}: {error or type(error).__name__}; save it as JSON under the name refs.json"
        ) from error
