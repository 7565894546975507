"""What a contestant learns in each epoch: AURORA's curriculum of its kinds of tasks, and marked points beside."""

import yaml

from llava_aurora.data.curriculum.schedule import LinearSchedule, Shares
from llava_aurora.data.fresh_points import MARKED_TASKS
from llava_aurora.data.tasks import TASKS
from llava_aurora.study.contestants import Variant
from llava_aurora.study.sizes import Size

LOCATING = "point_location"
# What comes in the place of writing maps alone, in parts.
READING = {"depth_reading": 1.0}
READING_FIRST = {"depth_reading_from_map": 1.0}
READING_BESIDE = {"depth_reading": 1 / 2, "depth_reading_from_map": 1 / 2}
PRACTICE = {"depth_reading": 2 / 3, "depth_chain_from_map": 1 / 3}
# Images of each task in the paper, from which its curriculum follows: maps to boxes as four to one. Questions that give
# coordinates instead of marks are ours; they share with the marked ones.
PAPER_COUNTS = {
    "depth_generation": 20_000,
    "depth_chain": 500,
    "depth_chain_from_coordinates": 500,
    "depth_direct": 500,
    "depth_direct_from_coordinates": 500,
    "box_generation": 5_000,
    "counting_chain": 250,
    "counting_direct": 250,
}


def mixtures(contestant: Variant, *, epochs: int, locating: float, marked: bool = True) -> list[Shares]:
    """The share of each task, epoch by epoch; each sums to 1.

    Args:
        contestant: its kinds and their order. Without atomic tasks every epoch is the same.
        epochs: in all.
        locating: share of the depth samples that locate marked points, in every epoch.
        marked: whether questions mark points at all; otherwise those that give coordinates take their place.
    """
    counts = {task: count for task, count in PAPER_COUNTS.items() if TASKS[task].kind in contestant.kinds}
    if not marked:
        for task in [task for task in counts if task in MARKED_TASKS]:
            counts[f"{task}_from_coordinates"] += counts.pop(task)
    first = 3 * epochs // 10 if contestant.order.startswith("reading") else 0
    last = epochs // 5 if contestant.order.endswith("chains last") else 0
    between = epochs - first - last
    found = [LinearSchedule().shares(epoch, epochs=between, counts=counts) for epoch in range(between)]
    chains = {task: count for task, count in counts.items() if TASKS[task].kind == "chain"}
    found += [{task: count / sum(chains.values()) for task, count in chains.items()}] * last
    beside = contestant.order.startswith("reading beside")
    if contestant.reads:
        parts = READING_BESIDE if beside else PRACTICE if contestant.practises else READING
        found = [_with_reading(shares, parts) for shares in found]
    if first:
        atomic = LinearSchedule().shares(0, epochs=between, counts=counts)
        found = [_with_reading(atomic, READING_BESIDE if beside else READING_FIRST)] * first + found
    if contestant.order == "constant":
        tasks = dict.fromkeys(task for shares in found for task in shares)
        mean = {task: sum(shares.get(task, 0.0) for shares in found) / epochs for task in tasks}
        found = [mean] * epochs
    return [_with_locating(shares, locating) for shares in found]


def mixture_file(contestant: Variant, size: Size, *, epochs: int | None = None) -> str:
    """The mixtures of a study in the YAML that --curriculum reads; `epochs` instead of the size's."""
    found = mixtures(contestant, epochs=epochs or size.epochs, locating=size.locating, marked=size.marked)
    rounded = [{task: round(share, 6) for task, share in shares.items() if share} for shares in found]
    return yaml.safe_dump({"records_per_epoch": size.records_per_epoch, "epochs": rounded}, sort_keys=False)


def _with_reading(shares: Shares, parts: Shares) -> Shares:
    found: Shares = {}
    for task, share in shares.items():
        found |= {name: part * share for name, part in parts.items()} if task == "depth_generation" else {task: share}
    return found


def _with_locating(shares: Shares, locating: float) -> Shares:
    depth = {task: share for task, share in shares.items() if TASKS[task].domain == "depth"}
    scaled = {task: share * (1 - locating) if task in depth else share for task, share in shares.items()}
    return {**scaled, LOCATING: locating * sum(depth.values())} if locating else scaled
