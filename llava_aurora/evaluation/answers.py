"""Answers of an evaluation on disk: asked in batches by one process or several, kept at once, never asked twice.

An evaluation's folder holds

    evaluation.json                      the model, the settings, and of each benchmark its folder and questions
    answers/TASK.REASONING.jsonl         a line for each question, in their order, once all are answered
    answers/TASK.REASONING.partN.jsonl   what process N has so far; a last line that was cut off is asked again
    costs/TASK.REASONING.partN.jsonl     what answers of process N took, which differs from run to run
"""

import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_aurora.batches import batches
from llava_aurora.data.sources.depth.depth_maps import Share
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.benchmarks.question import Question, QuestionSet
from llava_aurora.files import read_json, write_json, write_text
from llava_aurora.generation.predictor import Decoding
from llava_aurora.generation.result import Answer
from llava_aurora.line_file import LineFile, json_lines
from llava_aurora.progress import count_bars

HEADER = "evaluation.json"
ANSWERS = "answers"
COSTS = "costs"
_FORMAT = "llava_aurora evaluation 1"


@dataclass(frozen=True, kw_only=True)
class AnswerSettings:
    """How answers are written, beside the model; arguments of `Predictor.write`."""

    reasoning_prompt: str | None = None
    conversation: str = "vicuna_v1"
    max_new_tokens: int = 512
    constrained: bool = True
    decoding: Decoding = "greedy"
    refinements: int = 1


@dataclass(frozen=True)
class AnswerStore:
    """Args: out: folder of the evaluation."""

    out: Path

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Writes down which model is asked and how, or checks that it is the same as before.

        Raises AuroraError if the folder holds answers of another model or other settings, naming what differs, or
        anything but an evaluation.
        """
        header = self._header()
        if header is None:
            if self.out.exists() and not (self.out.is_dir() and all(p.name[0] == "." for p in self.out.iterdir())):
                raise AuroraError(
                    f"{self.out}: is not a folder of an evaluation ({HEADER} is missing); choose another --out"
                )
            write_json(self.out / HEADER, {"format": _FORMAT, "asked": dict(identity), "benchmarks": {}})
            return
        found = header["asked"]
        for name in {**found, **identity}:
            if found.get(name) != identity.get(name):
                before, now = (" ".join(str(values.get(name)).split()) for values in (found, identity))
                raise AuroraError(
                    f"{self.out}: holds answers with {name} {before}, not {now}; choose another folder with --out"
                )

    def claim_benchmark(self, task: str, *, data: Path, questions: QuestionSet) -> None:
        """Writes down what is asked, or checks that it is the same. Raises AuroraError if it is not."""
        header = self._header() or {}
        about = {
            "data": str(data.resolve()),
            "questions": len(questions.questions),
            "left_out": dict(questions.left_out),
            "digest": questions.digest,
        }
        found = header.get("benchmarks", {}).get(task)
        if found is not None and found["digest"] != about["digest"]:
            raise AuroraError(
                f"{self.out}: holds answers to {found['questions']} other questions of {task}, from {found['data']};"
                " choose another folder with --out"
            )
        if found is None:
            header["benchmarks"][task] = about
            write_json(self.out / HEADER, header)

    def header(self) -> dict[str, Any]:
        """What evaluation.json says. Raises AuroraError if there is none."""
        header = self._header()
        if header is None:
            raise AuroraError(f"{self.out}: no evaluation here ({HEADER} is missing); run `llava-aurora eval` first")
        return header

    def read(self, task: str, reasoning: str) -> dict[str, Answer]:
        """The answers that there are, by the id of their question."""
        paths = [self._whole(task, reasoning), *self._parts(task, reasoning)]
        return dict(_answer(line, path) for path in paths for line in _line_file(path).read())

    def ask(
        self,
        answer: Callable[[Sequence[Question]], Sequence[Answer]],
        questions: Sequence[Question],
        *,
        task: str,
        reasoning: str,
        batch_size: int,
        share: Share,
        by_image: bool = False,
    ) -> None:
        """Asks what has no answer yet of this process's share, and keeps each batch of answers at once.

        Args:
            questions: all of the benchmark, in the same order in every process.
            by_image: batches are about one image each, whose questions one process asks.
        Raises AuroraError if an image cannot be read, or the folder not be written.
        """
        done = self.read(task, reasoning)
        groups: dict[Hashable, list[Question]] = {}
        for question in questions:
            groups.setdefault(_image(question) if by_image else question.id, []).append(question)
        shared = itertools.chain.from_iterable(list(groups.values())[share.index :: share.count])
        mine = [question for question in shared if question.id not in done]
        if not mine:
            return
        file = _line_file(self.out / ANSWERS / f"{task}.{reasoning}.part{share.index}.jsonl")
        costs = _costs_file(self.out / COSTS / f"{task}.{reasoning}.part{share.index}.jsonl")
        asked = _shown(mine, title=f"{task}, {reasoning}", share=share)
        images = itertools.groupby(asked, _image if by_image else lambda _: None)
        for batch in itertools.chain.from_iterable(batches(group, batch_size) for _, group in images):
            answers = answer(batch)
            file.append(_line(q.id, result) for q, result in zip(batch, answers, strict=True))
            costs.append(
                {"id": q.id, "seconds": result.seconds, "token_passes": result.token_passes}
                for q, result in zip(batch, answers, strict=True)
                if result.seconds is not None
            )

    def costs(self, task: str, reasoning: str) -> dict[str, float]:
        """Means over the answers of which they are known: seconds, token_passes (see `Answer`)."""
        files = sorted((self.out / COSTS).glob(f"{task}.{reasoning}.part*.jsonl"))
        lines = [line for path in files for line in _costs_file(path).read()]
        known = {name: [line[name] for line in lines if line[name] is not None] for name in ("seconds", "token_passes")}
        return {name: sum(values) / len(values) for name, values in known.items() if values}

    def finish(self, questions: Sequence[Question], *, task: str, reasoning: str) -> list[Answer]:
        """Puts the parts of all processes together. Raises AuroraError if a question has no answer."""
        found = self.read(task, reasoning)
        missing = [question.id for question in questions if question.id not in found]
        if missing:
            raise AuroraError(
                f"{self.out}: {len(missing)} of {len(questions)} questions of {task} ({reasoning}) have no answer,"
                f" such as {missing[0]}; run the same command again"
            )
        results = {question.id: found[question.id] for question in questions}
        parts = self._parts(task, reasoning)
        if parts:
            write_text(self._whole(task, reasoning), json_lines(itertools.starmap(_line, results.items())))
            for part in parts:
                part.unlink()
        return list(results.values())

    def _header(self) -> dict[str, Any] | None:
        path = self.out / HEADER
        if not path.exists():
            return None
        header = read_json(path, what="header of the evaluation")
        parts = [header.get(name) for name in ("asked", "benchmarks")] if isinstance(header, dict) else []
        if not parts or header.get("format") != _FORMAT or not all(isinstance(part, dict) for part in parts):
            raise AuroraError(f"{path}: not the header of an evaluation ({_FORMAT}); choose another folder")
        return header

    def _whole(self, task: str, reasoning: str) -> Path:
        return self.out / ANSWERS / f"{task}.{reasoning}.jsonl"

    def _parts(self, task: str, reasoning: str) -> list[Path]:
        return sorted((self.out / ANSWERS).glob(f"{task}.{reasoning}.part*.jsonl"))


def _line_file(path: Path) -> LineFile:
    return LineFile(path, keys=("id", "text", "ids", "finished"), what="answer of an evaluation")


def _image(question: Question) -> Hashable:
    """What tells its image from those of other questions; of one inside of a Parquet file perhaps only its id."""
    return question.image if isinstance(question.image, Path) else question.image_id or question.id


def _costs_file(path: Path) -> LineFile:
    return LineFile(path, keys=("id", "seconds", "token_passes"), what="cost of an answer")


def _answer(line: Mapping[str, Any], path: Path) -> tuple[str, Answer]:
    id, text, ids, finished = (line[name] for name in ("id", "text", "ids", "finished"))
    whole = isinstance(ids, list) and all(type(each) is int and each >= 0 for each in ids)
    if not (whole and isinstance(id, str) and isinstance(text, str) and isinstance(finished, bool)):
        raise AuroraError(f"{path}: the line of {id} is damaged; delete it, and the question is asked again")
    return id, Answer(text=text, ids=tuple(ids), finished=finished)


def _line(id: str, result: Answer) -> dict[str, Any]:
    return {"id": id, "text": result.text, "ids": result.ids, "finished": result.finished}


def _shown(questions: Sequence[Question], *, title: str, share: Share) -> Iterable[Question]:
    """The same, with a progress bar in the first process."""
    name = title if share.count == 1 else f"{title} (process 1 of {share.count})"
    with count_bars(disable=share.index > 0) as progress:
        bar = progress.add_task(name, total=len(questions))
        for question in questions:
            yield question
            progress.advance(bar)
