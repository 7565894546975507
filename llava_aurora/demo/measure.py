"""What the model of the demo is worth: its maps, its answers, points read out of its maps; each beside a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llava_aurora.demo.stages import mean_map
from llava_aurora.evaluation.outcomes import Outcome, accuracy, ask, go_on, true_depth
from llava_aurora.evaluation.written import closest_by, read_written
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.model.embeddings import RowStart, grow_embeddings
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens

if TYPE_CHECKING:
    from llava_aurora.demo.pipeline import Demo


@dataclass(frozen=True)
class Row:
    """One line of the table of results. `chance` is what guessing would give."""

    name: str
    value: float
    chance: float | None
    count: int


def depth_errors(demo: "Demo", perception: PerceptionTokens, outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Mean squared error of maps in [0, 1] against the truth: the VQ-VAE's copy, the model's map, two baselines.

    A map that was not written counts as the mean map.
    """
    kind = perception.kinds["depth"]
    size = kind.vqvae.config.image_size  # type: ignore[attr-defined]
    mean = mean_map(demo.work / "scenes" / "train" / "depth", size=size)
    true = [true_depth(outcome.record, images=demo.images, size=size) for outcome in outcomes]
    copies = [kind.decode(kind.encode(depth)) for depth in true]
    written = [mean if outcome.depth is None else outcome.depth for outcome in outcomes]
    untrained = ask(
        _untrained(demo),
        [outcome.record for outcome in outcomes],
        images=demo.images,
        description="Asking an untrained model",
        answer_start=_map_start(perception),
        max_new_tokens=kind.family.lengths[-1] + 2,
    )
    guesses = [mean if outcome.depth is None else outcome.depth for outcome in untrained]
    pairs = {"vqvae": copies, "model": written, "mean map": [mean] * len(true), "untrained model": guesses}
    return {name: _mse(maps, true) for name, maps in pairs.items()}


def answer_rows(by_task: Mapping[str, Sequence[Outcome]], *, frame: int) -> list[Row]:
    """Accuracy of answers and of the maps behind them, by task and number of points, each with its chance level."""
    rows = []
    for task in ("depth_chain_from_coordinates", "depth_direct_from_coordinates", "depth_chain"):
        for counts in ((2,), (3,), (4,), (5,), (3, 4, 5)):
            asked = [outcome for outcome in by_task.get(task, ()) if len(outcome.truth["points"]) in counts]
            if not asked:
                continue
            name = f"{task}, {_range(counts)} points"
            chance = float(np.mean([1 / len(outcome.truth["points"]) for outcome in asked]))
            rows.append(Row(f"{name}: answer", accuracy(asked, lambda o: o.correct), chance, len(asked)))
            if "chain" in task:
                right = accuracy(asked, lambda o: o.read_out(frame=frame) == o.truth["answer"])
                rows.append(Row(f"{name}: read out of its map", right, chance, len(asked)))
    for task in ("counting_chain", "counting_direct"):
        asked = list(by_task.get(task, ()))
        answers = [outcome.truth["answer"] for outcome in asked]
        most_frequent = max(map(answers.count, answers)) / len(answers) if answers else None
        rows.append(Row(f"{task}: answer", accuracy(asked, lambda o: o.correct), most_frequent, len(asked)))
    return rows


def behind_other_maps(
    demo: "Demo", loaded: tuple[Any, Any, Any, int], outcomes: Sequence[Outcome]
) -> dict[str, tuple[float, int]]:
    """Share of right answers, and of how many, behind the model's own map and behind others in its place.

    Of chains about three to five points, or whatever there is. `llava-aurora replace-test` is the whole test.
    """
    hard = [outcome for outcome in outcomes if len(outcome.truth["points"]) > 2 and outcome.depth is not None]
    whole = hard or [outcome for outcome in outcomes if outcome.depth is not None]
    if not whole:
        return {}
    perception = loaded[1].perception
    depth = perception.kinds["depth"]
    own = [read_written(outcome.answer.text, outcome.answer.ids, perception).codes for outcome in whole]
    rng = np.random.default_rng(demo.preset.seed)
    size = depth.vqvae.config.image_size
    maps = {
        "the true map": [depth.encode(true_depth(o.record, images=demo.images, size=size)) for o in whole],
        "its own map": own,
        "its map of another scene": [*own[1:], *own[:1]],
        "random codes": rng.integers(depth.family.size, size=(len(whole), depth.family.lengths[-1])).tolist(),
    }
    found = {}
    for name, codes in maps.items():
        answers = go_on(loaded, whole, codes, images=demo.images, description=f"Behind {name}")
        found[name] = (accuracy(answers, lambda o: o.correct), len(answers))
    return found


def _untrained(demo: "Demo") -> tuple[Any, Any, Any, int]:
    """The base model with its new tokens, before any training."""
    tokenizer, model, image_processor, length = load_pretrained_model(str(demo.work / "base"))
    settings: dict[str, dict[str, Any]] = {
        "depth": {"vqvae": str(demo.work / "vqvae")},
        "box": {"frame": demo.preset.model.frame},
    }
    perception = PerceptionTokens.teach(tokenizer, build_kinds(settings, Path()))
    start = RowStart(features=perception.code_features())
    grow_embeddings(model, rows=len(tokenizer), ids=perception.token_ids(), start=start)
    assert isinstance(model, AuroraLlamaForCausalLM)
    model.attach_perception(perception)
    return tokenizer, model, image_processor, length


def _map_start(perception: PerceptionTokens) -> str:
    return perception.kinds["depth"].family.start


def read_out_of_generated_maps(by_task: Mapping[str, Sequence[Outcome]], *, frame: int) -> list[Row]:
    """Points of a scene's question, read out of the map that the model wrote when it was asked for the map alone."""
    maps = {scene_of(outcome): outcome.depth for outcome in by_task["depth_generation"]}
    asked = by_task["depth_chain_from_coordinates"]
    rows = []
    for counts in ((2,), (3,), (4,), (5,), (3, 4, 5)):
        right = []
        for outcome in asked:
            depth, truth = maps.get(scene_of(outcome)), outcome.truth
            if len(truth["points"]) in counts:
                right.append(depth is not None and closest_by(depth, truth["points"], frame=frame) == truth["answer"])
        if right:
            chance = float(np.mean([1 / len(o.truth["points"]) for o in asked if len(o.truth["points"]) in counts]))
            name = f"depth_generation, {_range(counts)} points: read out of its map"
            rows.append(Row(name, sum(right) / len(right), chance, len(right)))
    return rows


def scene_of(outcome: Outcome) -> str:
    return outcome.record["id"].split("/")[0]


def _range(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def read_out_limits(demo: "Demo", perception: PerceptionTokens, outcomes: Sequence[Outcome]) -> list[Row]:
    """What reading points out of a map gives: of the VQ-VAE's copy at best, of the mean map without looking."""
    kind, frame = perception.kinds["depth"], demo.preset.model.frame
    true = [true_depth(outcome.record, images=demo.images, size=frame) for outcome in outcomes]
    mean = mean_map(demo.work / "scenes" / "train" / "depth", size=frame)
    maps = {
        "the VQ-VAE's copy": [kind.decode(kind.encode(depth)) for depth in true],
        "the mean map, the same for every scene": [mean] * len(true),
    }
    chance = float(np.mean([1 / len(outcome.truth["points"]) for outcome in outcomes]))
    rows = []
    for name, depths in maps.items():
        right = sum(
            closest_by(depth, outcome.truth["points"], frame=frame) == outcome.truth["answer"]
            for depth, outcome in zip(depths, outcomes, strict=True)
        )
        rows.append(Row(f"all points: read out of {name}", right / len(outcomes), chance, len(outcomes)))
    return rows


def _mse(maps: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> float:
    errors = [np.mean((a / 255 - b / 255) ** 2) for a, b in zip(maps, true, strict=True)]
    return float(np.mean(errors))
