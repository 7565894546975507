"""The report of an evaluation: report.md, and report.html with everything in one file, both made of results.json."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.gallery import PICTURES
from llava_aurora.evaluation.plots import plot_accuracy, plot_replacements
from llava_aurora.evaluation.run import read_results
from llava_aurora.evaluation.tables import (
    Table,
    answer_table,
    box_table,
    interval,
    map_table,
    paper_tables,
    published_replacement_table,
    replacement_table,
    value_table,
)
from llava_aurora.files import write_text

MARKDOWN, HTML = "report.md", "report.html"
HOW = (
    "Right is an answer that states exactly the truth; one that states none is unparsable and wrong, and left out of"
    " the accuracy of the parsed. Options of"
    " multiple-choice questions are left out. Intervals are 95 % percentile bootstrap over questions; a mean over"
    " several numbers of points counts each alike. Guessing takes any point, or always the most frequent number."
    " An interval without width says no more than that all answers came out alike."
)


@dataclass(frozen=True)
class Section:
    """A part of the report: what is said, tables, and pictures relative to the folder with what they show."""

    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)


def write_report(out: Path) -> Path:
    """Writes both reports and their plots from results.json.

    Returns:
        The path of the HTML file.

    Raises:
        AuroraError: if there are no results, a picture is missing, or the folder cannot be written.
    """
    results = read_results(out)
    sections = report_sections(results)
    for task, entry in results["benchmarks"].items():
        plot_accuracy(out / PICTURES / f"{task}.png", entry)
    for task, found in results.get("replacement", {}).items():
        plot_replacements(out / PICTURES / f"{task}.replacement.png", found)
    title = f"Evaluation of {Path(results['asked']['model']).name}"
    write_text(out / MARKDOWN, markdown(title, sections))
    page = _environment().get_template("report.html.jinja")
    write_text(out / HTML, page.render(title=title, sections=sections, inline=lambda picture: _inline(out / picture)))
    return out / HTML


def markdown(title: str, sections: Sequence[Section]) -> str:
    """Sections as one text in Markdown."""
    template = _environment().get_template("report.md.jinja")
    return template.render(title=title, sections=sections, cell=_markdown_cell)


def report_sections(results: Mapping[str, Any]) -> list[Section]:
    """The report's parts, in their order."""
    benchmarks, sections = results["benchmarks"], []
    if tables := paper_tables(results):
        theirs = ["Rows in italics are the paper's figures, not ours."] if any(table.theirs for table in tables) else []
        sections.append(Section("In the paper's form", theirs, tables))
    answers = Section("Answers", [HOW])
    for task, entry in benchmarks.items():
        answers.tables.append(answer_table(entry))
        answers.pictures.append((f"{PICTURES}/{task}.png", entry["title"]))
        answers.text.extend(_about(entry))
    sections.append(answers)
    found = (map_table(benchmarks), value_table(benchmarks), box_table(benchmarks))
    if worth := [table for table in found if table is not None]:
        sections.append(Section("What it wrote on the way", _MEASURES, worth))
    sections += _replacement(results.get("replacement", {}))
    for right, title in ((True, "Right cases"), (False, "Wrong cases")):
        pictures = [
            (each["picture"], f"{entry['title']}, {reasoning}: {each['id']}")
            for entry in benchmarks.values()
            for reasoning, asked in entry["reasonings"].items()
            for each in asked.get("gallery", [])
            if each["right"] == right
        ]
        if pictures:
            sections.append(Section(title, [], [], pictures))
    return [*sections, _again(results)]


_MEASURES = [
    "Read out: the closest of the marked points by the map that was written; no map counts as wrong. Depth measures are"
    " over maps that were written and pixels whose depth is known: MSE of maps in [0, 1] as they stand; aligned MSE,"
    " AbsRel and δ after the best scale and shift; Spearman is 0 for a map that is the same everywhere.",
]


def _about(entry: Mapping[str, Any]) -> list[str]:
    lines = [f"{entry['title']}: {number} left out: {reason}." for reason, number in entry["left_out"].items()]
    for reasoning, asked in entry["reasonings"].items():
        if samples := asked["summary"].get("unparsable_samples"):
            shown = "; ".join(f"`{text!r}`" for text in samples)
            lines.append(f"{entry['title']}, {reasoning}, unparsable answers end with: {shown}.")
    if paired := entry.get("chain_less_direct"):
        lines.append(
            f"{entry['title']}, chain less direct: {interval(paired['difference'])} points; only the chain is right in"
            f" {paired['only_second']} questions, only the direct answer in {paired['only_first']}; McNemar's exact"
            f" p = {paired['p_value']:.2g}."
        )
    return lines


def _replacement(found: Mapping[str, Any]) -> list[Section]:
    if not found:
        return []
    section = Section("Does it use its map?")
    for task, each in found.items():
        said = each["verdict"]
        told = said["finding"] != "cannot be told"
        finding = f"it {said['finding']}" if told else "whether it uses its map cannot be told"
        section.text.append(f"{each['title']}: {finding}.")
        section.text.append(
            f"{said['reason']} Maps could be replaced in {each['chains']} of {each['questions']} chains; going on from"
            f" its own map, it gives the chain's own answer in {100 * each['control_repeats_chain']:.1f} %."
        )
        section.tables.append(replacement_table(each))
        section.pictures.append((f"{PICTURES}/{task}.replacement.png", each["title"]))
    section.text.append(next(iter(found.values()))["verdict"]["rule"])
    section.tables.append(published_replacement_table())
    return [section]


def _again(results: Mapping[str, Any]) -> Section:
    runs, asked = results["runs"], results["asked"]
    last = runs[-1]
    facts = [("command", run["command"]) for run in runs]
    facts += [(name, value) for name, value in asked.items() if value is not None]
    for task, entry in results["benchmarks"].items():
        facts.append((task, f"{entry['questions']} questions from {entry['data']}, hash {entry['digest']}"))
    facts += [(name, last[name]) for name in ("seed", "commit", "llava_aurora", "python", "device")]
    facts += list(last["versions"].items())
    return Section("Again", [], [Table("", ("", ""), [(name, str(value)) for name, value in facts])])


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _markdown_cell(text: str, *, theirs: bool = False) -> str:
    text = text.replace("|", "\\|").replace("\n", " ")
    return f"*{text}*" if theirs and text else text


def _inline(path: Path) -> str:
    try:
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise AuroraError(f"{path}: a picture of the report is missing; run the evaluation again") from error
