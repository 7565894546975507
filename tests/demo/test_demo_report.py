"""The demo's table and verdicts, from answers as an evaluation keeps them."""

from llava_aurora.demo.demo_report import Row, answer_rows, verdicts
from llava_aurora.evaluation.measure import Judged


def judged(number, category, *, stated, read_out, truth="A"):
    return vars(
        Judged(
            id=f"{number}/{category}",
            category=category,
            family="depth",
            kind="letter",
            chance=1 / int(category[0]),
            truth=truth,
            stated=stated,
            finished=True,
            has_span=True,
            read_out=read_out,
            measures={},
        )
    )


def entry(stated, read_out):
    answers = [
        judged(number, f"{points} points", stated=stated(number), read_out=read_out(number))
        for points in (2, 3, 4, 5)
        for number in range(10)
    ]
    categories = {
        f"{points} points": {"blind": 0.1 * points, "chance": 1 / points, "questions": 10} for points in (2, 3, 4, 5)
    }
    return {"answers": answers, "categories": categories}


def test_several_points_count_alike_and_two_stand_apart():
    right, half = (
        entry(lambda number: "A", lambda number: "A"),
        entry(lambda number: "AB"[number % 2], lambda number: "B"),
    )
    counted = {"summary": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}, "blind": 0.2, "questions": 30}}
    benchmarks = {
        "scenes_coordinates": {"reasonings": {"chain": half, "direct": right}},
        "scenes_depth": {"reasonings": {"chain": right, "direct": half}},
        "scenes_counting": {"reasonings": {"chain": counted, "direct": counted}},
    }
    rows = answer_rows(benchmarks)
    assert [row.count for row in rows] == [10, 30, 30, 10, 30, 30, 30]
    assert [row.chain["value"] for row in rows] == [0.5, 0.5, 0.0, 1.0, 1.0, 1.0, 0.5]
    assert rows[1].direct["value"] == 1.0
    assert abs(rows[1].blind - 0.4) < 1e-9
    assert abs(rows[1].chance - (1 / 3 + 1 / 4 + 1 / 5) / 3) < 1e-9


def test_a_goal_is_reached_or_missed_by_its_margin_above_blind():
    def said(value, low):
        row = Row("how many there are", {"value": value, "low": low, "high": 1.0}, None, 0.2, None, 300)
        return verdicts([row], f1=0.6)

    assert said(0.36, 0.3)[0] == "how many there are: +16 points above blind (significant); the goal of 15 is reached."
    assert "+10 points above blind (not significant); the goal of 15 is missed" in said(0.3, 0.1)[0]
    assert said(0.36, 0.3)[1] == "Boxes: F1 0.60 at an overlap of one half; the goal of 0.5 is reached."
