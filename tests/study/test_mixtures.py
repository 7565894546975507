"""Curricula of the contestants: the paper's shares, the same part for marked points, the same data for all orders."""

import pytest

from llava_aurora.data.curriculum.schedule_file import read_schedule
from llava_aurora.data.tasks import TASKS
from llava_aurora.study.contestants import CONTESTANTS, GROUPS, runs
from llava_aurora.study.mixtures import LOCATING, PAPER_COUNTS, mixture_file, mixtures

EPOCHS = 10


def of_kind(shares, kind, domain="depth"):
    return sum(
        shares.get(task, 0) for task in PAPER_COUNTS if TASKS[task].kind == kind and TASKS[task].domain == domain
    )


@pytest.mark.parametrize("contestant", CONTESTANTS.values(), ids=lambda contestant: contestant.name)
def test_every_epoch_is_whole_and_locates_points_alike(contestant):
    for shares in mixtures(contestant, epochs=EPOCHS, locating=0.2):
        assert sum(shares.values()) == pytest.approx(1)
        assert shares[LOCATING] == pytest.approx(0.2 * 0.8)  # maps and boxes are four to one
        kinds = {TASKS[task].kind for task, share in shares.items() if share and task != LOCATING}
        assert kinds <= set(contestant.kinds)


def test_the_full_recipe_falls_from_all_to_a_tenth():
    found = mixtures(CONTESTANTS["full"], epochs=EPOCHS, locating=0)
    for epoch, shares in enumerate(found):
        assert of_kind(shares, "atomic") == pytest.approx(0.8 * (1 - 0.1 * epoch))
        assert of_kind(shares, "chain") == pytest.approx(of_kind(shares, "direct"))
        assert of_kind(shares, "chain", "box") == pytest.approx(0.2 * 0.05 * epoch)
        assert shares.get("depth_chain", 0) == pytest.approx(shares.get("depth_chain_from_coordinates", 0))


def test_a_fixed_mixture_holds_as_much_of_each_task_as_the_curriculum():
    curriculum, fixed = (mixtures(CONTESTANTS[name], epochs=EPOCHS, locating=0.2) for name in ("full", "constant"))
    for task in PAPER_COUNTS:
        assert sum(shares.get(task, 0) for shares in fixed) == pytest.approx(
            sum(shares.get(task, 0) for shares in curriculum)
        )
    assert all(shares == fixed[0] for shares in fixed)


def test_the_file_is_a_schedule(tmp_path):
    path = tmp_path / "curriculum.yaml"
    path.write_text(mixture_file(CONTESTANTS["direct"], epochs=2, records_per_epoch=50, locating=0.2))
    schedule = read_schedule(str(path))
    assert schedule.length({}) == 50
    shares = schedule.shares(1, epochs=2, counts=PAPER_COUNTS)
    assert shares == pytest.approx(mixtures(CONTESTANTS["direct"], epochs=2, locating=0.2)[1], abs=1e-5)


def test_the_main_contrast_comes_first_with_all_seeds():
    order = [run.name for run in runs(seeds=[0, 1])]
    assert order[:8] == [
        *("direct-0", "full-0", "direct-1", "full-1"),
        *("no_coordinates-0", "plain_text-0", "no_coordinates-1", "plain_text-1"),
    ]
    assert len(order) == len(set(order)) == 2 * len(CONTESTANTS)
    groups = [run.contestant.group for run in runs(seeds=[0])]
    assert groups == sorted(groups, key=GROUPS.index)
