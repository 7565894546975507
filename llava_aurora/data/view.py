"""A page to look at training data: a sample of records with picture, map, question and answer, in one HTML file.

Boxes and points are drawn where the record's text has them, so that what is seen is what a model would learn. Nothing
of a record reaches the page but as text, and the page loads nothing.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava_aurora.data.images.image_files import opened_image, path_inside
from llava_aurora.data.store.record_file import images_of
from llava_aurora.data.store.record_store import record_length
from llava_aurora.data.validation.checks import named_records
from llava_aurora.data.validation.records import TextChecks, truth_problem
from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json_object, write_text
from llava_aurora.ownership import refuse_other_file
from llava_aurora.report.document import data_uri, render
from llava_aurora.tasks.marks import mark_points
from llava_aurora.tasks.points import mentions
from llava_aurora.tasks.registry import task_name, task_names
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.depth import color_map, with_scale
from llava_aurora.tokens.kind import TokenKind
from llava_aurora.tokens.mask import decode_mask, draw_masks
from llava_aurora.tokens.perception import kinds_of_config
from llava_aurora.tokens.vocabulary import MalformedSpan, TokenFamily, by_kind

SIDE = 336
Named = tuple[str, Any]


@dataclass(frozen=True)
class Picture:
    """Args: caption; uri: the picture itself, as a data URI; width, height: in pixels."""

    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Piece:
    """Args: text: as shown; tokens: what it stands for; folded: whether these are shown when it is clicked on."""

    text: str
    tokens: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Turn:
    """Args: speaker: human or gpt; pieces: of what is said."""

    speaker: str
    pieces: list[Piece]


@dataclass(frozen=True)
class Shown:
    """A record as the page shows it."""

    name: str
    task: str
    facts: str
    pictures: list[Picture] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    truth: str = ""


class RecordPage:
    """Shows records.

    Args: depth: decodes maps; without it no map is shown.
    """

    def __init__(
        self,
        *,
        image_folder: Path,
        boxes: BoxKind,
        families: Sequence[TokenFamily],
        depth: TokenKind | None = None,
    ) -> None:
        self.image_folder, self.boxes, self.families, self.depth = image_folder, boxes, tuple(families), depth
        self.checks = TextChecks(families=families, frame=boxes.frame, image_folder=image_folder)

    def write(self, out: str | Path, records: Sequence[Named], *, title: str, summary: str) -> None:
        """Writes the page. Raises AuroraError if that fails, or something else lies there."""
        shown = [self.show(name, record) for name, record in records]
        tasks = Counter(record.task for record in shown)
        in_order = {task: tasks[task] for task in task_names() if tasks[task]}
        refuse_other_file(out, "page of records", lambda beginning: b'content="llava_aurora"' in beginning)
        template = Path(__file__).with_name("view.html.jinja")
        write_text(out, render(template, title=title, summary=summary, tasks=in_order, records=shown))

    def show(self, name: str, record: Any) -> Shown:
        """A record with its pictures, or with what is wrong with it."""
        problems: list[str] = []
        well_formed = self.checks.run(record, lambda kind, message: problems.append(f"{kind}: {message}"))
        if not well_formed:
            text = json.dumps(record, ensure_ascii=False, default=str)  # a line that is no JSON is there as its problem
            return Shown(name, task_name({}), "", problems=problems, turns=[Turn("human", [Piece(text[:2000])])])
        turns = [Turn(turn["from"], self._pieces(turn["value"])) for turn in record["conversations"]]
        words = abs(record_length(record, self.families))
        facts = [f"{words} words and perception tokens", f"{len(turns)} turns" if len(turns) > 2 else ""]
        pictures: list[Picture] = []
        if "image" in record:
            try:
                pictures = self._pictures(record)
            except Exception as error:  # decoders raise whatever they stumble over in a broken file
                problems.append(f"image: {record['image']}: {error}")
        return Shown(
            name=name,
            task=task_name(record),
            facts=", ".join(filter(None, [*facts, ", ".join(images_of(record)) or "no image"])),
            pictures=pictures,
            problems=problems,
            turns=turns,
            truth=json.dumps(record["aurora"], ensure_ascii=False) if "aurora" in record else "",
        )

    # --- text ---------------------------------------------------------------------------------------------------------

    def _pieces(self, text: str) -> list[Piece]:
        """The text with each map folded and each coordinate as a number; as it is where a span is malformed."""
        try:
            found = [(span, family) for family in self.families for span in family.parse(text)]
        except MalformedSpan:
            return [Piece(text)]
        pieces, done = [], 0
        for span, family in sorted(found, key=lambda each: each[0].start):
            pieces.append(Piece(text[done : span.start]))
            written = text[span.start : span.end]
            label = f"{family.name.lower()}: {len(span.codes)} codes" if family.delimited else family.plain(written)
            pieces.append(Piece(label, written, folded=family.delimited))
            done = span.end
        return [piece for piece in [*pieces, Piece(text[done:])] if piece.text]

    # --- pictures -----------------------------------------------------------------------------------------------------

    def _pictures(self, record: Mapping[str, Any]) -> list[Picture]:
        (image, size), *others = [self._image(name) for name in images_of(record)]
        text = "\n".join(turn["value"] for turn in record["conversations"])
        boxes, points, source = self._marks(text, record)
        drawn, caption = image, f"{size[0]} × {size[1]}"
        if boxes:
            drawn, caption = self.boxes.draw(boxes, drawn), f"{len(boxes)} boxes {source}"
        if points:
            drawn, caption = mark_points(drawn, points, frame=self.boxes.frame), f"{len(points)} points {source}"
        if masks := self._masks(text):
            drawn, caption = draw_masks(masks, drawn), f"{caption}, {len(masks)} masks"
        pictures = [_picture(drawn, caption, kind="JPEG")]
        pictures += [_picture(other, f"{size[0]} × {size[1]}", kind="JPEG") for other, size in others]
        if self.depth is not None:
            maps = [decoded for turn in record["conversations"] for decoded in self._maps(turn["value"])]
            pictures += [
                _picture(with_scale(color_map(each).resize(image.size)), "map, bright = close", kind="PNG")
                for each in maps
            ]
        return pictures

    def _image(self, name: str) -> tuple[Image.Image, tuple[int, int]]:
        """An image as it is shown, and its own size."""
        with opened_image(path_inside(self.image_folder, name)) as opened:
            opened.draft("RGB", (2 * SIDE, 2 * SIDE))
            size = opened.size
            image = opened.convert("RGB")
        scale = SIDE / max(image.size)  # small ones too, or marks could not be read
        return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale)))), size

    def _masks(self, text: str) -> list[np.ndarray]:
        family = by_kind(self.families).get("mask")
        try:
            return [decode_mask(span.codes) for span in family.parse(text)] if family is not None else []
        except MalformedSpan:
            return []

    def _maps(self, text: str) -> list[np.ndarray]:
        assert self.depth is not None
        try:
            return self.depth.read(text)
        except MalformedSpan:
            return []

    def _marks(self, text: str, record: Mapping[str, Any]) -> tuple[list[Any], dict[str, tuple[int, int]], str]:
        """Boxes, points by letter, and where they stand: in the text, or else in the truth alone."""
        about = record.get("aurora")
        if about is None or truth_problem(about):
            # Numbers in brackets may be anything here; tokens are not.
            written = [("", values) for values in self._tokens(text)]
            about = {}
        else:
            written = [(mention.letter, mention.place) for mention in mentions(text)]
        boxes: list[Any] = [values for _, values in written if len(values) == 4]
        points = {letter or "·": (values[0], values[1]) for letter, values in written if len(values) == 2}
        if boxes or points:
            return boxes, points, "in the text"
        truth = {letter: (int(x), int(y)) for letter, (x, y) in about.get("points", {}).items()}
        return about.get("boxes", []), truth, "in the truth"

    def _tokens(self, text: str) -> list[tuple[int, ...]]:
        try:
            return self.boxes.read(text)
        except MalformedSpan:
            return []


def trained_modalities(folder: Path) -> Mapping[str, TokenKind]:
    """The kinds of a trained model, by name. Raises AuroraError if the folder holds none that has some."""
    block = read_json_object(folder / "config.json", what="configuration of the model").get("aurora")
    if block is None:
        raise AuroraError(f"{folder}: a model without perception tokens; give --depth-vqvae instead")
    return kinds_of_config(block, folder)


def _picture(image: Image.Image, caption: str, *, kind: str) -> Picture:
    file = io.BytesIO()
    image.save(file, format=kind, quality=85)
    return Picture(caption, data_uri(file.getvalue(), kind=kind.lower()), image.width, image.height)


# --- which records ----------------------------------------------------------------------------------------------------


def sample_records(path: str | Path, *, count: int, tasks: Iterable[str] = (), seed: int = 0) -> list[Named]:
    """Draws records at random, as many of each task as there are, in the order of the file; the file is streamed.

    Args:
        path: what training reads.
        count: how many; fewer where the file has fewer.
        tasks: names of tasks (tasks.py) to draw from; all if left out.
    Returns: (name, record) each.
    Raises AuroraError if the file cannot be read, a name is no task, or there is no record of these tasks.
    """
    wanted = set(tasks) or set(task_names())
    if unknown := wanted - set(task_names()):
        raise AuroraError(f"--task: unknown task {sorted(unknown)[0]!r}; available: {', '.join(task_names())}")
    seen: Counter[str] = Counter()
    kept: dict[str, list[tuple[int, str, Any]]] = {}
    generators = {task: np.random.default_rng([seed, place]) for place, task in enumerate(task_names())}
    for place, (name, record) in enumerate(named_records(Path(path), title=f"{path}: drawing records")):
        task = task_name(record) if isinstance(record, dict) else task_name({})
        if task not in wanted:
            continue
        # Each record so far is among the kept ones with the same chance (reservoir sampling).
        seen[task] += 1
        chosen = kept.setdefault(task, [])
        if len(chosen) < count:
            chosen.append((place, name, record))
        elif (slot := int(generators[task].integers(seen[task]))) < count:
            chosen[slot] = (place, name, record)
    if not kept:
        raise AuroraError(f"{path}: has no record of {', '.join(sorted(wanted))}")
    shares = _shares({task: len(chosen) for task, chosen in kept.items()}, count)
    drawn = [
        chosen[int(index)]
        for task, chosen in kept.items()
        for index in generators[task].permutation(len(chosen))[: shares[task]]
    ]
    return [(name, record) for _, name, record in sorted(drawn, key=lambda each: each[0])]


def _shares(available: Mapping[str, int], count: int) -> Counter[str]:
    """Goes round the tasks, one record each, until all are given out."""
    shares: Counter[str] = Counter()
    while shares.total() < count and any(shares[task] < number for task, number in available.items()):
        for task, number in available.items():
            if shares[task] < number and shares.total() < count:
                shares[task] += 1
    return shares
