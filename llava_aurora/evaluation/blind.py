"""The blind baseline: the best answers that can be given without the image of the question."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llava_aurora.evaluation.benchmarks.question import Question
from llava_aurora.evaluation.benchmarks.record_questions import record_question
from llava_aurora.tasks.registry import family_named, task_of
from llava_aurora.tasks.task import Record


@dataclass(frozen=True)
class Blind:
    """Args: accuracy: of the best rule, each category counting alike, in [0, 1]; rule: in words."""

    accuracy: float
    rule: str


def blind_baseline(questions: Sequence[Question]) -> Blind | None:
    """The best of the rules that the questions' family knows, and of always giving the same answer.

    The rule is chosen, and the answer that is always given, with the right answers known: so this is the most that can
    be reached blind, not what a blind model would get.

    Args: questions: of one task family.
    Returns: None of no questions, or without a rule.
    """
    if not questions:
        return None
    family = family_named(questions[0].family)
    rules = dict(family.blind_answers(questions))
    for answer in Counter(question.answer for question in questions if question.kind != "mask"):
        rules[f"always {answer}"] = [answer] * len(questions)
    if not rules:
        return None
    scored = {rule: _accuracy(questions, answers) for rule, answers in rules.items()}
    best = max(scored, key=lambda rule: scored[rule])
    return Blind(scored[best], best)


@dataclass(frozen=True)
class BlindScore:
    """How much of a task's records can be answered blind.

    Args: task: its name; questions: how many; blind: the best rule; chance: chance level, None for counts.
    """

    task: str
    questions: int
    blind: Blind
    chance: float | None

    def __str__(self) -> str:
        chance = "" if self.chance is None else f", chance {self.chance:.0%}"
        return f"{self.task}: {self.questions} questions, blind {self.blind.accuracy:.0%} ({self.blind.rule}){chance}"


def blind_scores(records: Iterable[Record], *, folder: Path, frame: int) -> list[BlindScore]:
    """The blind baseline and chance level of each task that states an answer.

    Args: frame: side of the square that coordinates refer to.
    """
    by_task: dict[str, list[Question]] = {}
    for record in records:
        task = task_of(record)
        if task is not None and task.answer is not None and "image" in record:
            question = replace(record_question(folder, record, task), frame=frame)
            by_task.setdefault(task.name, []).append(question)
    scores = []
    for name, questions in by_task.items():
        blind = blind_baseline(questions)
        assert blind is not None
        guesses = [question.chance for question in questions if question.chance is not None]
        scores.append(BlindScore(name, len(questions), blind, float(np.mean(guesses)) if guesses else None))
    return scores


def _accuracy(questions: Sequence[Question], answers: Sequence[str | None]) -> float:
    right: dict[str, list[bool]] = {}
    for question, answer in zip(questions, answers, strict=True):
        right.setdefault(question.category, []).append(question.answer == answer)
    return float(np.mean([np.mean(each) for each in right.values()]))
