"""What the demo learned, in numbers and pictures: report.md, a loss curve, and a PNG each of some held-out scenes."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from llava_aurora import integration
from llava_aurora.data.sources.scenes.photograph import load_photograph
from llava_aurora.data.sources.scenes.scene import relative_depth
from llava_aurora.demo.demo_folder import DemoFolder
from llava_aurora.demo.measure import (
    Asked,
    Row,
    answer_rows,
    ask,
    behind_other_maps,
    depth_errors,
    read_out_limits,
    read_out_of_generated_maps,
    scene_of,
    true_depth,
)
from llava_aurora.evaluation.benchmarks.scene_questions import question_of
from llava_aurora.evaluation.figures import box_panels, depth_panels, readable
from llava_aurora.files import read_json, write_json, write_text
from llava_aurora.generation.predictor import Predictor
from llava_aurora.report.plots import Panel, loss_curves, save_panels
from llava_aurora.tasks.depth import DepthFacts
from llava_aurora.tasks.forms import LETTERS
from llava_aurora.tasks.marks import depth_at, sample_points
from llava_aurora.tasks.points import MarkedPoint
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tasks.written import read_written
from llava_aurora.tokens.perception import PerceptionTokens


def write_report(demo: DemoFolder) -> Path:
    """Asks the trained model about the held-out scenes and the photograph; writes all of it into the output folder."""
    predictor = Predictor.from_pretrained(demo.work / "model")
    perception = predictor.perception
    assert isinstance(perception, PerceptionTokens), "the demo trains a model with perception tokens"
    records = read_json(demo.work / "records" / "held_out.json", what="held-out records")
    outcomes = ask(predictor, records, images=demo.images, description="Asking the trained model")
    by_task: dict[str, list[Asked]] = {}
    for outcome in outcomes:
        by_task.setdefault(outcome.truth["task"].removesuffix("_of_none"), []).append(outcome)

    depth = depth_errors(demo, perception, by_task["depth_generation"])
    rows = answer_rows(by_task, demo=demo)
    rows += read_out_of_generated_maps(by_task, demo=demo)
    rows += read_out_limits(demo, perception, by_task["depth_chain_from_coordinates"])
    behind = behind_other_maps(demo, predictor, by_task["depth_chain_from_coordinates"])
    pictures = [*draw_held_out(demo, perception, by_task), draw_photograph(demo, predictor)]
    history = read_json(demo.work / "model" / "trainer_state.json", what="log of the training run")["log_history"]
    loss_curves(demo.out / "loss.png", history)
    result = {
        "depth_mse": depth,
        "answers": [vars(row) for row in rows],
        "behind_other_maps": {name: {"right": right, "questions": count} for name, (right, count) in behind.items()},
        "seconds": demo.seconds,
        "loss": [entry for entry in history if "loss" in entry],
    }
    write_json(demo.out / "report.json", result)
    path = demo.out / "report.md"
    write_text(path, _text(demo, depth, rows, behind, pictures, history))
    return path


def draw_held_out(demo: DemoFolder, perception: PerceptionTokens, by_task: Mapping[str, Sequence[Asked]]) -> list[Path]:
    """A picture each of the first few chains about depth, and of one about counting."""
    frame, paths = demo.preset.model.frame, []
    for outcome in by_task["depth_chain_from_coordinates"][: demo.preset.pictures]:
        true = true_depth(outcome.record, images=demo.images, size=frame)
        with Image.open(demo.images / outcome.record["image"]) as image:
            panels = _depth_panels(image, true, outcome, perception, frame=frame)
        paths.append(_save(demo, perception, f"scene_{scene_of(outcome)}_depth", panels, outcome))
    counted = [outcome for outcome in by_task.get("counting_chain", ()) if outcome.truth["boxes"]]
    for outcome in counted[: max(1, demo.preset.pictures // 3)]:
        with Image.open(demo.images / outcome.record["image"]) as image:
            written = read_written(outcome.result.text, outcome.result.ids, perception, kind="depth").boxes
            panels = box_panels(image, true=outcome.truth["boxes"], written=written, frame=frame)
        paths.append(_save(demo, perception, f"scene_{scene_of(outcome)}_boxes", panels, outcome))
    return paths


def draw_photograph(demo: DemoFolder, predictor: Predictor) -> Path:
    """The motorcycle: a real photograph with measured depth, unlike anything the model was trained on."""
    perception = predictor.perception
    assert perception is not None
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
    kind = perception.kinds["depth"]
    folder = demo.work / "photograph"
    folder.mkdir(exist_ok=True)
    Image.fromarray(photograph.image).save(folder / "motorcycle.png")
    record = RecordWriter(prompts=Prompts.plain(), families=perception.vocabulary.families).write(
        "depth_chain_from_coordinates",
        DepthFacts(points, kind.encode(true)),
        name="photograph",
        image="motorcycle.png",
        rng=rng,
    )
    outcome = ask(predictor, [record], images=folder, description="Asking about the photograph")[0]
    panels = _depth_panels(Image.fromarray(photograph.image), true, outcome, perception, frame=frame)
    return _save(demo, perception, "photograph_motorcycle", panels, outcome)


def _depth_panels(
    image: Image.Image, true: np.ndarray, asked: Asked, perception: PerceptionTokens, *, frame: int
) -> list[Panel]:
    kind, points = perception.kinds["depth"], asked.truth.get("points", {})
    copy = kind.decode(kind.encode(true))
    return depth_panels(image, points=points, frame=frame, true=true, copy=copy, written=asked.result.depth)


def _save(demo: DemoFolder, perception: PerceptionTokens, name: str, panels: Sequence[Any], outcome: Asked) -> Path:
    path = demo.out / f"{name}.png"
    families = perception.vocabulary.families
    save_panels(
        path,
        panels,
        question=readable(question_of(outcome.record), families),
        answer=readable(outcome.result.text, families),
        truth=outcome.truth["answer"],
    )
    return path


def _text(
    demo: DemoFolder,
    depth: Mapping[str, float],
    rows: Sequence[Row],
    behind: Mapping[str, tuple[float, int]],
    pictures: Sequence[Path],
    history: Sequence[Any],
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
        "| question | right | blind | chance | questions | |",
        "|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
        "",
        "*Blind* is the highest accuracy without the image: always the same answer, the lowest point, or the closest"
        " point by the other scenes' mean map. Chance is one over the number of points. A row is marked if it is"
        " more than two standard errors above the higher of both, or below the lower. *Computed from its map*: the"
        " point with the highest value in the decoded map, whatever the model answered.",
        "",
        *_lessons(rows),
        "",
        "## Does it use its maps?",
        "",
        "`depth_chain_from_coordinates` again: chains are cut off after their map, the map is replaced, and the model"
        " continues.",
        "",
        *_behind(behind),
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
        f"{trained.get('train_samples_per_second', float('nan')):.0f} samples per second over"
        f" {trained.get('train_runtime', float('nan')):.0f} s of training.",
        "",
        "| stage | seconds |",
        "|---|---|",
        *(f"| {title} | {seconds:.0f} |" for title, seconds in demo.seconds.items()),
        "",
        "## Reproduce",
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
    "vqvae": "the true map, encoded and decoded by the VQ-VAE",
    "model": "written by the trained model",
    "mean map": "baseline: the mean map of the training scenes",
    "untrained model": "baseline: written by the model before training",
}


def _verdict(row: Row) -> str:
    """Above blind answers and chance, or below both, by more than two standard errors of a share; empty in between."""
    baselines = [row.blind] if row.chance is None else [row.blind, row.chance]
    low, high = ((share, 2 * (share * (1 - share) / row.count) ** 0.5) for share in (min(baselines), max(baselines)))
    if row.value > sum(high):
        return "above blind"
    return "below chance" if row.value < low[0] - low[1] else ""


def _line(row: Row) -> str:
    chance = "–" if row.chance is None else f"{100 * row.chance:.0f} %"
    return (
        f"| {row.name} | {100 * row.value:.0f} % | {100 * row.blind:.0f} % | {chance} | {row.count} | {_verdict(row)} |"
    )


def _lessons(rows: Sequence[Row]) -> list[str]:
    """What was not learned, said plainly."""
    missed = [row.name for row in rows if _verdict(row) != "above blind"]
    if not missed:
        return ["Every row is above the blind baseline."]
    return ["Not above what can be answered without the image:", "", *(f"- {name}" for name in missed)]


def _behind(behind: Mapping[str, tuple[float, int]]) -> list[str]:
    if not behind:
        return ["None of its chains has a complete map."]
    lines = [f"| {name} | {100 * right:.0f} % | {count} |" for name, (right, count) in behind.items()]
    return ["| map | right | questions |", "|---|---|---|", *lines]


def _portable(command: str, demo: DemoFolder) -> str:
    """The command with paths from the root of the repository."""
    from llava_aurora.demo.launch import REPOSITORY

    for folder in (demo.work.absolute(), demo.work):
        command = command.replace(str(folder), f"{demo.out.name}/work")
    return command.replace(f"{REPOSITORY}/", "").replace(".venv/bin/", "")
