"""Curricula of the contestants: the paper's shares, the same part for marked points, the same data for all orders."""

import pytest

from llava_aurora.data.curriculum.schedule_file import read_schedule
from llava_aurora.data.fresh_points import MARKED_TASKS
from llava_aurora.data.tasks import TASKS
from llava_aurora.study.contestants import CONTESTANTS, GROUPS, runs
from llava_aurora.study.mixtures import LOCATING, PAPER_COUNTS, mixture_file, mixtures
from llava_aurora.study.sizes import SIZES

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


def test_who_reads_learns_to_wherever_the_full_recipe_learns_to_write_maps():
    full, reads = (mixtures(CONTESTANTS[name], epochs=EPOCHS, locating=0.2) for name in ("full", "readings"))
    for one, other in zip(full, reads, strict=True):
        assert {**other, "depth_generation": other["depth_reading"]} == {**one, "depth_reading": other["depth_reading"]}


def test_practice_takes_the_place_of_writing_maps_alone():
    plain, practised = (
        mixtures(CONTESTANTS[name], epochs=EPOCHS, locating=0) for name in ("map_values_chains", "map_practice")
    )
    for one, other in zip(plain, practised, strict=True):
        read, answered = (other.pop(task, 0) for task in ("depth_reading", "depth_chain_from_map"))
        assert read + answered == pytest.approx(one.pop("depth_reading", 0))
        assert read == pytest.approx(2 * answered)
        assert other == one


def test_reading_first_is_reading_alone_and_then_a_shorter_curriculum():
    swapped, found = (mixtures(CONTESTANTS[name], epochs=10, locating=0) for name in ("map_swapped", "map_first"))
    for shares in found[:3]:
        present = {task: share for task, share in shares.items() if share}
        assert present == pytest.approx({"depth_reading_from_map": 0.8, "box_generation": 0.2})
    assert not any("depth_reading_from_map" in shares for shares in found[3:])
    assert found[3] == swapped[0]
    assert found[7] == pytest.approx(swapped[7])
    assert found[8:] == swapped[8:]


def test_reading_beside_is_half_of_what_others_write_from_the_start():
    first, found = (mixtures(CONTESTANTS[name], epochs=10, locating=0) for name in ("map_first", "map_beside"))
    for shares in found[:3]:
        present = {task: share for task, share in shares.items() if share}
        assert present == pytest.approx({"depth_reading": 0.4, "depth_reading_from_map": 0.4, "box_generation": 0.2})
    for one, other in zip(first[3:], found[3:], strict=True):
        written, read = (other.pop(task, 0) for task in ("depth_reading", "depth_reading_from_map"))
        assert written == read
        assert written + read == pytest.approx(one.pop("depth_reading", 0))
        assert other == one


def test_chains_last_is_a_shorter_curriculum_and_then_chains_alone():
    contestant = CONTESTANTS["map_values_chains"]
    *first, one, other = mixtures(contestant, epochs=EPOCHS, locating=0)
    assert first == mixtures(CONTESTANTS["map_values_fresh"], epochs=EPOCHS - 2, locating=0)
    assert one == other
    assert of_kind(one, "chain") == pytest.approx(0.8)
    assert of_kind(one, "chain", "box") == pytest.approx(0.2)


def test_the_file_is_a_schedule(tmp_path):
    path = tmp_path / "curriculum.yaml"
    size = SIZES["smoke"]
    path.write_text(mixture_file(CONTESTANTS["direct"], size))
    schedule = read_schedule(str(path))
    assert schedule.length({}) == size.records_per_epoch
    shares = schedule.shares(1, epochs=size.epochs, counts=PAPER_COUNTS)
    expected = mixtures(CONTESTANTS["direct"], epochs=size.epochs, locating=size.locating)[1]
    assert shares == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("contestant", CONTESTANTS.values(), ids=lambda contestant: contestant.name)
def test_where_no_point_is_marked_as_many_questions_give_coordinates(contestant):
    marked, told = (mixtures(contestant, epochs=EPOCHS, locating=0, marked=marked) for marked in (True, False))
    for one, other in zip(marked, told, strict=True):
        assert not set(other) & set(MARKED_TASKS)
        for kind in ("chain", "direct", "atomic"):
            assert of_kind(one, kind) == pytest.approx(of_kind(other, kind))


def test_who_differs_in_marks_alone_does_not_run_without_them():
    names = {run.name for run in runs(seeds=[0], marked=False)}
    assert {run.name for run in runs(seeds=[0])} - names == {"no_coordinates-0"}


def test_the_main_contrast_comes_first_with_all_seeds():
    order = [run.name for run in runs(seeds=[0, 1])]
    values = (
        "direct_fresh",
        "map_values_fresh",
        "map_values_chains",
        "map_values",
        "readings",
        "values",
        "map_values_bottleneck",
        "map_practice",
        "map_swapped",
        "map_first",
        "map_beside",
        "map_guided",
        "map_guided_answers",
        "map_interpolated",
    )
    assert order[:36] == [
        *("direct-0", "full-0", "direct-1", "full-1"),
        *(f"{name}-{seed}" for seed in (0, 1) for name in values),
        *("no_coordinates-0", "plain_text-0", "no_coordinates-1", "plain_text-1"),
    ]
    assert len(order) == len(set(order)) == 2 * len(CONTESTANTS)
    groups = [run.contestant.group for run in runs(seeds=[0])]
    assert groups == sorted(groups, key=GROUPS.index)
