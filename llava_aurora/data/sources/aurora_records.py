"""Reads AURORA's training files: names the task of each record and keeps its truth, so that all else here knows it.

They hold questions and answers alone. What a record is about follows from its answer:

    a map                                  depth_generation
    points, a map, and a letter            depth_chain; without points depth_chain_without_points
    a letter in brackets                   depth_direct
    boxes                                  box_generation
    boxes and a count                      counting_chain
    a number                               counting_direct
    that there are none                    counting_chain_of_none or box_generation_of_none, as the question asks

Texts stay as they are; coordinates in them are of images resized to the whole frame.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llava_aurora.data.store.record_file import check_records
from llava_aurora.data.store.record_progress import follow
from llava_aurora.data.validation.records import record_name
from llava_aurora.tasks.answers import named_number, stated_letter, stated_number
from llava_aurora.tasks.points import mentions, point_mentions
from llava_aurora.tasks.task import Record
from llava_aurora.tokens.vocabulary import depth_family

ASPECT_RATIO = "resize"
EXAMPLES_KEPT = 3
_LETTER = re.compile(r"\s*\(([A-Z])\)\.?\s*")
_ASKS_COUNT = re.compile(r"\b(?:how many|count|number of)\b", re.IGNORECASE)
_ASKS_CLOSEST = re.compile(r"\b(?:close(?:r|st)|near(?:er|est)?)\b", re.IGNORECASE)
_MAP = depth_family()


class AuroraRecords:
    """Goes through records as they are converted.

    Args:
        source: their file, which is read once before: direct questions take their points from chains about their image.
        once: leave out records that have been there already, as in a file with all epochs in it.
    Attributes:
        tasks: how many records of each task there were, without those left out.
        repeated: how many were there already.
        unknown: names of the first records that were not recognised, with the beginning of their answer.
    """

    def __init__(self, source: str | Path, *, once: bool = False) -> None:
        self.once, self.tasks, self.repeated = once, Counter[str](), 0
        self.unknown: list[str] = []
        self._seen: set[bytes] = set()
        self._points: dict[str, Any] = {}
        for record in follow(source, check_records, title=f"{source}: points"):
            truth = truth_of(record) or {}
            if "points" in truth and "image" in record:
                self._points.setdefault(record["image"], truth["points"])

    def __call__(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records with `aurora`; those that are not recognised, or have it already, are left as they are."""
        for number, record in enumerate(records):
            if self._is_repeated(record):
                self.repeated += 1
                if self.once:
                    continue
            truth = None if "aurora" in record else truth_of(record)
            if truth is None:
                self.tasks["not recognised" if "aurora" not in record else "named already"] += 1
                if "aurora" not in record and len(self.unknown) < EXAMPLES_KEPT:
                    self.unknown.append(f"{record_name(number, record)}: {record['conversations'][-1]['value'][:60]!r}")
                yield record
                continue
            self.tasks[truth["task"]] += 1
            known = self._points.get(record.get("image", ""), {})
            if truth["task"] == "depth_direct" and truth["answer"] in known:
                truth["points"] = known
            identity = f"{record.get('id', number)}/{truth['task']}"
            yield {**record, "id": identity, "aurora": {**truth, "aspect_ratio": ASPECT_RATIO}}

    def _is_repeated(self, record: Record) -> bool:
        said = json.dumps([record.get("image"), record["conversations"]]).encode()
        digest = hashlib.blake2b(said, digest_size=16).digest()
        repeated = digest in self._seen
        self._seen.add(digest)
        return repeated


def truth_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Task and truth of a record in LLaVA's format; None if it is none of AURORA's kinds."""
    if len(record["conversations"]) != 2:
        return None
    question, answer = (turn["value"] for turn in record["conversations"])
    if _MAP.start in answer:
        return _about_a_map(answer) if answer.count(_MAP.start) == 1 else None
    boxes = [list(mention.place) for mention in mentions(answer) if len(mention.place) == 4]
    asks_count, number = bool(_ASKS_COUNT.search(question)), stated_number(answer)
    if boxes:
        if asks_count != (number is not None):
            return None
        answers = {"answer": number} if asks_count else {}
        return {"task": "counting_chain" if asks_count else "box_generation", "boxes": boxes, **answers}
    if letter := _LETTER.fullmatch(answer):
        return {"task": "depth_direct", "answer": letter[1]} if _ASKS_CLOSEST.search(question) else None
    if asks_count and (alone := named_number(answer)) is not None:
        return {"task": "counting_direct", "answer": alone}
    if number == "0":
        task = "counting_chain_of_none" if asks_count else "box_generation_of_none"
        return {"task": task, "boxes": [], "answer": "0"}
    return None


def _about_a_map(answer: str) -> dict[str, Any] | None:
    points = {mention.letter: list(mention.place) for mention in point_mentions(answer)}
    letter = stated_letter(answer)
    if letter is None:
        return None if points else {"task": "depth_generation"}
    if not points:
        return {"task": "depth_chain_without_points", "answer": letter}
    return {"task": "depth_chain", "points": points, "answer": letter} if letter in points else None
