"""Two models on the same questions."""

import json

import pytest

from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.comparison import compare_evaluations
from llava_aurora.evaluation.evaluation_report import write_report
from llava_aurora.evaluation.run import Plan, evaluate, judged_answers, read_results, right


@pytest.fixture
def folders(stub, scenes, tmp_path):
    """One that always says A, one that always says B; both are asked the same, the second more besides."""
    for letter, tasks in (("A", ["scenes_depth"]), ("B", ["scenes_depth", "scenes_counting"])):
        plan = Plan(tasks=tasks, data=scenes, reasonings=["direct"], pictures=0)
        evaluate(stub(lambda prompt, start, letter=letter: f"({letter})"), plan, out=tmp_path / letter)
    return tmp_path / "A", tmp_path / "B"


def test_models_are_compared_where_both_were_asked(folders):
    (found,) = compare_evaluations(*folders)
    assert (found.title, found.reasoning) == ("Ray-cast scenes, marked points", "direct")
    a, b = (right(judged_answers(read_results(folder)["benchmarks"]["scenes_depth"], "direct")) for folder in folders)
    assert found.paired.only_first == sum(a)  # no answer is both A and B
    assert found.paired.only_second == sum(b)
    assert found.paired.difference.value == pytest.approx((sum(b) - sum(a)) / len(a))
    assert found.first.value == pytest.approx(sum(a) / len(a))


def test_a_model_that_states_no_answer_is_not_tested_against(folders, stub, scenes, tmp_path):
    (found,) = compare_evaluations(*folders)
    assert found.answered
    plan = Plan(tasks=["scenes_depth"], data=scenes, reasonings=["direct"], pictures=0)
    evaluate(stub(lambda *_: "I cannot say"), plan, out=tmp_path / "silent")
    (found,) = compare_evaluations(folders[0], tmp_path / "silent")
    assert not found.answered


def test_other_questions_are_not_compared(folders, stub, scenes, tmp_path):
    fewer = Plan(tasks=["scenes_depth"], data=scenes, reasonings=["direct"], limit=5, pictures=0)
    evaluate(stub(lambda *_: "(A)"), fewer, out=tmp_path / "fewer")
    with pytest.raises(AuroraError, match="were evaluated on different questions of scenes_depth"):
        compare_evaluations(folders[0], tmp_path / "fewer")
    chain = Plan(tasks=["scenes_depth"], data=scenes, reasonings=["chain"], pictures=0)
    evaluate(stub(lambda *_: "(A)"), chain, out=tmp_path / "chain")
    with pytest.raises(AuroraError, match="no benchmark with the same reasoning"):
        compare_evaluations(folders[0], tmp_path / "chain")


@pytest.mark.parametrize(
    "damage",
    [
        lambda results: [],
        lambda results: {},
        lambda results: results | {"runs": None},
        lambda results: results | {"benchmarks": {"scenes_depth": None}},
        lambda results: results["benchmarks"]["scenes_depth"]["reasonings"]["direct"].pop("answers") and results,
        lambda results: results["benchmarks"]["scenes_depth"]["reasonings"]["direct"]["answers"].append("x") or results,
    ],
)
def test_damaged_results_are_one_line(folders, damage):
    file = folders[0] / "results.json"
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    for ending in (lambda: compare_evaluations(*folders), lambda: write_report(folders[0])):
        with pytest.raises(AuroraError, match=r"A/results.json: is damaged .*; delete it and run `llava-aurora eval`"):
            ending()
