"""The token replacement test, on models of which it is known whether they use their map."""

import re

import pytest

from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS, Wording
from llava_aurora.evaluation.replacement import EDITED, REPLACEMENTS, replacement_test
from llava_aurora.evaluation.run import Plan, read_results
from llava_aurora.evaluation.statistics import Interval
from llava_aurora.evaluation.verdict import LEAST_CHAINS, Loss, verdict
from llava_aurora.tasks.depth_maps import closest_by

MAP = re.compile(r"<DEPTH_START>.*<DEPTH_END>")


@pytest.fixture(scope="module")
def chain_writer(stub, scenes, plain_depth):
    """Makes a model that writes the true map, and then what `conclude` says of question and map."""
    wording = Wording.of(stub(lambda *_: "").perception, image_size=56)
    questions = BENCHMARKS["scenes_coordinates"].read(scenes, wording).questions
    by_prompt = {question.prompt("chain"): question for question in questions}

    def make(conclude):
        def respond(prompt, start):
            question = by_prompt[prompt]
            if start.endswith(plain_depth.family.start + plain_depth.family.end):  # a map without codes
                return ". The answer is (A)."
            map = "" if start else f"The depth map is {plain_depth.text(question.true_depth())}"
            codes = plain_depth.family.parse(MAP.search(start + map).group())[0].codes
            return f"{map}. The answer is ({conclude(question, plain_depth.decode(codes))})."

        return stub(respond)

    return make


def run(predictor, scenes, out, **changes):
    plan = Plan(tasks=["scenes_coordinates"], data=scenes, batch_size=16, seed=0, pictures=0, **changes)
    return replacement_test(predictor, plan, out=out)["scenes_coordinates"]


@pytest.fixture(scope="module")
def reader(chain_writer):
    """Answers by the map that stands in its chain."""
    return chain_writer(lambda question, depth: closest_by(depth, question.points, frame=question.frame))


@pytest.fixture(scope="module")
def tested(reader, scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("replaced")
    return run(reader, scenes, out), out


def test_a_model_that_reads_its_map_is_found_to_use_it(tested):
    found, _ = tested
    assert found["verdict"]["finding"] == "uses its map"
    conditions = found["conditions"]
    assert list(conditions) == list(REPLACEMENTS)
    assert found["control_repeats_chain"] == 1
    assert conditions["own"]["loss"]["value"] == 0
    assert conditions["true"]["loss"]["value"] == 0  # it writes the true map
    for name in ("random", "constant", "first", "other", "shuffled"):
        assert conditions[name]["loss"]["low"] > 0.1
        assert conditions[name]["p_value"] < 1e-3
    for name, condition in conditions.items():
        assert (condition["follows"] is None) == (name == "empty")
        assert name == "empty" or condition["follows"]["value"] == 1  # whatever is put in decides
    for name in EDITED:
        assert conditions[name]["predicted"]["value"] == 1
        assert conditions[name]["predicted_before"]["value"] == 0
    counts = [conditions[name]["predicted"]["count"] for name in EDITED]
    assert counts[0] >= 20
    assert counts[1] <= counts[2] <= counts[3], "the higher a point is raised, the more maps it is the closest in"


def test_a_constant_map_leaves_the_first_letter(tested):
    answers = tested[0]["conditions"]["constant"]["answers"]
    assert {answer["stated"] for answer in answers} == {"A"}


def test_losses_are_the_differences_of_the_accuracies(tested):
    conditions = tested[0]["conditions"]
    own = conditions["own"]["accuracy"]["value"]
    for condition in conditions.values():
        assert condition["loss"]["value"] == pytest.approx(own - condition["accuracy"]["value"])


def test_a_model_that_ignores_its_map_is_found_not_to_use_it(chain_writer, scenes, tmp_path):
    found = run(chain_writer(lambda question, depth: question.answer), scenes, tmp_path)
    assert found["verdict"]["finding"] == "does not use its map"
    assert found["conditions"]["random"]["changed"]["value"] == 0
    assert found["conditions"]["random"]["follows"]["value"] < 0.6
    exchanged = found["conditions"]["exchanged"]  # a few coarse maps put another point first than the true depths
    assert exchanged["predicted"] == exchanged["predicted_before"]
    assert exchanged["predicted"]["value"] < 0.1


def test_a_model_that_always_says_the_same_does_not_use_it_either(chain_writer, scenes, tmp_path):
    found = run(chain_writer(lambda question, depth: "B"), scenes, tmp_path)
    assert found["verdict"]["finding"] == "does not use its map"
    assert "hardly any answer changes" in found["verdict"]["reason"]


def test_a_few_questions_tell_nothing(chain_writer, scenes, tmp_path):
    found = run(chain_writer(lambda question, depth: question.answer), scenes, tmp_path, limit=12)
    assert found["verdict"]["finding"] == "cannot be told"
    assert "12 chains are too few" in found["verdict"]["reason"]


def test_results_are_kept_and_nothing_is_asked_twice(tested, reader, scenes):
    found, out = tested
    assert read_results(out)["replacement"]["scenes_coordinates"] == found
    reader.batches.clear()
    assert run(reader, scenes, out) == found
    assert reader.batches == []


def test_another_images_map_is_another_images(reader, scenes, plain_depth, tested):
    out = tested[1] / "answers"
    chain, other, shuffled, first = (
        [plain_depth.family.parse(line)[0].codes for line in (out / name).read_text().splitlines()]
        for name in (
            "scenes_coordinates.chain.jsonl",
            "scenes_coordinates.chain-other.jsonl",
            "scenes_coordinates.chain-shuffled.jsonl",
            "scenes_coordinates.chain-first.jsonl",
        )
    )
    assert sum(one == two for one, two in zip(chain, other, strict=True)) == 0
    assert all(sorted(one) == sorted(two) and one != two for one, two in zip(chain, shuffled, strict=True))
    assert all(set(two) == {one[0]} for one, two in zip(chain, first, strict=True))


def test_without_maps_there_is_nothing_to_replace(stub, scenes, tmp_path):
    with pytest.raises(AuroraError, match="none of the 8 chains of scenes_coordinates holds a whole span to replace"):
        run(stub(lambda prompt, start: "(A)"), scenes, tmp_path, limit=8)
    with pytest.raises(AuroraError, match="scenes_counting: answers of counting do not depend"):
        replacement_test(stub(lambda *_: ""), Plan(tasks=["scenes"], data=scenes), out=tmp_path)
    blind = stub(lambda *_: "")
    blind.perception = None
    with pytest.raises(AuroraError, match="has no perception tokens"):
        replacement_test(blind, Plan(tasks=["scenes_depth"], data=scenes), out=tmp_path)


# --- the rule ---------------------------------------------------------------------------------------------------------


def losses(*, count=200, p_value=0.001, **changes):
    """Of every wrong map: nothing lost, unless given as (low, high) of the loss; maps of one code cost much."""
    found = {}
    changes = {"constant": (0.2, 0.3), "first": (0.2, 0.3), **changes}
    for name in ("random", "constant", "first", "other", "shuffled"):
        low, high = changes.get(name, (-0.02, 0.02))
        found[name] = Loss(Interval((low + high) / 2, low, high, count), Interval(0.2, 0.1, 0.3, count), p_value)
    return found


USES = {"random": (0.1, 0.2), "other": (0.01, 0.2)}


@pytest.mark.parametrize(
    ("changes", "control", "flips", "finding"),
    [
        (USES, 0.8, None, "uses its map"),
        (USES, 0.8, (0.5, 0.4, 0.6), "uses its map"),
        (USES, 0.8, (0.49, 0.4, 0.6), "cannot be told"),
        ({**USES, "other": (0.0, 0.2)}, 0.8, (0.9, 0.8, 1.0), "cannot be told"),
        ({**USES, "p_value": 0.05}, 0.8, (0.9, 0.8, 1.0), "cannot be told"),
        ({"random": (0.1, 0.2)}, 0.8, None, "cannot be told"),
        ({}, 0.8, None, "does not use its map"),
        ({"other": (-0.02, 0.0499)}, 0.8, (0.1, 0.0, 0.49), "does not use its map"),
        ({"other": (-0.02, 0.05)}, 0.8, (0.1, 0.0, 0.49), "cannot be told"),
        ({}, 0.8, (0.4, 0.3, 0.5), "cannot be told"),
        ({"shuffled": (-0.01, 0.06)}, 0.8, None, "cannot be told"),
        ({}, 0.33, None, "cannot be told"),
    ],
)
def test_the_rule(changes, control, flips, finding):
    interval = Interval(control, control - 0.05, control + 0.05, 200)
    flips = flips and Interval(*flips, 100)
    assert verdict(losses(**changes), control=interval, baseline=0.33, flips=flips).finding == finding


def test_what_is_too_few_follows_from_the_margin():
    assert 0.95 ** (LEAST_CHAINS - 1) > 0.025 >= 0.95**LEAST_CHAINS
    few = losses(count=LEAST_CHAINS - 1)
    assert verdict(few, control=Interval(1, 1, 1, LEAST_CHAINS - 1), baseline=None).finding == "cannot be told"


def test_a_replacement_that_could_not_be_made_is_named():
    some = losses()
    del some["other"]
    said = verdict(some, control=Interval(0.8, 0.7, 0.9, 200), baseline=0.3)
    assert said.finding == "cannot be told"
    assert "other" in said.reason
