"""The verdict of the token replacement test, by a rule that is fixed before the numbers are seen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llava_aurora.evaluation.statistics import Interval

MARGIN = 0.05  # of accuracy: what is surely less is held for nothing
# Replacements that say something wrong. A map of one code says nothing: in it all points are equally close.
WRONG = ("random", "other", "shuffled")
DECISIVE = ("random", "other")  # nonsense, and sense about another image

Finding = Literal["uses its map", "does not use its map", "cannot be told"]
# Where none of so many answers changes, the share that would change is surely below the margin (97.5 %); the bootstrap
# cannot say that, as it has no width where nothing varies.
LEAST_CHAINS = math.ceil(math.log(0.025) / math.log(1 - MARGIN))
FLIPS = 0.5  # of the counterfactual maps; what uses its map follows at least so many
RULE = (
    "It uses its map if random codes and another image's map each cost accuracy (the whole 95 % interval of the drop"
    " lies above 0, and McNemar's exact test says p < 0.05), and if, where the two closest points could be exchanged,"
    f" the answer becomes the predicted one in at least {FLIPS:.0%} of the chains. It does not if, over {LEAST_CHAINS}"
    f" chains or more, no interval of the drop by random codes, another image's or shuffled maps reaches {MARGIN:.0%},"
    f" the interval of answers that become the predicted one lies below {FLIPS:.0%}, and either its answers are better"
    f" than chance and than blind answers, or none of these maps changes {MARGIN:.0%} of them. Otherwise it cannot be"
    " told."
)


@dataclass(frozen=True)
class Loss:
    """What a replacement does: accuracy lost against the control, share of answers that change, McNemar's p."""

    loss: Interval
    changed: Interval
    p_value: float


@dataclass(frozen=True)
class Verdict:
    """What is found, why, and by which rule."""

    finding: Finding
    reason: str
    rule: str = RULE


def verdict(
    losses: Mapping[str, Loss], *, control: Interval, baseline: float | None, flips: Interval | None = None
) -> Verdict:
    """Judges a model by what each replacement costs.

    Args:
        losses: by the name of the replacement; those that were not made are left out.
        baseline: accuracy of chance or of the blind baseline, whichever is higher; None if neither is known.
        flips: of the counterfactual maps that imply another answer, the share in which it is given; None of none.
    """
    wrong = {name: losses[name] for name in WRONG if name in losses}
    worst = max(wrong, key=lambda name: wrong[name].loss.value)
    if all(name in wrong and wrong[name].loss.low > 0 and wrong[name].p_value < 0.05 for name in DECISIVE):
        costs = " and ".join(f"{_points(wrong[name].loss)} ({name})" for name in DECISIVE)
        if flips is None or flips.value >= FLIPS:
            followed = f"; of counterfactual maps it follows {flips.value:.1%}" if flips is not None else ""
            return Verdict("uses its map", f"Wrong maps cost {costs}{followed}.")
        reason = f"Wrong maps cost {costs}, but it follows {flips.value:.1%} of counterfactual maps alone."
        return Verdict("cannot be told", reason)
    if len(wrong) < len(WRONG):
        missing = ", ".join(name for name in WRONG if name not in wrong)
        return Verdict("cannot be told", f"A replacement could not be made: {missing}.")
    if control.count < LEAST_CHAINS:
        reason = (
            f"{control.count} chains are too few to say that a loss is below {MARGIN:.0%}: {LEAST_CHAINS} are needed."
        )
        return Verdict("cannot be told", reason)
    cheap = all(each.loss.high < MARGIN for each in wrong.values())
    if cheap and flips is not None and flips.high >= FLIPS:
        reason = f"Wrong maps hardly cost it anything, but it may follow {flips.high:.1%} of counterfactual maps."
        return Verdict("cannot be told", reason)
    better = baseline is None or control.low > baseline
    unmoved = all(each.changed.high < MARGIN for each in wrong.values())
    if cheap and (better or unmoved):
        reason = f"The worst replacement ({worst}) costs {_points(wrong[worst].loss)}"
        return Verdict("does not use its map", f"{reason}{'' if better else ', and hardly any answer changes'}.")
    if cheap:
        return Verdict(
            "cannot be told",
            f"With its own map {control.value:.1%} of its answers are right, not significantly more than without the"
            f" image ({baseline:.1%}), so accuracy cannot drop; but its answers change with the map.",
        )
    return Verdict(
        "cannot be told",
        f"The worst replacement ({worst}) costs {_points(wrong[worst].loss)}; the drops of both decisive"
        f" replacements are not significantly above 0, nor are all below {MARGIN:.0%}. More questions would narrow the"
        " intervals.",
    )


def _points(loss: Interval) -> str:
    return f"{100 * loss.value:.1f} points [{100 * loss.low:.1f}, {100 * loss.high:.1f}]"
