"""The contract of a task; registry.py has all there are.

A *task* is something that a model is taught and asked. Tasks about the same facts of an image form a *family*, which is
one file (depth.py, counting.py): it draws the facts, writes records of them, reads in texts what they state, checks
records, and scores answers. Curriculum, pre-flight, transforms, grammar, auxiliary losses, evaluation and page ask this
contract and know no task by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from llava_aurora.tasks.annotated import AnnotatedImage, Drawing
from llava_aurora.tasks.answers import AnswerKind, stated
from llava_aurora.tasks.forms import Form
from llava_aurora.tasks.outcome import Asked, Example, Measured, MeasureTable, Outcome
from llava_aurora.tokens.vocabulary import TokenFamily

if TYPE_CHECKING:
    from llava_aurora.tasks.written import Written
    from llava_aurora.tokens.kind import TokenKind
    from llava_aurora.tokens.perception import PerceptionTokens

Kind = Literal["atomic", "chain", "direct"]
Part = Literal["question", "answer"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# What asks for a chain, and what a chain ends with.
STEP_BY_STEP = "Think step by step."
ANSWER_IS = "The answer is"

Record = dict[str, Any]
Coordinates = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Wording:
    """The questions and answers of a task, templates in the manner of str.format; one variant is drawn for a record."""

    # questions, answers: at least one each; a JSON file can replace them (prompts.py)
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    # question_needs, answer_needs: fields that each question, each answer must use
    question_needs: frozenset[str] = frozenset()
    answer_needs: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()  # fields that both may use


def wording(
    questions: Sequence[str], answers: Sequence[str], *, question: str = "", answer: str = "", optional: str = ""
) -> Wording:
    """A wording with its fields as words in a text: `answer="map points"`."""
    needs = (frozenset(names.split()) for names in (question, answer, optional))
    return Wording(tuple(questions), tuple(answers), *needs)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task. Args:
    name: unique; `aurora.task` of its records.
    kind: "atomic" practises tokens, to write them for an image or to read them without one; "chain" reasons with
        tokens about an image; "direct" gives the answer alone.
    difficulty: d of the softmax schedule. The paper gives none; here what asks for an answer is one step harder than
        what only writes tokens, and chain and direct are equally hard, as AURORA gave them equal parts.
    wording: of its records.
    none: name and wording of its records about an image that shows nothing of what they ask for.
    shows_image: False for records without an image.
    marked: its image shows the marks that its question is about.
    span_in: for each token kind of which a record holds exactly one span, where that stands.
    answer: what kind of answer its texts state; None for a task that asks for no answer.
    again: question and answer of a second turn, which shows the box that the first answer ends with, enlarged; the
        question has no fields, the answer those of the wording.
    """

    name: str
    kind: Kind
    difficulty: int
    wording: Wording
    none: tuple[str, Wording] | None = None
    shows_image: bool = True
    marked: bool = False
    span_in: Mapping[str, Part] = field(default_factory=dict)
    answer: AnswerKind | None = None
    again: tuple[str, str] | None = None

    @property
    def wordings(self) -> dict[str, Wording]:
        """Its wordings by the name that prompt files and records call them by."""
        return {self.name: self.wording, **({self.none[0]: self.none[1]} if self.none else {})}

    def stated(self, text: str) -> str | None:
        """The answer that a text states: a letter, or a number in digits; None if it states none."""
        return stated(text, kind=self.answer) if self.answer else None

    def taught_answer(self, template: str, *, values: bool) -> str:
        """A template of an answer as a model is taught it. Args: values: it is taught to state values (transforms)."""
        return template


class Problem(NamedTuple):
    """What is wrong with a record. Args: kind: a word that problems are counted by; message: in one line."""

    kind: str
    message: str


class Source(NamedTuple):
    """What a character of a text is read from: used to supervise attention."""

    step: str  # "copy", "lookup" or "choice"
    at: int  # the character
    weights: Mapping[int, float]  # the characters it is read from, each with its share, 1 in all


class TaskFamily(ABC):
    """Tasks about the same facts of an image, such as marked points and a depth map.

    `fields` says what the fields of its templates look like. `token_kinds` are those that its records may hold, and
    `replaced_kind` the one whose span a chain is said to be answered from; the token replacement test changes that.
    """

    name: ClassVar[str]
    order: ClassVar[int] = 100
    token_kinds: ClassVar[tuple[str, ...]] = ()
    replaced_kind: ClassVar[str | None] = None
    tasks: ClassVar[tuple[Task, ...]]
    fields: ClassVar[Mapping[str, Form]]
    measures: ClassVar[Sequence[MeasureTable]] = ()

    @property
    def again(self) -> str | None:
        """What its chains are asked in a second turn, about the box that the first answer ends with; None: nothing."""
        return next((task.again[0] for task in self.tasks if task.again), None)

    # image -> facts -> record -----------------------------------------------------------------------------------------

    @abstractmethod
    def facts(self, task: Task, image: AnnotatedImage, drawing: Drawing, rng: np.random.Generator) -> Any:
        """What a record of `task` is about, drawn at random. None where the image holds nothing to ask about.

        Drawn from the same state of `rng`, the facts of two tasks are the same, so that a chain and a direct question
        can be about the same points.
        """

    @abstractmethod
    def values(self, facts: Any, coordinates: Coordinates, families: Mapping[str, TokenFamily]) -> dict[str, object]:
        """What the fields of a template are filled with.

        Args:
            facts: of a record.
            coordinates: writes a point or box.
            families: of the tokens that records hold, by token kind.
        """

    @abstractmethod
    def truth(self, task: Task, facts: Any) -> dict[str, Any]:
        """What a record keeps under "aurora" beside its task, as JSON takes it."""

    def is_none(self, facts: Any) -> bool:
        """Whether the facts are that there is nothing of what is asked for."""
        return False

    # a question and what the model wrote -----------------------------------------------------------------------------

    def answer_by(self, question: Asked, annotation: Any) -> str | None:
        """The answer that an annotation of `replaced_kind` implies, whatever the text says; None if it implies none."""
        return None

    def exchanged(self, question: Asked, kind: "TokenKind", codes: Sequence[int]) -> Sequence[int] | None:
        """A counterfactual span: that of `codes` with what speaks for its two best answers exchanged; None: none."""
        return None

    def raised(self, question: Asked, kind: "TokenKind", codes: Sequence[int], share: float) -> Sequence[int] | None:
        """The span of `codes` with what speaks for its worst answer raised, by a share of what is possible."""
        return None

    def true_annotation(self, question: Asked) -> Any:
        """The true annotation of `replaced_kind`; None if it is not known."""
        return None

    def blind_answers(self, questions: Sequence[Asked]) -> Mapping[str, Sequence[str | None]]:
        """Answers that do not need the question's own image, by the rule that gives them, one for each question.

        Always giving the same answer is a rule of every family and need not be among them.
        """
        return {}

    def has_span(self, written: "Written") -> bool:
        """Whether an answer holds what the answers of a chain follow from."""
        return written.codes is not None

    def answered(self, outcome: Outcome) -> str | None:
        """The answer that an outcome comes to, where that is more than what its text states; None for none."""
        return outcome.stated

    def measure(self, outcome: Outcome) -> Mapping[str, Measured]:
        """The values of `measures`, by their names."""
        return {}

    def blind_measures(self, questions: Sequence[Asked]) -> Sequence[Mapping[str, Measured]]:
        """The values of `measures` of the best that can be written without the image, for each question; or none."""
        return ()

    def panels(
        self, question: Asked, written: "Written", annotation: Any, image: Image.Image
    ) -> list[tuple[str, Image.Image]]:
        """Pictures of what is true and of what was written, each with a title; `image` is as the model saw it."""
        return []

    def question_about(self, letters: str, coordinates: Sequence[str]) -> str:
        """The question that the page proposes about marked points; empty if this family has none.

        Args:
            letters: of the points, at least two.
            coordinates: of each, as the model reads them, if the question is to give them.
        """
        return ""

    def example(self, image: AnnotatedImage, rng: np.random.Generator) -> Example | None:
        """What the page offers to ask about an image; None if that shows nothing to ask about."""
        return None

    # record -> facts drawn anew ---------------------------------------------------------------------------------------

    def redraws(self, task: Task, record: Record) -> bool:
        """Whether the facts of a record can be drawn anew from its annotated image (transforms/fresh.py)."""
        return False

    def redrawn(
        self, task: Task, record: Record, image: AnnotatedImage, rng: np.random.Generator, *, margin: int | None
    ) -> Any:
        """Facts of the same kind and size as those of the record; None if the image holds no other.

        Args:
            task, record: for which `redraws` is true.
            image: its image in the coordinate frame.
            margin: pixels to be kept free along the border; None for what the family finds right.
        """
        raise NotImplementedError(f"{self.name}: records are not drawn anew")

    def facts_of(self, task: Task, record: Record, image: AnnotatedImage) -> Any:
        """The facts that a record was written from. Raises AuroraError if it does not keep them."""
        raise NotImplementedError(f"{self.name}: records are not drawn anew")

    # text -> what it states -------------------------------------------------------------------------------------------

    def problems(
        self, task: Task, record: Mapping[str, Any], *, frame: int, families: Mapping[str, TokenFamily]
    ) -> Iterator[Problem]:
        """Where text and truth of a record disagree. Its spans are well-formed, its truth readable."""
        return iter(())

    def sources(
        self, text: str, perception: "PerceptionTokens", *, behind: int, learned: Callable[[int], bool]
    ) -> Iterable[Source]:
        """What characters of a text are read from, for the loss that supervises attention.

        Args:
            text: a whole conversation.
            perception: of the model; it has all of `token_kinds`.
            behind: the character behind the last perception token.
            learned: whether the token at a character is learned.
        """
        return ()

    def answer_characters(self, text: str, *, behind: int) -> Sequence[int]:
        """The characters of a chain's answer, for the loss of answers alone; none if it is not of this family.

        Args:
            text: a whole conversation, with "\n" for what is not learned.
            behind: the character behind the last perception token.
        """
        return ()
