"""The report of an evaluation: every number, every picture, one file, and nothing that an answer could do to it."""

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.evaluation import paper
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS, Wording
from llava_aurora.evaluation.evaluation_report import write_report
from llava_aurora.evaluation.replacement import replacement_test
from llava_aurora.evaluation.run import Plan, evaluate, read_results
from llava_aurora.evaluation.tables import paper_tables
from llava_aurora.files import write_json


@pytest.fixture(scope="module")
def evaluated(stub, scenes, plain_depth, tmp_path_factory):
    """A model that writes true maps and one of two letters, on two benchmarks, with the test."""
    out = tmp_path_factory.mktemp("report")
    wording = Wording.of(stub(lambda *_: "").perception, image_size=56)
    found = BENCHMARKS["scenes_coordinates"].read(scenes, wording).questions
    maps = {question.prompt("chain"): plain_depth.text(question.true_depth()) for question in found}

    def respond(prompt, start):
        if start:
            return " The answer is (A)."
        if prompt in maps:
            return f"<script>alert(1)</script> | The depth map is {maps[prompt]}. The answer is (A)."
        return "1. (<PIXEL_40>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)\nThe answer is 1." if "many" in prompt else "B"

    predictor = stub(respond)
    about = {"data": scenes, "limit": 12, "pictures": 1, "batch_size": 12}
    evaluate(predictor, Plan(tasks=["scenes_coordinates", "scenes_counting"], **about), out=out)
    replacement_test(predictor, Plan(tasks=["scenes_coordinates"], **about), out=out)
    return out


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources, self.tags, self.cells = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.cells.append(data.strip())


def test_the_page_is_one_file_that_runs_nothing(evaluated):
    page = Page(write_report(evaluated).read_text())
    assert len(page.sources) >= 6
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in page.sources)
    assert not page.tags & {"script", "link", "iframe", "object"}


def test_both_reports_hold_every_number(evaluated):
    html = write_report(evaluated).read_text()
    cells = Page(html).cells
    markdown = (evaluated / "report.md").read_text()
    results = read_results(evaluated)
    for entry in results["benchmarks"].values():
        assert f"### {entry['title']}" in markdown
        for asked in entry["reasonings"].values():
            for summary in (asked["summary"], *asked["categories"].values()):
                value = summary["accuracy"]
                shown = f"{100 * value['value']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
                assert shown in cells
                assert shown in markdown
    for heading in (
        "Answers",
        "What is measured of its chains",
        "Does the model use its map?",
        "Right cases",
        "How to reproduce",
    ):
        assert f"\n## {heading}\n" in markdown
    found = results["replacement"]["scenes_coordinates"]
    assert found["verdict"]["rule"] in markdown
    for condition in found["conditions"].values():
        assert condition["put_in"] in cells
    assert results["asked"]["fingerprint"] in cells
    assert any(results["benchmarks"]["scenes_counting"]["digest"] in cell for cell in cells)


def test_tables_of_the_markdown_are_whole(evaluated):
    write_report(evaluated)
    lines = (evaluated / "report.md").read_text().splitlines()
    rules = [place for place, line in enumerate(lines) if re.fullmatch(r"\|(---\|)+", line)]
    assert len(rules) >= 6
    for place in rules:
        columns = lines[place].count("---")
        assert len(re.split(r"(?<!\\)\|", lines[place - 1])) == columns + 2
        assert lines[place - 2] == ""
        assert lines[place + 1].startswith("|")
        assert len(re.split(r"(?<!\\)\|", lines[place + 1])) == columns + 2


def test_pictures_are_there(evaluated):
    write_report(evaluated)
    named = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (evaluated / "report.md").read_text())
    assert len(named) >= 6
    for name in named:
        with Image.open(evaluated / name) as picture:
            assert min(picture.size) > 250
    (evaluated / named[-1]).rename(evaluated / "moved.png")
    with pytest.raises(AuroraError, match=r"a picture of report\.html is missing"):
        write_report(evaluated)
    (evaluated / "moved.png").rename(evaluated / named[-1])


def test_the_papers_figures_stand_beside_ours_and_are_marked(evaluated, tmp_path):
    results = read_results(evaluated)
    groups = results["benchmarks"]["scenes_coordinates"]["reasonings"]
    point_groups = {name: asked["categories"] for name, asked in groups.items()}
    assert set(point_groups["chain"]) == set(paper.POINTS)

    def only(names):
        return {
            reasoning: {**groups[reasoning], "categories": {name: categories[name] for name in names}}
            for reasoning, categories in point_groups.items()
        }

    entry = results["benchmarks"]["scenes_coordinates"]
    published = {
        "blink_depth": {**entry, "title": "BLINK", "reasonings": only(paper.POINTS[:1])},
        "hardblink": {**entry, "title": "HardBLINK", "reasonings": only(paper.POINTS[1:])},
        "cv_bench_counting": {**results["benchmarks"]["scenes_counting"], "title": "CV-Bench"},
    }
    for asked in published["cv_bench_counting"]["reasonings"].values():
        asked["summary"]["blind"] = 0.375
    depth, counting = paper_tables({"benchmarks": published})
    assert [row[1] for row in depth.rows] == [
        *paper.RELATIVE_DEPTH,
        "",
        "",
        "chain",
        "chain, computed from its map",
        "direct",
    ]
    assert depth.rows[5] == ("chance", "", "50.0", "33.3", "25.0", "20.0", "32.1")
    assert depth.published == frozenset(range(5))
    assert depth.rows[2] == ("AURORA's paper", "AURORA", "64.5", "66.9", "60.5", "54.8", "61.6")
    ours = [100 * point_groups["chain"][name]["accuracy"]["value"] for name in paper.POINTS]
    assert depth.rows[6][0] == "blind baseline"
    assert depth.rows[7][2:] == (*(f"{value:.1f}" for value in ours), f"{sum(ours) / 4:.1f}")
    assert counting.rows[-1][0] == "this model"
    assert ("blind baseline", "", "37.5", "–", "–") in counting.rows
    assert counting.rows[-1][3:] == ("–", "–")
    write_json(tmp_path / "results.json", {**results, "benchmarks": published, "replacement": {}})
    for each in published.values():
        for asked in each["reasonings"].values():
            asked["gallery"] = []
    write_json(tmp_path / "results.json", {**results, "benchmarks": published, "replacement": {}})
    page = write_report(tmp_path).read_text()
    assert page.count('class="published"') == 9
    assert "| *AURORA's paper* | *AURORA* | *64.5* |" in (tmp_path / "report.md").read_text()


def test_the_papers_means_are_those_of_its_columns():
    for name, values in paper.RELATIVE_DEPTH.items():
        if None not in values:
            assert sum(values[:4]) / 4 == pytest.approx(values[4], abs=0.25), name


def test_without_results_there_is_no_report(tmp_path):
    with pytest.raises(AuroraError, match="no results here"):
        write_report(tmp_path)
