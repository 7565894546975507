"""The report of a study: what was expected, tables in the paper's form, every run; as Markdown and JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from llava_aurora.evaluation.report import Section, markdown
from llava_aurora.evaluation.tables import Table
from llava_aurora.files import write_json, write_text
from llava_aurora.study.expectations import RULE, Results, check
from llava_aurora.study.sizes import Size
from llava_aurora.study.tables import Limits, paper_tables, replacement_tables, step_tables

_HOW = (
    "Rows in italics are the paper's figures on its own benchmarks; all others are of held-out ray-cast scenes."
    " A mean over several numbers of points counts each alike. Means are over the seeds that were run, 95 % intervals"
    " over questions alone: where seeds lie farther apart than an interval is wide, believe the seeds."
)
_REPLACED = (
    "Points lost, over 3 to 5 points, when the model goes on from another map than the one it wrote. The verdict is the"
    " token replacement test's, over all its questions."
)

_STEPS = (
    "Chains that state how close each point is, over 3 to 5 points: whether the closest point by the picture of the map"
    " that was written is right, and by the values that such chains read in it, from its codes; whether all values are"
    " stated so; whether the point of the highest stated value is right; whether the answer is that point, and right."
)


def write_report(out: Path, *, size: Size, results: Results, limits: Limits) -> Path:
    """Writes report.md and report.json.

    Args:
        out: folder of the report.
        size: of the study.
        results: of the runs that are done, by contestant.
        limits: what reading points out of maps gives without a model, by what is read and number of points.

    Returns:
        The path of the Markdown file.
    """
    checked = [asdict(each) for each in check(results, depth=size.depth_benchmarks[0])]
    runs = [result for found in results.values() for result in found]
    content = {"size": asdict(size), "expectations": checked, "limits": limits, "runs": runs}
    write_json(out / "report.json", content, indent=1)
    title = f"What perception tokens are worth: study of size {size.name}"
    write_text(out / "report.md", markdown(title, report_sections(size, results, limits)))
    return out / "report.md"


def report_sections(size: Size, results: Results, limits: Limits) -> list[Section]:
    """The report's parts, in their order."""
    rows = [(each.text, each.finding, each.reason) for each in check(results, depth=size.depth_benchmarks[0])]
    return [
        Section("What is compared", _about(size)),
        Section("What was expected", [RULE], [Table("", ("expected", "found", "numbers"), rows)]),
        Section("In the paper's form", [_HOW], paper_tables(results, limits, size=size)),
        Section("Does it use its map?", [_REPLACED], replacement_tables(results, size=size)),
        Section("From the map to the answer", [_STEPS], step_tables(results, size=size)),
        _every_run(results),
    ]


def _about(size: Size) -> list[str]:
    model = size.model
    return [
        f"A LLaVA that starts from random weights: {model.layers} layers of width {model.width}, a vision tower of"
        f" {model.vision_layers} layers of width {model.vision_width}, a frame of {model.frame} pixels,"
        f" {(model.frame // model.patch) ** 2} image tokens, maps of {size.vqvae.grid} × {size.vqvae.grid} codes out of"
        f" {size.vqvae.codebook_size}. Each contestant sees {size.samples} samples in {size.epochs} epochs, from the"
        " same weights of its seed.",
        f"Training scenes: {size.maps} with maps, {size.questions} that are asked about and half as many to count in,"
        f" each asked about {size.draws} times with other points and things. Held out: {size.held_out} scenes. The"
        f" points of a question lie at about one height. {_points(size)}",
    ]


def _points(size: Size) -> str:
    if not size.marked:
        return "Every depth question gives their coordinates; none marks them in the image."
    return (
        "Half of the depth questions mark them in the image, half give coordinates, and in every epoch of every"
        f" contestant {size.locating:.0%} of the depth samples locate marked points."
    )


def _every_run(results: Results) -> Section:
    runs = [result for found in results.values() for result in found]
    if not runs:
        return Section("Every run", ["No run is done yet."])
    rows = [
        (
            result["contestant"]["name"],
            str(result["seed"]),
            str(result["samples"]),
            f"{result['seconds']['training']:.0f}{' (resumed)' if result['resumed'] else ''}",
            f"{result['seconds']['evaluation']:.0f}",
            result["device"],
            str(result.get("trained_at") or result["commit"]),
        )
        for result in runs
    ]
    header = ("contestant", "seed", "samples", "training, s", "evaluation, s", "device", "commit")
    last = runs[-1]
    versions: Mapping[str, object] = {
        "llava_aurora": last["llava_aurora"],
        "python": last["python"],
        **last["versions"],
    }
    commands = [f"`{command}`" for command in dict.fromkeys(result["command"] for result in runs)]
    commands.append(f"Training of {last['contestant']['name']}, seed {last['seed']}: `{last['training_command']}`")
    tables = [Table("", header, rows), Table("", ("", "version"), [(name, str(v)) for name, v in versions.items()])]
    return Section("Every run", commands, tables)
