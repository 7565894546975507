"""The wording of questions and answers: each task's own, or a JSON file's in its place."""

import string
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json
from llava_aurora.tasks.registry import tasks
from llava_aurora.tasks.task import Task, Wording


class Prompts:
    """Templates by task.

    Args: templates: {task: {"questions": …, "answers": …}}; what is left out keeps the task's own wording.
    """

    def __init__(self, templates: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None) -> None:
        given = templates or {}
        self.templates = {
            name: {"questions": wording.questions, "answers": wording.answers, **given.get(name, {})}
            for name, wording in _wordings().items()
        }

    @classmethod
    def plain(cls) -> "Prompts":
        """One wording a task. Maps then stand at one distance from the image, which a small model learns fastest."""
        everything = cls().templates
        return cls({task: {part: given[:1] for part, given in parts.items()} for task, parts in everything.items()})

    @classmethod
    def load(cls, path: str | Path) -> "Prompts":
        """Reads a JSON file {task: {"questions": [...], "answers": [...]}}.

        Raises AuroraError naming file, task and template, for an unknown task or field, or a field that is missing.
        """
        content, known = read_json(path, what="prompts"), _wordings()
        if not isinstance(content, dict):
            raise AuroraError(f"{path}: prompts are a JSON object of tasks: {', '.join(known)}")
        for task, parts in content.items():
            if task not in known:
                raise AuroraError(f"{path}: unknown task {task!r}; available: {', '.join(known)}")
            if not isinstance(parts, dict) or not set(parts) <= {"questions", "answers"}:
                raise AuroraError(f"{path}: task {task}: expected 'questions' and 'answers' only")
            for part, templates in parts.items():
                if not isinstance(templates, list) or not templates or not all(isinstance(t, str) for t in templates):
                    raise AuroraError(f"{path}: task {task}: {part} must be a list of texts, with at least one")
                for template in templates:
                    if problem := _problem(known[task], part, template):
                        raise AuroraError(f"{path}: task {task}: {template!r} {problem}")
        return cls({task: {part: tuple(given) for part, given in parts.items()} for task, parts in content.items()})

    def answers(self, task: Task, *, values: bool) -> list[str]:
        """Every template of an answer to a task. Args: values: for a model that is taught to state values."""
        templates = (template for name in task.wordings for template in self.templates[name]["answers"])
        return list(dict.fromkeys(task.taught_answer(template, values=values) for template in templates))

    def fill(self, wording: str, rng: np.random.Generator, **values: object) -> tuple[str, str]:
        """A question and its answer, from variants drawn at random. Raises KeyError for an unknown wording."""
        question, answer = (
            templates[int(rng.integers(len(templates)))].format(**values)
            for templates in (self.templates[wording]["questions"], self.templates[wording]["answers"])
        )
        return question, answer


def _wordings() -> dict[str, Wording]:
    return {name: wording for task in tasks().values() for name, wording in task.wordings.items()}


def _problem(wording: Wording, part: str, template: str) -> str | None:
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        return f"is not a template: {error}"
    if formatted := next((name for _, name, layout, conversion in fields if layout or conversion), None):
        return f"has a format for {{{formatted}}}; write only {{{formatted}}}"
    used = {name for _, name, _, _ in fields if name is not None}
    needed = wording.question_needs if part == "questions" else wording.answer_needs
    allowed = wording.question_needs | wording.optional | (wording.answer_needs if part == "answers" else frozenset())
    if missing := needed - used:
        return f"lacks {{{sorted(missing)[0]}}}"
    if unknown := used - allowed:
        return f"uses {{{sorted(unknown)[0]}}}; it may use {', '.join(sorted(allowed)) or 'no field'}"
    return None
