"""Evaluations from question to numbers, stopped and resumed, by one process and by several."""

import json
import re
from dataclasses import replace

import pytest

from llava_aurora.data.sources.depth.depth_maps import Share
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.answers import AnswerSettings, AnswerStore
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS, Wording
from llava_aurora.evaluation.evaluation_report import write_report
from llava_aurora.evaluation.run import Plan, evaluate, judged_answers, read_results


@pytest.fixture
def questions(scenes, stub):
    """Of the coordinates' benchmark, by what is asked directly."""
    predictor = stub(lambda prompt, start: "")
    found = BENCHMARKS["scenes_coordinates"].read(scenes, Wording.of(predictor.perception, image_size=56)).questions
    return {question.text: question for question in found}


@pytest.fixture
def seeing(stub, questions, plain_depth):
    """In a chain it writes the true map and answers from it; directly it always says A."""

    def respond(prompt, start):
        question = next((q for text, q in questions.items() if prompt.startswith(text)), None)
        if question is None or prompt == question.text:
            return "(A)"
        map = plain_depth.text(question.true_depth())
        return f"The depth map is {map}. The answer is ({question.answer})."

    return stub(respond)


def plan(scenes, **changes):
    return Plan(**{"tasks": ["scenes_coordinates"], "data": scenes, "batch_size": 8, "pictures": 0, **changes})


def test_numbers_are_those_of_what_the_model_does(seeing, questions, scenes, tmp_path):
    evaluate(seeing, plan(scenes), out=tmp_path)
    entry = read_results(tmp_path)["benchmarks"]["scenes_coordinates"]
    chain, direct = (entry["reasonings"][name]["summary"] for name in ("chain", "direct"))
    assert chain["accuracy"]["value"] == 1
    assert chain["has_span"] == 1
    assert chain["measures"]["spearman"]["value"] > 0.9
    assert chain["measures"]["mse"]["value"] < 0.02
    assert chain["read_out"]["value"] > 0.8
    assert chain["measures"]["agreement"]["value"] == chain["read_out"]["value"]
    categories = entry["reasonings"]["direct"]["categories"]
    for count in (2, 3, 4, 5):
        asked = [question for question in questions.values() if question.category == f"{count} points"]
        share = sum(question.answer == "A" for question in asked) / len(asked)
        assert categories[f"{count} points"]["accuracy"]["value"] == pytest.approx(share)
        assert categories[f"{count} points"]["chance"] == pytest.approx(1 / count)
    mean = sum(group["accuracy"]["value"] for group in categories.values()) / 4
    assert direct["accuracy"]["value"] == pytest.approx(mean)
    assert direct["has_span"] == 0
    assert direct["measures"] == {}
    paired = entry["chain_less_direct"]
    assert paired["only_first"] == 0
    assert paired["p_value"] < 1e-6


def test_each_step_from_map_to_values_to_answer_is_measured(stub, questions, plain_depth, scenes, tmp_path):
    """It writes the true map, says the true values of all points but one, and answers by them or says A."""
    asked, by_prompt = list(questions.values()), {}
    for place, question in enumerate(asked):
        true = question.true_depth()
        values = {letter: int(true[y, x]) * 99 // 255 for letter, (x, y) in question.points.items()}
        if place % 3 == 0:
            values[question.answer] = 0
        highest = max(values, key=lambda letter: values[letter])
        said = ", ".join(f"{letter} {question.points[letter]} {value:02}" for letter, value in values.items())
        answer = highest if place % 2 else "A"
        text = f"The depth map is {plain_depth.text(true)}. The points are {said}. The answer is ({answer})."
        by_prompt[question.prompt("chain")] = (text, values, highest, answer)
    evaluate(stub(lambda prompt, start: by_prompt[prompt][0]), plan(scenes, reasonings=["chain"]), out=tmp_path)
    summary = read_results(tmp_path)["benchmarks"]["scenes_coordinates"]["reasonings"]["chain"]["summary"]
    said = {question.id: by_prompt[question.prompt("chain")] for question in asked}

    def share(holds):
        return pytest.approx(sum(holds(question, *said[question.id][1:]) for question in asked) / len(asked))

    found = summary["measures"]
    assert found["values_stated"]["value"] == 1
    assert found["highest_right"]["value"] == share(
        lambda q, values, highest, _: q.answer == next(x for x in sorted(values) if values[x] == values[highest])
    )
    assert found["highest_right"]["value"] < 0.8 < summary["read_out"]["value"]
    assert found["answer_highest"]["value"] == share(
        lambda q, values, highest, answer: values[answer] == values[highest]
    )
    assert 0.5 < found["answer_highest"]["value"] < 1
    assert found["highest_closest_by_map"]["value"] < summary["read_out"]["value"]
    assert "highest_of_map_right" not in found  # it was not taught where its values come from
    write_report(tmp_path)
    assert "From the map to the values, from the values to the answer" in (tmp_path / "report.md").read_text()


def test_values_that_were_to_be_read_in_the_map_are_compared_with_it(stub, questions, plain_depth, scenes, tmp_path):
    """It writes the true map, and of two questions in three the very values that its codes hold."""
    asked, by_prompt = list(questions.values()), {}
    for place, question in enumerate(asked):
        codes = plain_depth.encode(question.true_depth())
        values = {
            letter: plain_depth.depth_between_cells(codes, point, frame=56) * 100 // 256
            for letter, point in question.points.items()
        }
        right = min(letter for letter in values if values[letter] == max(values.values())) == question.answer
        stated = {**values, "A": 99 if values["A"] < 50 else 0} if place % 3 == 0 else values
        said = ", ".join(f"{letter} {question.points[letter]} {value:02}" for letter, value in stated.items())
        text = f"The depth map is {plain_depth.family.text(codes)}. The points are {said}. The answer is (A)."
        by_prompt[question.prompt("chain")] = (text, right)
    model = stub(lambda prompt, start: by_prompt[prompt][0])
    model.perception = replace(model.perception, values="interpolated")
    evaluate(model, plan(scenes, reasonings=["chain"]), out=tmp_path)
    found = read_results(tmp_path)["benchmarks"]["scenes_coordinates"]["reasonings"]["chain"]["summary"]["measures"]
    exact = sum(place % 3 > 0 for place in range(len(asked)))
    assert found["values_are_maps"]["value"] == pytest.approx(exact / len(asked))
    assert found["highest_of_map_right"]["value"] == pytest.approx(
        sum(right for _, right in by_prompt.values()) / len(asked)
    )
    assert found["highest_right"]["value"] < found["highest_of_map_right"]["value"] < 1
    assert "all values are its map" in write_report(tmp_path).read_text()


def test_counting_is_measured_by_boxes_too(stub, scenes, tmp_path):
    wording = Wording.of(stub(lambda *_: "").perception, image_size=56)
    found = BENCHMARKS["scenes_counting"].read(scenes, wording).questions
    by_text = {question.prompt("chain"): question for question in found}
    assert len(by_text) < len(found)  # the same is asked of several images, so a stub cannot tell them apart

    def respond(prompt, start):
        return "1. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)\nSo there are 1. The answer is 1."

    evaluate(stub(respond), plan(scenes, tasks=["scenes_counting"], reasonings=["chain"]), out=tmp_path)
    summary = read_results(tmp_path)["benchmarks"]["scenes_counting"]["reasonings"]["chain"]["summary"]
    truths = [int(question.answer) for question in found]
    assert summary["accuracy"]["value"] == pytest.approx(truths.count(1) / len(truths))
    assert summary["chance"] == max(map(truths.count, truths)) / len(truths)
    assert summary["measures"]["count_error"]["value"] == pytest.approx(
        sum(abs(truth - 1) for truth in truths) / len(truths)
    )
    for name in ("precision", "recall", "f1"):
        assert summary["measures"][name] == {"value": 0, "low": 0, "high": 0, "count": len(found)}
    assert summary["measures"]["agreement"]["value"] == 1


def test_unparsable_answers_are_counted_and_wrong(stub, scenes, tmp_path):
    evaluate(stub(lambda prompt, start: prompt), plan(scenes, reasonings=["direct"]), out=tmp_path)
    summary = read_results(tmp_path)["benchmarks"]["scenes_coordinates"]["reasonings"]["direct"]["summary"]
    assert (summary["unparsable"], summary["accuracy"]["value"]) == (1, 0)
    assert summary["accuracy_parsed"]["value"] is None
    assert all("closest" in text for text in summary["unparsable_samples"])
    assert len(summary["unparsable_samples"]) == 5


def test_what_was_answered_is_not_asked_again(seeing, scenes, tmp_path):
    first = plan(scenes, reasonings=["direct"], limit=20)
    evaluate(seeing, first, out=tmp_path)
    before = (tmp_path / "results.json").read_text()
    seeing.batches.clear()
    evaluate(seeing, first, out=tmp_path)
    assert seeing.batches == []
    assert json.loads(before)["benchmarks"] == read_results(tmp_path)["benchmarks"]


def test_a_stopped_run_goes_on_where_it_was_cut_off(seeing, scenes, tmp_path):
    wanted = plan(scenes, reasonings=["chain"], limit=21)
    evaluate(seeing, wanted, out=tmp_path / "whole")
    answers = "answers/scenes_coordinates.chain.jsonl"
    lines = (tmp_path / "whole" / answers).read_text()

    def stop(*_):
        raise KeyboardInterrupt

    seeing.batches.clear()
    write, calls = seeing.write, []
    seeing.write = lambda *args, **settings: stop() if len(calls) == 2 else calls.append(1) or write(*args, **settings)
    with pytest.raises(KeyboardInterrupt):
        evaluate(seeing, wanted, out=tmp_path / "stopped")
    seeing.write = write
    part = tmp_path / "stopped" / answers.replace(".jsonl", ".part0.jsonl")
    with part.open("a") as file:
        file.write('{"id": "cut o')
    seeing.batches.clear()
    evaluate(seeing, wanted, out=tmp_path / "stopped")
    assert [len(batch) for batch in seeing.batches] == [5]
    assert (tmp_path / "stopped" / answers).read_text() == lines
    assert not part.exists()


def test_a_damaged_line_and_a_damaged_header_are_named(seeing, scenes, tmp_path):
    wanted = plan(scenes, reasonings=["chain"], limit=2)
    evaluate(seeing, wanted, out=tmp_path)
    answers = tmp_path / "answers" / "scenes_coordinates.chain.jsonl"
    for id, text, ids in (("7", 3, [5]), ("7", "", 5), ("7", "", [True]), ("7", "", [-1]), (7, "", [5]), ({}, "", [5])):
        answers.write_text(json.dumps({"id": id, "text": text, "ids": ids, "finished": True}) + "\n")
        with pytest.raises(AuroraError, match=rf"chain\.jsonl: the line of {id} is damaged"):
            evaluate(seeing, wanted, out=tmp_path)
    for content in ('{"format": "llava_aurora evaluation 1"}', "[]", "{"):
        (tmp_path / "evaluation.json").write_text(content)
        with pytest.raises(AuroraError, match=r"evaluation\.json"):
            evaluate(seeing, wanted, out=tmp_path)


def test_several_processes_answer_what_one_does(seeing, scenes, tmp_path):
    wanted = plan(scenes, reasonings=["chain"], limit=21)
    evaluate(seeing, wanted, out=tmp_path / "one")
    wording = Wording.of(seeing.perception, image_size=seeing.image_size)
    questions = BENCHMARKS["scenes_coordinates"].read(scenes, wording).questions[:21]
    store = AnswerStore(tmp_path / "three")
    about = {"task": "scenes_coordinates", "reasoning": "chain"}
    for index in (2, 0, 1):
        share = Share(index=index, count=3)
        store.ask(
            lambda batch: seeing.write([None] * len(batch), [question.prompt("chain") for question in batch]),
            questions,
            batch_size=4,
            share=share,
            **about,
        )
        if index != 1:
            with pytest.raises(AuroraError, match="have no answer, such as"):
                store.finish(questions, **about)
    assert store.finish(questions, **about) == AnswerStore(tmp_path / "one").finish(questions, **about)
    assert [path.name for path in (tmp_path / "three" / "answers").iterdir()] == ["scenes_coordinates.chain.jsonl"]


def test_a_folder_belongs_to_one_model_and_its_questions(seeing, scenes, tmp_path):
    wanted = plan(scenes, reasonings=["direct"], limit=8)
    evaluate(seeing, wanted, out=tmp_path)
    seeing.identity["fingerprint"] = "1"
    with pytest.raises(AuroraError, match="holds answers with fingerprint 0, not 1; choose another folder"):
        evaluate(seeing, wanted, out=tmp_path)
    seeing.identity["fingerprint"] = "0"
    with pytest.raises(AuroraError, match="holds answers to 8 other questions of scenes_coordinates"):
        evaluate(seeing, plan(scenes, reasonings=["direct"], limit=9), out=tmp_path)
    with pytest.raises(AuroraError, match="holds answers with decoding greedy, not verified"):
        evaluate(seeing, replace(wanted, settings=AnswerSettings(decoding="verified")), out=tmp_path)
    with pytest.raises(AuroraError, match=r"holds answers with reasoning_prompt None, not Reason\."):
        evaluate(seeing, replace(wanted, settings=AnswerSettings(reasoning_prompt="\nReason.")), out=tmp_path)


def test_chains_are_asked_for_by_the_prompt_that_is_given(stub, questions, scenes, tmp_path):
    settings = AnswerSettings(reasoning_prompt="\nReason about the depth.")
    model = stub(lambda prompt, start: "The answer is (A).")
    evaluate(model, plan(scenes, settings=settings), out=tmp_path)
    texts = [question.text for question in questions.values()]
    prompts = [prompt for batch in model.batches for prompt in batch]
    assert sorted(prompts) == sorted([*texts, *(f"{text}\nReason about the depth." for text in texts)])


def test_what_is_no_folder_of_an_evaluation_is_left_alone(seeing, scenes, tmp_path):
    foreign = tmp_path / "report.md"
    foreign.write_text("mine")
    for out in (tmp_path, foreign):
        with pytest.raises(AuroraError, match=r"evaluation\.json is missing"):
            evaluate(seeing, plan(scenes), out=out)
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    assert foreign.read_text() == "mine"


def test_benchmarks_and_reasonings_are_added_to_a_folder(seeing, scenes, tmp_path):
    evaluate(seeing, plan(scenes, reasonings=["direct"], limit=8), out=tmp_path)
    evaluate(seeing, plan(scenes, reasonings=["chain"], limit=8), out=tmp_path)
    evaluate(seeing, plan(scenes, tasks=["scenes_counting"], reasonings=["direct"], limit=8), out=tmp_path)
    results = read_results(tmp_path)
    assert list(results["benchmarks"]) == ["scenes_coordinates", "scenes_counting"]
    entry = results["benchmarks"]["scenes_coordinates"]
    assert list(entry["reasonings"]) == ["direct", "chain"]
    assert "chain_less_direct" in entry
    assert len(judged_answers(entry, "chain")) == 8
    (made,) = results["runs"]
    assert re.fullmatch(r"[0-9a-f]{12,}(-dirty)?", made["commit"] or "0" * 12)


def test_scenes_are_made_where_none_are_given(seeing, tmp_path):
    wanted = Plan(tasks=["scenes"], reasonings=["direct"], scenes=2, batch_size=8, pictures=0)
    found = evaluate(seeing, wanted, out=tmp_path)
    assert [each.task for each in found] == ["scenes_depth", "scenes_coordinates", "scenes_counting"]
    assert len(list((tmp_path / "scenes" / "images").iterdir())) == 2


def test_what_cannot_be_asked_is_refused_at_once(tmp_path):
    with pytest.raises(AuroraError, match="unknown reasoning 'both'; available: chain, direct"):
        Plan(tasks=["scenes"], reasonings=["both"])
    with pytest.raises(AuroraError, match="--data is needed"):
        Plan(tasks=["hardblink"])
    with pytest.raises(AuroraError, match="unknown benchmark 'blnk'"):
        Plan(tasks=["blnk"], data=tmp_path)
    with pytest.raises(AuroraError, match="no results here"):
        read_results(tmp_path)
