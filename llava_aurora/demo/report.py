"""What the demo learned, in numbers and pictures: report.md, a loss curve, and a PNG each of some held-out scenes."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from llava_aurora import integration
from llava_aurora.atomic import read_json, write_json, write_text
from llava_aurora.data.photograph import load_photograph
from llava_aurora.data.points import depth_at, sample_points
from llava_aurora.data.prompts import Prompts
from llava_aurora.data.records import LETTERS, MarkedPoint, RecordWriter
from llava_aurora.data.scenes import relative_depth
from llava_aurora.evaluation.figures import box_panels, depth_panels, fold_spans, save_loss_curves, save_panels
from llava_aurora.evaluation.outcomes import Outcome, accuracy, ask, closest_by, question, true_depth
from llava_aurora.modalities import build_modalities
from llava_aurora.modeling.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.modeling.checkpoint import load_pretrained_model
from llava_aurora.modeling.embeddings import grow_embeddings
from llava_aurora.perception import Perception
from llava_aurora.vocabulary import MalformedSpan
from llava_aurora.vqvae.maps import resize_nearest

if TYPE_CHECKING:
    from llava_aurora.demo.pipeline import Demo


@dataclass(frozen=True)
class Row:
    """One line of the table of results. `chance` is what guessing would give."""

    name: str
    value: float
    chance: float | None
    count: int


def write_report(demo: "Demo") -> Path:
    """Asks the trained model about the held-out scenes and the photograph; writes all of it into the output folder."""
    loaded = load_pretrained_model(str(demo.work / "model"))
    perception = loaded[1].perception
    assert isinstance(perception, Perception), "the demo trains a model with perception tokens"
    records = read_json(demo.work / "records" / "held_out.json", what="held-out records")
    outcomes = ask(loaded, records, images=demo.images, description="Asking the trained model")
    by_task: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_task.setdefault(outcome.truth["task"].removesuffix("_of_none"), []).append(outcome)

    depth = depth_errors(demo, perception, by_task["depth_generation"])
    rows = answer_rows(by_task, frame=demo.preset.model.frame)
    rows += read_out_of_generated_maps(by_task, frame=demo.preset.model.frame)
    rows += read_out_limits(demo, perception, by_task["depth_chain_from_coordinates"])
    pictures = [*draw_held_out(demo, perception, by_task), draw_photograph(demo, loaded)]
    history = read_json(demo.work / "model" / "trainer_state.json", what="log of the training run")["log_history"]
    save_loss_curves(demo.out / "loss.png", history)
    result = {
        "depth_mse": depth,
        "answers": [vars(row) for row in rows],
        "seconds": demo.seconds,
        "loss": [entry for entry in history if "loss" in entry],
    }
    write_json(demo.out / "report.json", result)
    path = demo.out / "report.md"
    write_text(path, _text(demo, depth, rows, pictures, history))
    return path


def depth_errors(demo: "Demo", perception: Perception, outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Mean squared error of maps in [0, 1] against the truth: the VQ-VAE's copy, the model's map, two baselines.

    A map that was not written counts as the mean map.
    """
    modality = perception.modalities["depth"]
    size = modality.vqvae.config.image_size  # type: ignore[attr-defined]
    mean = _mean_map(demo, size)
    true = [true_depth(outcome.record, images=demo.images, size=size) for outcome in outcomes]
    copies = [modality.decode(modality.encode(depth)) for depth in true]
    written = [mean if outcome.depth is None else outcome.depth for outcome in outcomes]
    untrained = ask(
        _untrained(demo),
        [outcome.record for outcome in outcomes],
        images=demo.images,
        description="Asking an untrained model",
        answer_start=_map_start(perception),
        max_new_tokens=modality.family.lengths[-1] + 2,
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


def draw_held_out(demo: "Demo", perception: Perception, by_task: Mapping[str, Sequence[Outcome]]) -> list[Path]:
    """A picture each of the first few chains about depth, and of one about counting."""
    modality = perception.modalities["depth"]
    frame, paths = demo.preset.model.frame, []
    for outcome in by_task["depth_chain_from_coordinates"][: demo.preset.pictures]:
        true = true_depth(outcome.record, images=demo.images, size=frame)
        with Image.open(demo.images / outcome.record["image"]) as image:
            panels = depth_panels(
                image, true=true, copy=modality.decode(modality.encode(true)), outcome=outcome, frame=frame
            )
        paths.append(_save(demo, perception, f"scene_{_scene(outcome)}_depth", panels, outcome))
    counted = [outcome for outcome in by_task["counting_chain"] if outcome.truth["boxes"]]
    for outcome in counted[: max(1, demo.preset.pictures // 3)]:
        with Image.open(demo.images / outcome.record["image"]) as image:
            panels = box_panels(image, outcome=outcome, frame=frame)
        paths.append(_save(demo, perception, f"scene_{_scene(outcome)}_boxes", panels, outcome))
    return paths


def draw_photograph(demo: "Demo", loaded: tuple[Any, Any, Any, int]) -> Path:
    """The motorcycle: a real photograph with measured depth, unlike anything the model was trained on."""
    perception = loaded[1].perception
    frame = demo.preset.model.frame
    photograph = load_photograph(frame=frame)
    true = relative_depth(photograph.depth)
    measured = np.where(photograph.known, true, 0)  # points lie where depth was measured, not filled in
    rng = np.random.default_rng(demo.preset.seed)
    positions = sample_points(relative_depth=measured, count=min(3, max(demo.preset.points)), rng=rng)
    assert positions is not None, "the photograph has depths enough for three points"
    points = [
        MarkedPoint(letter=letter, x=x, y=y, depth=depth_at(true, (x, y)))
        for letter, (x, y) in zip(LETTERS, positions, strict=False)
    ]
    modality = perception.modalities["depth"]
    depth, pixels = (perception.modalities[name].family for name in ("depth", "box"))
    folder = demo.work / "photograph"
    folder.mkdir(exist_ok=True)
    Image.fromarray(photograph.image).save(folder / "motorcycle.png")
    record = RecordWriter(prompts=Prompts.plain(), depth=depth, pixels=pixels).depth_chain(
        name="photograph", image="motorcycle.png", points=points, codes=modality.encode(true), rng=rng, marked=False
    )
    outcome = ask(loaded, [record], images=folder, description="Asking about the photograph")[0]
    panels = depth_panels(
        Image.fromarray(photograph.image),
        true=true,
        copy=modality.decode(modality.encode(true)),
        outcome=outcome,
        frame=frame,
    )
    return _save(demo, perception, "photograph_motorcycle", panels, outcome)


def _save(demo: "Demo", perception: Perception, name: str, panels: Sequence[Any], outcome: Outcome) -> Path:
    path = demo.out / f"{name}.png"
    families = perception.vocabulary.families
    save_panels(
        path,
        panels,
        question=_readable(question(outcome.record), families),
        answer=_readable(outcome.answer.text, families),
        truth=outcome.truth["answer"],
    )
    return path


def _readable(text: str, families: Sequence[Any]) -> str:
    """Maps folded, coordinates as plain numbers; as it is where a span is malformed."""
    try:
        for family in families:
            if not family.delimited:
                for span in reversed(family.parse(text)):
                    text = f"{text[: span.start]}({','.join(map(str, span.codes))}){text[span.end :]}"
        return fold_spans(text, families)
    except MalformedSpan:
        return text


def _untrained(demo: "Demo") -> tuple[Any, Any, Any, int]:
    """The base model with its new tokens, before any training."""
    tokenizer, model, image_processor, length = load_pretrained_model(str(demo.work / "base"))
    settings: dict[str, dict[str, Any]] = {
        "depth": {"vqvae": str(demo.work / "vqvae")},
        "box": {"frame": demo.preset.model.frame},
    }
    words = len(tokenizer)
    perception = Perception.teach(tokenizer, build_modalities(settings, Path()))
    new_ids, features = range(words, len(tokenizer)), perception.code_features()
    grow_embeddings(model, rows=len(tokenizer), new_ids=new_ids, features=features)
    assert isinstance(model, AuroraLlamaForCausalLM)
    model.attach_perception(perception)
    return tokenizer, model, image_processor, length


def _map_start(perception: Perception) -> str:
    return perception.modalities["depth"].family.start


def read_out_of_generated_maps(by_task: Mapping[str, Sequence[Outcome]], *, frame: int) -> list[Row]:
    """Points of a scene's question, read out of the map that the model wrote when it was asked for the map alone."""
    maps = {_scene(outcome): outcome.depth for outcome in by_task["depth_generation"]}
    asked = by_task["depth_chain_from_coordinates"]
    rows = []
    for counts in ((2,), (3,), (4,), (5,), (3, 4, 5)):
        right = []
        for outcome in asked:
            depth, truth = maps.get(_scene(outcome)), outcome.truth
            if len(truth["points"]) in counts:
                right.append(depth is not None and closest_by(depth, truth["points"], frame=frame) == truth["answer"])
        if right:
            chance = float(np.mean([1 / len(o.truth["points"]) for o in asked if len(o.truth["points"]) in counts]))
            name = f"depth_generation, {_range(counts)} points: read out of its map"
            rows.append(Row(name, sum(right) / len(right), chance, len(right)))
    return rows


def _scene(outcome: Outcome) -> str:
    return outcome.record["id"].split("/")[0]


def _range(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def read_out_limits(demo: "Demo", perception: Perception, outcomes: Sequence[Outcome]) -> list[Row]:
    """What reading points out of a map gives: of the VQ-VAE's copy at best, of the mean map without looking."""
    modality, frame = perception.modalities["depth"], demo.preset.model.frame
    true = [true_depth(outcome.record, images=demo.images, size=frame) for outcome in outcomes]
    maps = {
        "the VQ-VAE's copy": [modality.decode(modality.encode(depth)) for depth in true],
        "the mean map, the same for every scene": [_mean_map(demo, frame)] * len(true),
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


def _mean_map(demo: "Demo", size: int) -> np.ndarray:
    """float64 (size, size): the mean of a thousand maps of the training scenes."""
    paths = sorted((demo.work / "scenes" / "train" / "depth").glob("*.png"))[:1000]
    return np.mean([resize_nearest(np.asarray(Image.open(path)), (size, size)) for path in paths], axis=0)


def _mse(maps: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> float:
    errors = [np.mean((a / 255 - b / 255) ** 2) for a, b in zip(maps, true, strict=True)]
    return float(np.mean(errors))


def _text(
    demo: "Demo", depth: Mapping[str, float], rows: Sequence[Row], pictures: Sequence[Path], history: Sequence[Any]
) -> str:
    """The report in Markdown."""
    preset = demo.preset
    losses = [entry for entry in history if "loss" in entry]
    first, last = (losses[0], losses[-1]) if losses else ({}, {})
    parts = [name for name in last if name == "loss" or name.startswith("loss_")]
    trained: Mapping[str, float] = next((entry for entry in history if "train_runtime" in entry), {})
    command = " ".join(map(shlex.quote, read_json(demo.work / "command.json", what="command")))
    lines = [
        "# What the demo learned",
        "",
        f"A LLaVA of {preset.model.layers} layers and width {preset.model.width}, started from random weights, with a"
        f" frame of {preset.model.frame} pixels, {(preset.model.frame // preset.model.patch) ** 2} image tokens and"
        f" maps of {preset.vqvae.grid} × {preset.vqvae.grid} codes out of {preset.vqvae.codebook_size}. Trained on"
        f" {preset.scenes} ray-cast scenes, asked about {preset.held_out} others.",
        "",
        "## Depth maps",
        "",
        "Mean squared error against the true relative depth, in [0, 1]² (lower is better), on held-out scenes.",
        "",
        "| map | MSE |",
        "|---|---|",
        *(f"| {_NAMES[name]} | {value:.4f} |" for name, value in depth.items()),
        "",
        "## Answers",
        "",
        "| question | right | chance | questions | |",
        "|---|---|---|---|---|",
        *(_line(row) for row in rows),
        "",
        "Chance is one over the number of points; for counting, always giving the most frequent count. A row is marked"
        " only where it lies more than two standard errors from chance. *Read out of its map* decodes the map that the"
        " model wrote and takes the point with the highest value, whatever the model answered.",
        "",
        *_lessons(rows),
        "",
        "## Pictures",
        "",
        *(f"![{path.stem.replace('_', ' ')}]({path.name})\n" for path in pictures),
        "## Training",
        "",
        "![loss](loss.png)",
        "",
        "| part of the loss | first | last |",
        "|---|---|---|",
        *(f"| {name} | {first.get(name, float('nan')):.3f} | {last[name]:.3f} |" for name in parts),
        "",
        f"{trained.get('train_samples_per_second', float('nan')):.0f} samples a second over"
        f" {trained.get('train_runtime', float('nan')):.0f} s of training.",
        "",
        "| stage | seconds |",
        "|---|---|",
        *(f"| {title} | {seconds:.0f} |" for title, seconds in demo.seconds.items()),
        "",
        "## Again",
        "",
        f"```\nllava-aurora demo --preset {demo.name} --out {demo.out.name}\n```",
        "",
        "The fine-tuning alone, as the demo started it (paths from the root of the repository):",
        "",
        f"```\n{_portable(command, demo)}\n```",
        "",
        f"Python {platform.python_version()}, "
        + ", ".join(f"{version.package} {version.found}" for version in integration.versions())
        + f", {torch.get_num_threads()} CPU threads.",
    ]
    return "\n".join(lines) + "\n"


_NAMES = {
    "vqvae": "the VQ-VAE's copy of the true map",
    "model": "written by the trained model",
    "mean map": "baseline: the mean map of the training scenes",
    "untrained model": "baseline: written by the model before training",
}


def _verdict(row: Row) -> str:
    """Above or below chance by more than two standard errors of a share; empty in between."""
    if row.chance is None or not row.count:
        return ""
    error = (row.chance * (1 - row.chance) / row.count) ** 0.5
    distance = row.value - row.chance
    return "" if abs(distance) <= 2 * error else "above chance" if distance > 0 else "below chance"


def _line(row: Row) -> str:
    chance = "–" if row.chance is None else f"{100 * row.chance:.0f} %"
    return f"| {row.name} | {100 * row.value:.0f} % | {chance} | {row.count} | {_verdict(row)} |"


def _lessons(rows: Sequence[Row]) -> list[str]:
    """What was not learned, said plainly."""
    missed = [row.name for row in rows if _verdict(row) != "above chance"]
    if not missed:
        return ["Every row is above chance."]
    return ["Not learned in this time (not above chance):", "", *(f"- {name}" for name in missed)]


def _portable(command: str, demo: "Demo") -> str:
    """The command with paths from the root of the repository."""
    from llava_aurora.demo.launch import REPOSITORY

    for folder in (demo.work.absolute(), demo.work):
        command = command.replace(str(folder), f"{demo.out.name}/work")
    return command.replace(f"{REPOSITORY}/", "").replace(".venv/bin/", "")
