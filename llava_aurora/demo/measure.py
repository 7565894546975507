"""What the demo's model has learned: its maps, its answers, points computed from its maps; each beside a baseline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llava_aurora.batches import batches
from llava_aurora.data.images.image_files import open_image
from llava_aurora.data.sources.scenes.scene_folder import mean_depth
from llava_aurora.demo.demo_folder import DemoFolder
from llava_aurora.evaluation.benchmarks.record_questions import record_question
from llava_aurora.evaluation.benchmarks.scene_questions import question_of
from llava_aurora.evaluation.blind import blind_baseline
from llava_aurora.generation.predictor import Predictor
from llava_aurora.generation.result import Result
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.model.embeddings import RowStart, grow_embeddings
from llava_aurora.progress import tracked
from llava_aurora.tasks.answers import stated_answer
from llava_aurora.tasks.depth import closest_by
from llava_aurora.tasks.registry import task_of
from llava_aurora.tasks.task import Record
from llava_aurora.tasks.written import read_written
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.vqvae.maps import read_depth_map, resize_nearest

_BATCH = 32


@dataclass(frozen=True)
class Asked:
    """A record, and what the model wrote to its question."""

    record: Record
    result: Result

    @property
    def truth(self) -> dict[str, Any]:
        return self.record["aurora"]

    @property
    def correct(self) -> bool:
        return stated_answer(self.result.text, task=self.truth["task"]) == self.truth.get("answer")

    def read_out(self, *, frame: int) -> str | None:
        """The letter of the point that is closest by the map that was written; `frame`: that its points refer to."""
        if self.result.depth is None or "points" not in self.truth:
            return None
        return closest_by(self.result.depth, self.truth["points"], frame=frame)


def ask(
    predictor: Predictor, records: Sequence[Record], *, images: Path, description: str = "Asking", **options: Any
) -> list[Asked]:
    """Asks the question of each record.

    Args:
        images: the folder their image paths are relative to.
        description: of the progress bar.
        options: for `Predictor.write`; `answer_start` may hold the ids of each record.

    Raises:
        AuroraError: naming the image that cannot be read.
    """
    starts = options.pop("answer_start", "")
    found: list[Asked] = []
    for batch in tracked(list(batches(records, _BATCH)), description):
        opened = [open_image(images / record["image"]) for record in batch]
        start = starts if isinstance(starts, str) else starts[len(found) : len(found) + len(batch)]
        results = predictor.write(opened, [question_of(record) for record in batch], answer_start=start, **options)
        found += map(Asked, batch, results)
    return found


def accuracy(asked: Sequence[Asked], right: Callable[[Asked], bool]) -> float:
    """Share of answers that are right; NaN of none."""
    return sum(map(right, asked)) / len(asked) if asked else float("nan")


def true_depth(record: Record, *, images: Path, size: int) -> np.ndarray:
    """The true map of a record, uint8 (size, size), by nearest neighbour."""
    return resize_nearest(read_depth_map(images / record["aurora"]["depth"]), (size, size))


@dataclass(frozen=True)
class Row:
    """One line of the table of results.

    Attributes:
        name: of the questions, and what of the answers is measured.
        value: share that is right.
        chance: share that guessing one of the points would get right; None for counting.
        blind: share that the best answers without the image get right.
        count: questions.
    """

    name: str
    value: float
    chance: float | None
    blind: float
    count: int


def depth_errors(demo: DemoFolder, perception: PerceptionTokens, asked: Sequence[Asked]) -> dict[str, float]:
    """Mean squared error of maps in [0, 1] against the truth: VQ-VAE, model, two baselines.

    A map that was not written counts as the mean map.
    """
    kind = perception.kinds["depth"]
    size = kind.vqvae.config.image_size  # type: ignore[attr-defined]
    mean = mean_depth(demo.work / "scenes" / "train", side=size)
    true = [true_depth(each.record, images=demo.images, size=size) for each in asked]
    copies = [kind.decode(kind.encode(depth)) for depth in true]
    written = [mean if each.result.depth is None else each.result.depth for each in asked]
    untrained = ask(
        _untrained(demo),
        [each.record for each in asked],
        images=demo.images,
        description="Asking an untrained model",
        answer_start=kind.family.start,
        max_new_tokens=kind.family.lengths[-1] + 2,
    )
    guesses = [mean if each.result.depth is None else each.result.depth for each in untrained]
    pairs = {"vqvae": copies, "model": written, "mean map": [mean] * len(true), "untrained model": guesses}
    return {name: _mse(maps, true) for name, maps in pairs.items()}


def _row(name: str, value: float, asked: Sequence[Asked], *, demo: DemoFolder) -> Row:
    """A row about questions, with its chance level and blind baseline."""
    frame, questions = demo.preset.model.frame, []
    for each in asked:
        task = task_of(each.record)
        assert task is not None
        questions.append(replace(record_question(demo.images, each.record, task), frame=frame))
    blind = blind_baseline(questions)
    points = [len(each.truth["points"]) for each in asked if "points" in each.truth]
    chance = float(np.mean([1 / count for count in points])) if points else None
    return Row(name, value, chance, blind.accuracy if blind is not None else float("nan"), len(asked))


def answer_rows(by_task: Mapping[str, Sequence[Asked]], *, demo: DemoFolder) -> list[Row]:
    """Accuracy of answers and of the maps behind them, by task and number of points."""
    frame = demo.preset.model.frame
    rows = []
    for task in ("depth_chain_from_coordinates", "depth_direct_from_coordinates", "depth_chain"):
        for counts in ((2,), (3,), (4,), (5,), (3, 4, 5)):
            asked = [each for each in by_task.get(task, ()) if len(each.truth["points"]) in counts]
            if not asked:
                continue
            name = f"{task}, {_range(counts)} points"
            rows.append(_row(f"{name}: answer", accuracy(asked, lambda o: o.correct), asked, demo=demo))
            if "chain" in task:
                right = accuracy(asked, lambda o: o.read_out(frame=frame) == o.truth["answer"])
                rows.append(_row(f"{name}: computed from its map", right, asked, demo=demo))
    for task in ("counting_chain", "counting_direct"):
        if asked := list(by_task.get(task, ())):
            rows.append(_row(f"{task}: answer", accuracy(asked, lambda o: o.correct), asked, demo=demo))
    return rows


def behind_other_maps(demo: DemoFolder, predictor: Predictor, asked: Sequence[Asked]) -> dict[str, tuple[float, int]]:
    """Share of right answers, and of how many, behind the model's own map and behind others in its place.

    Of chains about three to five points, or whatever there is. `llava-aurora replace-test` is the whole test.
    """
    perception = predictor.perception
    assert perception is not None
    written = [(each, read_written(each.result.text, each.result.ids, perception, kind="depth")) for each in asked]
    whole = [(each, found) for each, found in written if found.codes is not None]
    whole = [(each, found) for each, found in whole if len(each.truth["points"]) > 2] or whole
    if not whole:
        return {}
    depth = perception.kinds["depth"]
    records, own = [each.record for each, _ in whole], [found.codes for _, found in whole]
    rng = np.random.default_rng(demo.preset.seed)
    size = depth.vqvae.config.image_size  # type: ignore[attr-defined]
    maps: dict[str, Sequence[Any]] = {
        "the true map": [depth.encode(true_depth(record, images=demo.images, size=size)) for record in records],
        "its own map": own,
        "its map of another scene": [*own[1:], *own[:1]],
        "random codes": rng.integers(depth.family.size, size=(len(whole), depth.family.lengths[-1])).tolist(),
    }
    shares = {}
    for name, codes in maps.items():
        starts = [
            [*each.result.ids[: found.map_start], *perception.ids.ids(depth.family, put_in)]
            for (each, found), put_in in zip(whole, codes, strict=True)
        ]
        answers = ask(predictor, records, images=demo.images, description=f"With {name}", answer_start=starts)
        shares[name] = (accuracy(answers, lambda each: each.correct), len(answers))
    return shares


def _untrained(demo: DemoFolder) -> Predictor:
    """The base model with its new tokens, before any training."""
    tokenizer, model, image_processor, _ = load_pretrained_model(str(demo.work / "base"))
    settings: dict[str, dict[str, Any]] = {
        "depth": {"vqvae": str(demo.work / "vqvae")},
        "box": {"frame": demo.preset.model.frame},
    }
    perception = PerceptionTokens.teach(tokenizer, build_kinds(settings, Path()))
    start = RowStart(features=perception.code_features())
    grow_embeddings(model, rows=len(tokenizer), ids=perception.token_ids(), start=start)
    assert isinstance(model, AuroraLlamaForCausalLM)
    model.attach_perception(perception)
    return Predictor(tokenizer=tokenizer, model=model, image_processor=image_processor)


def read_out_of_generated_maps(by_task: Mapping[str, Sequence[Asked]], *, demo: DemoFolder) -> list[Row]:
    """Points of a scene's question, computed from the map that the model wrote when it was asked for the map alone."""
    maps = {scene_of(each): each.result.depth for each in by_task["depth_generation"]}
    frame, rows = demo.preset.model.frame, []

    def right(each: Asked) -> bool:
        depth, truth = maps.get(scene_of(each)), each.truth
        return depth is not None and closest_by(depth, truth["points"], frame=frame) == truth["answer"]

    for counts in ((2,), (3,), (4,), (5,), (3, 4, 5)):
        chains = by_task["depth_chain_from_coordinates"]
        if asked := [each for each in chains if len(each.truth["points"]) in counts]:
            name = f"depth_generation, {_range(counts)} points: computed from its map"
            rows.append(_row(name, accuracy(asked, right), asked, demo=demo))
    return rows


def scene_of(each: Asked) -> str:
    return each.record["id"].split("/")[0]


def _range(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def read_out_limits(demo: DemoFolder, perception: PerceptionTokens, asked: Sequence[Asked]) -> list[Row]:
    """Accuracy computed from a map: from the VQ-VAE's reconstruction at best, from the mean map without looking."""
    kind, frame = perception.kinds["depth"], demo.preset.model.frame
    true = [true_depth(each.record, images=demo.images, size=frame) for each in asked]
    mean = mean_depth(demo.work / "scenes" / "train", side=frame)
    maps = {
        "the true map, encoded and decoded by the VQ-VAE": [kind.decode(kind.encode(depth)) for depth in true],
        "the mean map, the same for every scene": [mean] * len(true),
    }
    rows = []
    for name, depths in maps.items():
        right = sum(
            closest_by(depth, each.truth["points"], frame=frame) == each.truth["answer"]
            for depth, each in zip(depths, asked, strict=True)
        )
        rows.append(_row(f"all points: computed from {name}", right / len(asked), asked, demo=demo))
    return rows


def _mse(maps: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> float:
    errors = [np.mean((a / 255 - b / 255) ** 2) for a, b in zip(maps, true, strict=True)]
    return float(np.mean(errors))
