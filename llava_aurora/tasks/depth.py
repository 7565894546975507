"""Which of some points is closest to the camera: answered from a depth map that the chain writes first.

A chain states the points' coordinates, the map, which point has the highest value in it, and the answer. Facts are the
points, and the codes of the map. Source: AURORA, sec. 3 and supplement.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.tasks.annotated import AnnotatedImage, Drawing
from llava_aurora.tasks.depth_maps import by_depth, closest_by, places_of, shrunk, values_at
from llava_aurora.tasks.depth_measures import MEASURES, depth_measured
from llava_aurora.tasks.depth_tasks import TASKS, DepthTask
from llava_aurora.tasks.forms import Form, Letter, Span
from llava_aurora.tasks.marks import any_points, depth_at, draw_points, sample_points
from llava_aurora.tasks.outcome import Asked, Example, Measured, MeasureTable, Outcome
from llava_aurora.tasks.points import (
    LISTED_LETTERS,
    POINTS,
    VALUED_POINTS,
    MarkedPoint,
    closest,
    letter_points,
    list_letters,
    mentions,
    point_mentions,
    write_points,
)
from llava_aurora.tasks.registry import register_family
from llava_aurora.tasks.task import Coordinates, Problem, Record, Source, Task, TaskFamily
from llava_aurora.tasks.written import Written
from llava_aurora.tokens.depth import color_map, with_scale
from llava_aurora.tokens.vocabulary import TokenFamily

if TYPE_CHECKING:
    from llava_aurora.tokens.kind import TokenKind
    from llava_aurora.tokens.perception import PerceptionTokens


@dataclass(frozen=True)
class DepthFacts:
    """What a depth record is about. Args: points: lettered; codes: of the image's depth map."""

    points: Sequence[MarkedPoint] = ()
    codes: Sequence[int] = ()


@register_family
class DepthFamily(TaskFamily):
    """Points and a depth map."""

    name: ClassVar[str] = "depth"
    order: ClassVar[int] = 10
    token_kinds: ClassVar[tuple[str, ...]] = ("depth", "box")
    replaced_kind: ClassVar[str | None] = "depth"
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    measures: ClassVar[tuple[MeasureTable, ...]] = MEASURES
    # map: the span of depth tokens; points: "A (x,y), B (x,y)"; values: "A (x,y) 07, B (x,y) 55", how close they are;
    # letters: "A, B or C"; answer: a letter.
    fields: ClassVar[Mapping[str, Form]] = {
        "map": Span("depth"),
        "points": POINTS,
        "values": VALUED_POINTS,
        "letters": LISTED_LETTERS,
        "answer": Letter(),
    }

    # --- facts and records --------------------------------------------------------------------------------------------

    def facts(self, task: Task, image: AnnotatedImage, drawing: Drawing, rng: np.random.Generator) -> DepthFacts | None:
        """Raises AuroraError if a map is needed and has no codes, or fewer pixels are known than are to be read."""
        assert isinstance(task, DepthTask)
        codes = image.codes.get("depth", ())
        if image.depth is None or ("depth" in task.span_in and not codes):
            return None
        if task.points is None:
            return DepthFacts(codes=codes)
        count = int(rng.choice(list(drawing.points)))
        positions = sample_points(
            relative_depth=image.depth,
            count=count,
            rng=rng,
            margin=drawing.margin,
            one_height=drawing.one_height,
            mean_depth=image.mean_depth,
        )
        if task.points == "read" and drawing.read_points:
            positions = any_points(image.depth, drawing.read_points, rng)
            if positions is None:
                raise AuroraError(f"its depth is known at fewer pixels than the {drawing.read_points} that are asked")
        return _lettered(positions, image, drawing.frame, rng)

    def values(
        self, facts: DepthFacts, coordinates: Coordinates, families: Mapping[str, TokenFamily]
    ) -> dict[str, object]:
        found: dict[str, object] = {}
        if facts.codes and "depth" in families:
            found["map"] = families["depth"].text(facts.codes)
        if facts.points:
            found |= {
                "letters": list_letters([point.letter for point in facts.points]),
                "points": write_points(facts.points, coordinates=coordinates, values=False),
                "values": write_points(facts.points, coordinates=coordinates, values=True),
                "answer": closest(facts.points).letter,
            }
        return found

    def truth(self, task: Task, facts: DepthFacts) -> dict[str, Any]:
        if not facts.points:
            return {}
        return {
            "points": {point.letter: [point.x, point.y] for point in facts.points},
            "depths": {point.letter: point.depth for point in facts.points},
            "answer": closest(facts.points).letter,
        }

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def answer_by(self, question: Asked, annotation: np.ndarray) -> str | None:
        """The point that is closest by a map."""
        return closest_by(annotation, question.points, frame=question.frame) if question.points else None

    def exchanged(self, question: Asked, kind: "TokenKind", codes: Sequence[int]) -> list[int] | None:
        """The codes of the cells around the two closest points exchanged, where they have none in common."""
        order = by_depth(kind.decode(codes), question.points, frame=question.frame)[:2] if question.points else []
        cells, around = kind.without_labels(codes), [_cells_of(question, kind, letter) for letter in order]
        if len(around) < 2 or set(around[0]) & set(around[1]):
            return None
        for one, other in zip(*around, strict=False):
            cells[one], cells[other] = cells[other], cells[one]
        return kind.with_labels(cells)

    def raised(self, question: Asked, kind: "TokenKind", codes: Sequence[int], share: float) -> list[int] | None:
        """The cells around the farthest point brought closer, up to the closest code there is."""
        if not question.points:
            return None
        depths: np.ndarray = kind.code_depths.astype(float)  # type: ignore[attr-defined]
        cells = kind.without_labels(codes)
        farthest = by_depth(kind.decode(codes), question.points, frame=question.frame)[-1]
        for cell in _cells_of(question, kind, farthest):
            aim = depths[cells[cell]] + share * (depths.max() - depths[cells[cell]])
            cells[cell] = int(np.abs(depths - aim).argmin())
        return kind.with_labels(cells)

    def true_annotation(self, question: Asked) -> np.ndarray | None:
        """The true depth map. Raises AuroraError if it cannot be read."""
        return question.true_depth()

    def blind_answers(self, questions: Sequence[Asked]) -> dict[str, list[str | None]]:
        """The lowest point, since what is lower in an image is mostly closer; the closest by the mean map of the other
        images, where true maps are known, the second closest by it and so on."""
        rules: dict[str, list[str | None]] = {}
        if any(question.points for question in questions):
            rules["the lowest point"] = [
                max(sorted(each.points), key=lambda letter: each.points[letter][1]) if each.points else None
                for each in questions
            ]
        maps = {str(each.image): depth for each in questions if (depth := each.true_depth()) is not None}
        if len(maps) > 1:
            small = {image: shrunk(depth) for image, depth in maps.items()}
            total = sum(small.values())
            orders = [
                by_depth(total - small[str(each.image)], each.points, frame=each.frame)
                if str(each.image) in small
                else []
                for each in questions
            ]
            for place in range(max(map(len, orders))):
                name = "the mean map of the other images" + (f", place {place + 1}" if place else "")
                rules[name] = [order[place] if place < len(order) else None for order in orders]
        return rules

    def measure(self, outcome: Outcome) -> dict[str, Measured]:
        """Raises AuroraError if the true depth map cannot be read."""
        known = outcome.annotation is not None
        return depth_measured(outcome, self.answer_by(outcome.question, outcome.annotation) if known else None)

    def panels(
        self, question: Asked, written: Written, annotation: Any, image: Image.Image
    ) -> list[tuple[str, Image.Image]]:
        """The true map and the one that was written, bright = close, with the points and their values of 0 to 99."""
        found = []
        for title, depth in {"true depth, bright = close": question.true_depth(), "map it wrote": annotation}.items():
            if depth is None:
                continue
            picture = color_map(depth).resize(image.size, Image.Resampling.NEAREST)
            if question.points:
                title += f": {values_at(depth, question)}"
                picture = Image.fromarray(draw_points(np.asarray(picture), *places_of(question, picture.size)))
            found.append((title, with_scale(picture)))
        if found and written.values:
            said = ", ".join(f"{letter} {value:02d}" for letter, value in written.values.items())
            found[-1] = (f"{found[-1][0]}; it says {said}", found[-1][1])
        return found

    # --- the page -----------------------------------------------------------------------------------------------------

    def question_about(self, letters: str, coordinates: Sequence[str]) -> str:
        tasks = {task.name: task.wording.questions[0] for task in self.tasks}
        if coordinates:
            named = ", ".join(map(" ".join, zip(letters, coordinates, strict=True)))
            return tasks["depth_direct_from_coordinates"].format(points=named)
        return tasks["depth_direct"].format(letters=list_letters(letters))

    def example(self, image: AnnotatedImage, rng: np.random.Generator) -> Example | None:
        points = sample_points(relative_depth=image.depth, count=3, rng=rng) if image.depth is not None else None
        return Example(points=points) if points else None

    # --- records drawn anew -------------------------------------------------------------------------------------------

    def facts_of(self, task: Task, record: Record, image: AnnotatedImage) -> DepthFacts:
        about = record["aurora"]
        points = [
            MarkedPoint(letter=letter, x=x, y=y, depth=about["depths"][letter])
            for letter, (x, y) in about["points"].items()
        ]
        return DepthFacts(points, image.codes.get("depth", ()))

    def redraws(self, task: Task, record: Record) -> bool:
        about = record["aurora"]
        if not about.get("points") or not isinstance(about.get("depth"), str):
            return False
        return (isinstance(about.get("unmarked"), str) or not task.marked) and len(record["conversations"]) == 2

    def redrawn(
        self, task: Task, record: Record, image: AnnotatedImage, rng: np.random.Generator, *, margin: int | None
    ) -> DepthFacts | None:
        """As many points as the record has, drawn as it says (`any_points`, `one_height`)."""
        about = record["aurora"]
        assert image.depth is not None
        if about.get("any_points") is True:
            positions = any_points(image.depth, len(about["points"]), rng)
        else:
            one_height = about.get("one_height") is True
            positions = sample_points(
                relative_depth=image.depth,
                count=len(about["points"]),
                rng=rng,
                margin=margin,
                one_height=one_height,
                mean_depth=image.mean_depth,
            )
        return _lettered(positions, image, image.depth.shape[1], rng)

    # --- texts --------------------------------------------------------------------------------------------------------

    def problems(
        self, task: Task, record: Mapping[str, Any], *, frame: int, families: Mapping[str, TokenFamily]
    ) -> Iterator[Problem]:
        assert isinstance(task, DepthTask)
        about, texts = record["aurora"], [turn["value"] for turn in record["conversations"]]
        if "points" not in about:
            return
        points, depths, true = about["points"], about.get("depths"), about.get("answer")
        if depths is not None and set(depths) != set(points):
            yield Problem("letters", f"points {_letters(points)}, but depths of {_letters(depths)}")
        elif depths and task.points == "compared":
            top = [letter for letter in sorted(depths) if depths[letter] == max(depths.values())]
            if len(top) > 1:
                yield Problem("closest", f"{_letters(top)} are equally close, so that the question has no answer")
            elif true not in top:
                yield Problem("closest", f"the answer is {true}, but {top[0]} is the closest of {dict(depths)}")
        if true not in points:
            yield Problem("letters", f"the answer is {true}, but the points are {_letters(points)}")
        if task.answer and (said := task.stated(texts[-1])) != true:
            yield Problem("letters", f"the text answers {said or 'nothing'}, but the truth is {true}")
        expected = {letter: list(place) for letter, place in points.items()}
        for part, text in (("question", texts[0]), ("answer", texts[-1])):
            named = {mention.letter: list(mention.place) for mention in point_mentions(text)}
            if named and named != expected:
                yield Problem("letters", f"points {expected}, but the {part} has {named}")
        if task.states_points and not any(mention.letter for mention in mentions(texts[-1])):
            yield Problem("letters", f"{task.name} gives no point's coordinates in its answer")

    def sources(
        self, text: str, perception: "PerceptionTokens", *, behind: int, learned: Callable[[int], bool]
    ) -> Iterator[Source]:
        """A coordinate is copied from where its point was named first; a digit of a value is looked up in the codes of
        the map around its point; the answer's letter is chosen by its value."""
        depth, frame = perception.kinds["depth"], perception.kinds["box"].family.size
        named = [mention for mention in mentions(text) if len(mention.place) == 2]
        first = {(mention.letter, mention.place): mention for mention in reversed(named)}
        said = [mention for mention in named if learned(mention.places[-1])]
        for mention in said:
            origin = first[mention.letter, mention.place]
            if mention.letter and origin.start < mention.start:
                pairs = zip(mention.places, origin.places, strict=True)
                yield from (Source("copy", at, {place: 1.0}) for at, place in pairs)
            codes = _codes_before(text, mention.start, depth.family)
            if mention.value is not None and codes and all(map(learned, codes)):
                around = depth.cells_around(mention.place, frame=frame)  # type: ignore[attr-defined]
                weights = {codes[depth.place_of_cell(cell, length=len(codes))]: share for cell, share in around.items()}  # type: ignore[attr-defined]
                yield from (Source("lookup", mention.value_at + digit, weights) for digit in range(2))
        values = {mention.letter: mention.value_at + 1 for mention in said if mention.letter and mention.value_at >= 0}
        if len(values) > 1:
            for at in self.answer_characters(text, behind=behind):
                if text[at] in values and learned(at):
                    yield Source("choice", at, {values[text[at]]: 1.0})

    def answer_characters(self, text: str, *, behind: int) -> list[int]:
        """The letter of a named point that is said last, each time it is said."""
        names = {mention.letter for mention in point_mentions(text)}
        letters = [match.start() for match in re.finditer(r"(?<![^\W\d_])[A-Z](?![^\W\d_])", text[behind:])]
        letters = [behind + place for place in letters if text[behind + place] in names]
        return [place for place in letters if text[place] == text[letters[-1]]]


def _cells_of(question: Asked, kind: "TokenKind", letter: str) -> list[int]:
    """The cells of a map around a point, the one that counts most first."""
    x, y = question.points[letter]
    around = kind.cells_around((int(x), int(y)), frame=question.frame)  # type: ignore[attr-defined]
    return sorted(around, key=lambda cell: -around[cell])


def _lettered(
    positions: Sequence[tuple[int, int]] | None, image: AnnotatedImage, frame: int, rng: np.random.Generator
) -> DepthFacts | None:
    """Facts about pixels of a depth map, with coordinates in the frame."""
    if not positions or image.depth is None:
        return None
    height, width = image.depth.shape
    depths = [depth_at(image.depth, position) for position in positions]
    places = [(x * frame // width, y * frame // height) for x, y in positions]
    return DepthFacts(letter_points(places, depths, rng), image.codes.get("depth", ()))


def _codes_before(text: str, place: int, family: TokenFamily) -> list[int]:
    """The characters at which the codes of the last map before a place begin; none if it is not whole."""
    opened = text.rfind(family.start, 0, place)
    begin = opened + len(family.start)
    codes = re.compile(rf"(?:{family.any_code}){{{family.lengths[-1]}}}").match(text, begin) if opened >= 0 else None
    return [begin + each.start() for each in re.finditer(family.any_code, codes.group())] if codes else []


def _letters(letters: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(sorted(letters)) or "none"
