"""The blind baseline: the best answers that can be given without the image of the question."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llava_aurora.evaluation.benchmarks.question import Question
from llava_aurora.tasks.registry import family_named


@dataclass(frozen=True)
class Blind:
    """Args: accuracy: of the best rule, each category counting alike, in [0, 1]; rule: in words."""

    accuracy: float
    rule: str


def blind_baseline(questions: Sequence[Question]) -> Blind | None:
    """The best of the rules that the questions' family knows, and of always giving the same answer.

    The rule is chosen, and the answer that is always given, with the right answers known: so this is the most that can
    be reached blind, not what a blind model would get.

    Args:
        questions: of one task family.

    Returns:
        None of no questions.
    """
    if not questions:
        return None
    family = family_named(questions[0].family)
    rules = dict(family.blind_answers(questions))
    for answer in Counter(question.answer for question in questions):
        rules[f"always {answer}"] = [answer] * len(questions)
    scored = {rule: _accuracy(questions, answers) for rule, answers in rules.items()}
    best = max(scored, key=lambda rule: scored[rule])
    return Blind(scored[best], best)


def _accuracy(questions: Sequence[Question], answers: Sequence[str | None]) -> float:
    right: dict[str, list[bool]] = {}
    for question, answer in zip(questions, answers, strict=True):
        right.setdefault(question.category, []).append(question.answer == answer)
    return float(np.mean([np.mean(each) for each in right.values()]))
