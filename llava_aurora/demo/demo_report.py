"""What the demo's model has learned: report.md with one table, four cases, the replacement test, and its making."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from llava_aurora import installation
from llava_aurora.data.sources.scenes.photograph import load_photograph
from llava_aurora.data.sources.scenes.scene import relative_depth
from llava_aurora.demo.ask import COORDINATES, COUNTING, MARKED, REPLACED
from llava_aurora.demo.demo_folder import DemoFolder
from llava_aurora.demo.launch import REPOSITORY
from llava_aurora.evaluation.benchmarks.scene_questions import question_of
from llava_aurora.evaluation.measure import Judged, accuracy
from llava_aurora.evaluation.run import judged_answers, read_results
from llava_aurora.evaluation.statistics import bootstrap_mean
from llava_aurora.evaluation.tables import replacement_table
from llava_aurora.files import read_json
from llava_aurora.generation.predictor import Predictor
from llava_aurora.generation.result import folded, plain
from llava_aurora.report.document import Section, Table, interval, percent, write_markdown
from llava_aurora.report.plots import loss_curves, save_panels
from llava_aurora.tasks.depth import DepthFacts
from llava_aurora.tasks.forms import LETTERS
from llava_aurora.tasks.marks import depth_at, mark_points, sample_points
from llava_aurora.tasks.points import MarkedPoint
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tokens.depth import color_map
from llava_aurora.tokens.perception import PerceptionTokens

SEVERAL = ("3 points", "4 points", "5 points")
SIDE = 336  # of the photograph in its picture, in pixels
# What the demo is to show: points of percentage above the blind baseline, by row.
GOALS = {
    "closest of 3 to 5 points by coordinates": 15,
    "closest of 3 to 5 marked points": 15,
    "answer computed from its map": 20,
    "how many there are": 15,
}


def write_report(demo: DemoFolder) -> Path:
    """Writes report.md and its pictures into the output folder."""
    folder = demo.work / "evaluation"
    results = read_results(folder)
    benchmarks = results["benchmarks"]
    beside = folder / REPLACED
    replaced = results.get("replacement") or (read_results(beside)["replacement"] if beside.exists() else {})
    history = read_json(demo.work / "model" / "trainer_state.json", what="log of the training run")["log_history"]
    loss_curves(demo.out / "loss.png", history)
    rows = answer_rows(benchmarks)
    boxes = benchmarks[COUNTING]["reasonings"]["chain"]["summary"]["measures"]
    sections = [
        Section(
            "What it has learned",
            [*verdicts(rows, f1=boxes["f1"]["value"] if "f1" in boxes else 0.0), _HOW],
            [
                Table(
                    "",
                    ("question", "by chain, % [95 %]", "direct, %", "blind, %", "chance, %", "questions"),
                    [row.cells for row in rows],
                )
            ],
        ),
        _replacement(replaced.get(COORDINATES)),
        Section("Cases", [_CASES], [], [*cases(demo, benchmarks), photograph(demo)]),
        Section("How it was made", _made(demo, history), [_times(demo)], [("loss.png", "loss of the fine-tuning")]),
    ]
    path = demo.out / "report.md"
    write_markdown(path, "What the demo learned", sections)
    return path


def _replacement(found: Mapping[str, Any] | None) -> Section:
    if found is None:
        return Section("Does it use its map?", ["None of its chains has a complete map."])
    said = found["verdict"]
    known = said["finding"] != "cannot be told"
    finding = f"It {said['finding']}." if known else "Whether it does cannot be told."
    return Section("Does it use its map?", [f"{finding} {said['reason']}"], [replacement_table(found)])


_HOW = (
    "*Blind* is the best answer without the image: always the same, the lowest point, or a place in the order of the"
    " mean map of the other scenes, whichever gets most right of these very questions. *Direct* is the same model asked"
    " for the answer alone. A mean over 3 to 5 points counts each number of points alike."
)
_CASES = (
    "Right and wrong cases in the ratio in which they occur. Numbers at the points are relative depths from 0 to 99, 99"
    " closest, as true and as the written map has them; those at boxes are intersections over unions. The photograph is"
    " unlike anything the model was trained on."
)


@dataclass(frozen=True)
class Row:
    """One question of the table.

    Attributes:
        name: of the question.
        chain, direct: intervals as results.json has them; None where there is none.
        blind, chance: shares; None where there is none.
        count: questions.
    """

    name: str
    chain: Any
    direct: Any
    blind: float
    chance: float | None
    count: int

    @property
    def cells(self) -> tuple[str, ...]:
        shares = (percent(self.direct), percent(self.blind), percent(self.chance))
        return (self.name, interval(self.chain), *shares, str(self.count))


def answer_rows(benchmarks: Mapping[str, Any]) -> list[Row]:
    """The table's rows: each kind of question, and the maps behind them."""
    rows = []
    for task, points in ((COORDINATES, "points by coordinates"), (MARKED, "marked points")):
        ways = benchmarks[task]["reasonings"]
        for name, categories in ((f"closest of 2 {points}", ("2 points",)), (f"closest of 3 to 5 {points}", SEVERAL)):
            there = [each for each in categories if each in ways["chain"]["categories"]]
            chain, direct = (
                [each for each in judged_answers(benchmarks[task], way) if each.category in there]
                for way in ("chain", "direct")
            )
            groups = [ways["chain"]["categories"][each] for each in there]
            blind, chance = (float(np.mean([group[key] for group in groups])) for key in ("blind", "chance"))
            rows.append(Row(name, accuracy(chain).to_json(), accuracy(direct).to_json(), blind, chance, len(chain)))
            if categories == SEVERAL:
                rows.append(Row("answer computed from its map", _read_out(chain), None, blind, chance, len(chain)))
    ways = benchmarks[COUNTING]["reasonings"]
    summary = ways["chain"]["summary"]
    rows.append(
        Row(
            "how many there are",
            summary["accuracy"],
            ways["direct"]["summary"]["accuracy"],
            summary["blind"],
            None,
            summary["questions"],
        )
    )
    return rows


def _read_out(judged: Sequence[Judged]) -> dict[str, Any]:
    groups = [[each.read_out == each.truth for each in judged if each.category == name] for name in SEVERAL]
    return bootstrap_mean(*(group for group in groups if group)).to_json()


def verdicts(rows: Sequence[Row], *, f1: float) -> list[str]:
    """What was reached and what falls short, in a sentence each."""
    said = []
    for row in rows:
        if (goal := GOALS.get(row.name)) is not None:
            above = 100 * (row.chain["value"] - row.blind)
            sure = "" if row.chain["low"] > row.blind else "not "
            reached = "reached" if above >= goal else "missed"
            said.append(
                f"{row.name}: {above:+.0f} points above blind ({sure}significant); the goal of {goal} is {reached}."
            )
    said.append(
        f"Boxes: F1 {f1:.2f} at an overlap of one half; the goal of 0.5 is {'reached' if f1 >= 0.5 else 'missed'}."
    )
    return said


def cases(demo: DemoFolder, benchmarks: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Two pictures of depth chains and two of counting, right ones in the ratio in which they occur."""
    chosen = []
    for task in (COORDINATES, COUNTING):
        chains = benchmarks[task]["reasonings"]["chain"]
        right = round(2 * chains["summary"]["accuracy"]["value"])
        of_kind = {kind: [each for each in chains["gallery"] if each["right"] == kind] for kind in (True, False)}
        for each in of_kind[True][:right] + of_kind[False][: 2 - right]:
            picture = demo.work / "evaluation" / each["picture"]
            name = f"{task}_{'right' if each['right'] else 'wrong'}_{picture.stem.split('.')[-1]}.png"
            (demo.out / name).write_bytes(picture.read_bytes())
            chosen.append((name, f"{'right' if each['right'] else 'wrong'}: {each['id']}, true answer {each['truth']}"))
    return chosen


def photograph(demo: DemoFolder) -> tuple[str, str]:
    """The motorcycle: a real photograph with measured depth, unlike anything the model was trained on."""
    predictor = Predictor.from_pretrained(demo.work / "model")
    perception = predictor.perception
    assert isinstance(perception, PerceptionTokens), "the demo trains a model with perception tokens"
    frame, kind = demo.preset.scene.frame, perception.kinds["depth"]
    picture = load_photograph(frame=frame)
    true, rng = relative_depth(picture.depth), np.random.default_rng(demo.preset.seed)
    measured = np.where(picture.known, true, 0)  # points lie where depth was measured, not filled in
    positions = sample_points(relative_depth=measured, count=3, rng=rng)
    assert positions is not None, "the photograph has depths enough for three points"
    points = [
        MarkedPoint(letter, x, y, depth_at(true, (x, y))) for letter, (x, y) in zip(LETTERS, positions, strict=False)
    ]
    writer = RecordWriter(prompts=Prompts.plain(), families=perception.vocabulary.families)
    facts = DepthFacts(points, kind.encode(true))
    record = writer.write("depth_chain_from_coordinates", facts, name="photograph", image="motorcycle.png", rng=rng)
    image = Image.fromarray(picture.image)
    result = predictor.write([image], [question_of(record)])[0]
    copy = kind.decode(kind.encode(true))
    shown = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    marked = mark_points(shown, record["aurora"]["points"], frame=frame)
    maps = {"true depth": true, "the VQ-VAE's copy": copy, "written by the model": result.depth}
    save_panels(
        demo.out / "photograph_motorcycle.png",
        [("image", marked), *((title, color_map(depth)) for title, depth in maps.items() if depth is not None)],
        question=plain(question_of(record), perception),
        answer=plain(folded(result.text, perception), perception),
        truth=record["aurora"]["answer"],
    )
    return "photograph_motorcycle.png", "a photograph, of which nothing was trained"


def _made(demo: DemoFolder, history: Sequence[Mapping[str, Any]]) -> list[str]:
    preset = demo.preset
    command = " ".join(map(shlex.quote, read_json(demo.work / "command.json", what="command")))
    for path in (demo.work.absolute(), demo.work):
        command = command.replace(str(path), f"{demo.out.name}/work")
    command = command.replace(f"{REPOSITORY}/", "").replace(".venv/bin/", "")
    trained: Mapping[str, float] = next((entry for entry in history if "train_runtime" in entry), {})
    versions = ", ".join(f"{version.package} {version.found}" for version in installation.versions())
    return [
        f"The tiny LLaVA of the package, fine-tuned on {preset.scenes} ray-cast scenes, asked about {preset.held_out}"
        f" others: {trained.get('train_samples_per_second', 0):.0f} samples per second over"
        f" {trained.get('train_runtime', 0):.0f} s. The model: `{demo.out.name}/work/model`.",
        f"```\nllava-aurora demo --preset {demo.name} --out {demo.out.name}\n```",
        "The fine-tuning alone (paths from the root of the repository):",
        f"```\n{command}\n```",
        f"Python {platform.python_version()}, {versions}, {torch.get_num_threads()} threads, {preset.ranks} ranks.",
    ]


def _times(demo: DemoFolder) -> Table:
    return Table("", ("stage", "seconds"), [(title, f"{seconds:.0f}") for title, seconds in demo.seconds.items()])
