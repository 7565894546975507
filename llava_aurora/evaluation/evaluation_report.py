"""The report of an evaluation: report.md, and report.html with everything in one file, both made of results.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava_aurora.evaluation.gallery import PICTURES
from llava_aurora.evaluation.run import DAMAGED, RESULTS, read_results
from llava_aurora.evaluation.tables import (
    answer_table,
    cost_table,
    family_tables,
    paper_tables,
    published_replacement_table,
    replacement_table,
)
from llava_aurora.files import undamaged
from llava_aurora.report.document import Section, Table, interval, write_html, write_markdown
from llava_aurora.report.plots import bars, new_axes, save_axes

FEW = 20  # questions
MARKDOWN, HTML = "report.md", "report.html"
COLORS = {"chain": "#4477aa", "direct": "#ee9944", "pixels": "#66aa55"}
HOW = (
    "An answer is right if it states exactly the truth. One without a statement is unparsable: it counts as wrong and"
    " is left out of the accuracy of parsed answers. Options of multiple-choice questions are not shown to the model."
    " Intervals are 95 % percentile bootstrap over questions; a mean over several numbers of points gives each the same"
    " weight. Chance is one over the number of options, or the share of the most frequent number; the blind baseline is"
    " the best answer without the image. An interval without width only means that all answers were right, or wrong."
)
COSTS = (
    "What an answer takes is its share of the batch it was asked in, vision tower included; tokens read are those that"
    " went through the language model, those of the image too."
)
SPANS = (
    "Computed from a span: the answer that the span implies, such as the closest of the marked points by a depth map,"
    " whatever the text says; an answer without a span counts as wrong."
)


def write_report(out: Path) -> Path:
    """Writes both reports and their plots from results.json.

    Returns: The path of the HTML file.
    Raises AuroraError if there are no results, a picture is missing, or the folder cannot be written.
    """
    results = read_results(out)
    with undamaged(out / RESULTS, DAMAGED):
        sections = report_sections(results)
        for task, entry in results["benchmarks"].items():
            plot_accuracy(out / PICTURES / f"{task}.png", entry)
        for task, found in results.get("replacement", {}).items():
            plot_replacements(out / PICTURES / f"{task}.replacement.png", found)
    title = f"Evaluation of {Path(results['asked']['model']).name}"
    write_markdown(out / MARKDOWN, title, sections)
    write_html(out / HTML, title, sections)
    return out / HTML


def report_sections(results: Mapping[str, Any]) -> list[Section]:
    """The report's parts, in their order."""
    benchmarks, sections = results["benchmarks"], []
    if tables := paper_tables(results):
        quoted = any(table.published for table in tables)
        text = ["Rows in italics are published figures, not measured here."] if quoted else []
        sections.append(Section("In the paper's form", text, tables))
    answers = Section("Answers", [HOW])
    for task, entry in benchmarks.items():
        answers.tables.append(answer_table(entry))
        answers.pictures.append((f"{PICTURES}/{task}.png", entry["title"]))
        answers.text.extend(_about(entry))
    if costs := cost_table(benchmarks):
        answers.tables.append(costs)
        answers.text.append(COSTS)
    sections.append(answers)
    tables, notes = family_tables(benchmarks)
    if tables:
        sections.append(Section("What is measured of its chains", [SPANS, *notes], tables))
    sections += _replacement(results)
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


def _about(entry: Mapping[str, Any]) -> list[str]:
    lines = [f"{entry['title']}: {number} left out: {reason}." for reason, number in entry["left_out"].items()]
    for reasoning, asked in entry["reasonings"].items():
        if samples := asked["summary"].get("unparsable_samples"):
            shown = "; ".join(f"`{text!r}`" for text in samples)
            lines.append(f"{entry['title']}, {reasoning}, unparsable answers end with: {shown}.")
    if entry["questions"] < FEW:
        lines.append(f"{entry['title']}: {entry['questions']} questions only, too few for reliable intervals.")
    paired = entry.get("chain_less_direct")
    if silent := [name for name, asked in entry["reasonings"].items() if asked["summary"]["unparsable"] == 1]:
        lines.append(f"{entry['title']}: no answer of {' and '.join(silent)} could be parsed; no comparison.")
    elif paired:
        lines.append(
            f"{entry['title']}, chain minus direct: {interval(paired['difference'])} points; only the chain is right in"
            f" {paired['only_second']} questions, only the direct answer in {paired['only_first']}; McNemar's exact"
            f" p = {paired['p_value']:.2g}."
        )
    return lines


def _replacement(results: Mapping[str, Any]) -> list[Section]:
    found = results.get("replacement")
    if not found:
        return []
    section = Section("Does the model use its map?")
    for task, each in found.items():
        said = each["verdict"]
        known = said["finding"] != "cannot be told"
        finding = f"it {said['finding']}" if known else "whether it uses its map cannot be told"
        section.text.append(f"{each['title']}: {finding}.")
        section.text.append(
            f"{said['reason']} Maps could be replaced in {each['chains']} of {each['questions']} chains; continuing"
            f" from its own map, it repeats the chain's answer in {100 * each['control_repeats_chain']:.1f} %."
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
    return Section("How to reproduce", [], [Table("", ("", ""), [(name, str(value)) for name, value in facts])])


# --- plots ------------------------------------------------------------------------------------------------------------


def plot_accuracy(path: Path, entry: Mapping[str, Any]) -> None:
    """A PNG with a bar for each category and reasoning, and chance as a line."""
    ways = list(entry["reasonings"])
    categories = list(entry["reasonings"][ways[0]]["categories"])
    axes, width = new_axes(width=max(4.0, 1.6 + 1.5 * len(categories))), 0.36 if len(ways) < 3 else 0.28
    for place, reasoning in enumerate(ways):
        groups = entry["reasonings"][reasoning]["categories"]
        offset = (place - (len(ways) - 1) / 2) * width
        shares = [groups[name]["accuracy"] for name in categories]
        bars(axes, shares, offset=offset, width=width - 0.02, color=COLORS[reasoning], label=reasoning)
    for place, name in enumerate(categories):
        summary = entry["reasonings"][ways[0]]["categories"][name]
        for baseline, color in (("chance", "black"), ("blind", "#aa3377")):
            if summary.get(baseline) is not None:
                label = baseline if place == 0 else ""
                axes.hlines(
                    100 * summary[baseline], place - 0.45, place + 0.45, colors=color, linestyles="--", label=label
                )
    axes.set_xticks(range(len(categories)), categories)
    save_axes(axes, path, title=entry["title"], ylim=(0, 100), ylabel="right, %")


def plot_replacements(path: Path, found: Mapping[str, Any]) -> None:
    """A PNG with a bar for each replacement of the map, and the control's accuracy as a line."""
    conditions = found["conditions"]
    axes = new_axes(width=max(4.0, 1.6 + 1.2 * len(conditions)))
    bars(axes, [each["accuracy"] for each in conditions.values()], color=COLORS["chain"])
    control = next(iter(conditions.values()))["accuracy"]["value"]
    axes.axhline(100 * control, color="#555555", linestyle=":", label="control")
    axes.set_xticks(range(len(conditions)), list(conditions))
    title = f"{found['title']}: {found['verdict']['finding']}"
    save_axes(axes, path, title=title, ylim=(0, 100), ylabel="right, %")
