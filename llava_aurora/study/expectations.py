"""What is expected, from the paper and of reading values, written down before the results, and whether it came."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llava_aurora.evaluation import paper
from llava_aurora.evaluation.tables import interval
from llava_aurora.study.scores import Result, Score, answers, difference, replaced, score
from llava_aurora.study.sizes import COUNTING

HARD = paper.POINTS[1:]  # 3 to 5 points
Results = Mapping[str, Sequence[Result]]  # by contestant
Finding = Literal["met", "not met", "not run"]
RULE = (
    "Met: the mean over the seeds reaches the bound and its whole interval lies above 0. Intervals are 95 % percentile"
    " bootstrap over questions, of each question's mean over the seeds."
)


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Args: text: what is expected; least: points of 100; measured: from the results, None if something is not run."""

    text: str
    least: float
    measured: Callable[[Results], Score | None]


def expectations(depth: str) -> tuple[Expectation, ...]:
    """All of them; `depth` is the benchmark that contestants are compared by."""
    return (
        Expectation(
            text="The full recipe's chains beat a model trained on direct answers by 5 or more at 3 to 5 points.",
            least=5,
            measured=_chains_over("direct", depth, asked="direct", categories=HARD),
        ),
        Expectation(
            text="Coordinates in the chain help at 3 to 5 points.",
            least=0,
            measured=_chains_over("no_coordinates", depth, categories=HARD),
        ),
        Expectation(
            text="Counting with perception tokens beats counting with plain-text coordinates.",
            least=0,
            measured=_chains_over("plain_text", COUNTING),
        ),
        Expectation(
            text="Random codes in the place of the full recipe's map cost 10 points or more at 3 to 5 points.",
            least=10,
            measured=_random_codes_cost("full", depth),
        ),
        *(
            expected
            for name, other, values in (
                ("readings", "direct", "true values"),
                ("map_values", "direct", "values of the map"),
                ("map_values_fresh", "direct_fresh", "values of the map, all points being fresh"),
                ("map_values_chains", "direct_fresh", "values of the map, from fresh points and with chains last"),
                ("map_values_bottleneck", "direct_fresh", "values of the map, the same with the image hidden"),
                ("map_practice", "direct_fresh", "values of the map, the same with practice in reading maps"),
                ("map_swapped", "direct_fresh", "values of maps half of which were swapped"),
                ("map_first", "direct_fresh", "values of maps as text first, then of maps half of which were swapped"),
                ("map_beside", "direct_fresh", "values of maps as text beside writing them, half of these swapped"),
                ("map_guided", "direct_fresh", "values of maps with a head that was told where to look"),
                ("map_guided_answers", "direct_fresh", "values of maps with two heads guided and answers weighed"),
                ("map_interpolated", "direct_fresh", "interpolated values, heads guided lightly, two tasks a step"),
            )
            for expected in (
                Expectation(
                    text=f"Having learned to read {values}, chains beat a model trained on direct answers by 5 or more"
                    " at 3 to 5 points.",
                    least=5,
                    measured=_chains_over(other, depth, of=name, asked="direct", categories=HARD),
                ),
                Expectation(
                    text="Random codes in the place of its map cost such a model 10 points or more at 3 to 5 points.",
                    least=10,
                    measured=_random_codes_cost(name, depth),
                ),
            )
        ),
    )


def _chains_over(
    other: str, task: str, *, of: str = "full", asked: str = "chain", categories: Sequence[str] | None = None
) -> Callable[[Results], Score | None]:
    """How much more the chains `of` one contestant have right than another contestant, which is `asked` so."""

    def measured(results: Results) -> Score | None:
        scores = (answers(task, asked), answers(task, "chain"))
        return difference(results.get(other, ()), results.get(of, ()), scores, categories=categories)

    return measured


def _random_codes_cost(name: str, task: str) -> Callable[[Results], Score | None]:
    return lambda results: score(results.get(name, ()), replaced(task, "random"), categories=HARD)


@dataclass(frozen=True)
class Checked:
    """An expectation, what was found of it, and the numbers in words."""

    text: str
    finding: Finding
    reason: str
    measured: dict[str, Any] | None


def check(results: Results, *, depth: str) -> list[Checked]:
    """Every expectation, in its order; `depth` as for `expectations`."""
    return [_check(expectation, results) for expectation in expectations(depth)]


def _check(expectation: Expectation, results: Results) -> Checked:
    found = expectation.measured(results)
    if found is None:
        return Checked(expectation.text, "not run", "A run that this needs has no result.", None)
    value = found.interval
    met = 100 * value.value >= expectation.least and value.low > 0
    seeds = ", ".join(f"{100 * each:.1f} with seed {seed}" for seed, each in sorted(found.by_seed.items()))
    reason = f"It is {interval(value.to_json())} points ({seeds}; {expectation.least:g} or more was expected)."
    if expectation.least == 0:
        reason = f"It is {interval(value.to_json())} points ({seeds}; more than 0 was expected)."
    measured = {**value.to_json(), "by_seed": {str(seed): each for seed, each in found.by_seed.items()}}
    return Checked(expectation.text, "met" if met else "not met", reason, measured)
