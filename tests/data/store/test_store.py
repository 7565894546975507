"""A record store is the JSON file's list, mapped from one file that whoever comes first has written."""

import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from torch.utils.data import DataLoader

from llava_aurora.data.store import record_store as store_module
from llava_aurora.data.store.record_file import read_records
from llava_aurora.data.store.record_store import RecordStore, cache_folder
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.registry import task_names
from llava_aurora.tokens.vocabulary import depth_family, pixel_family

DEPTH, PIXELS = depth_family(codebook_size=16, codes_per_map=9), pixel_family(frame=56)


@pytest.fixture
def stored(workshop):
    return RecordStore.open(workshop.records, families=[DEPTH, PIXELS])


def test_it_is_the_list_of_the_file(stored, workshop, monkeypatch):
    records = json.loads(workshop.records.read_text())
    assert len(stored) == len(records)
    assert list(stored) == records
    assert (stored[-1], stored[2:4]) == (records[-1], records[2:4])
    with pytest.raises(IndexError):
        stored[len(records)]
    monkeypatch.setattr(store_module, "RECORDS_PER_BATCH", 5)
    assert list(RecordStore.open(workshop.records)) == records


def test_odd_but_valid_content_survives(tmp_path):
    turns = [{"from": "human", "value": "é 中?"}, {"from": "gpt", "value": "\x00"}]
    records = [{"id": "\ud800", "conversations": turns, "x": {"y": [1e300, None, {"": -0.0}], "n": 10**30}}]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(records))
    assert list(RecordStore.open(path)) == records


def test_columns_tell_task_and_length_without_reading_records(stored, workshop):
    records = read_records(workshop.records)
    names = [task_names()[code] for code in stored.tasks]
    expected = [record["aurora"]["task"].removesuffix("_of_none") for record in records]
    assert names == expected
    assert stored.task_counts() == {name: expected.count(name) for name in task_names() if name in expected}
    assert stored.tasks.dtype == np.int8
    words = [sum(len(turn["value"].split()) for turn in record["conversations"]) for record in records]
    tokens = [
        sum(turn["value"].count("<DEPTH_") + turn["value"].count("<PIXEL_") for turn in record["conversations"])
        for record in records
    ]
    assert stored.lengths.tolist() == [a + b for a, b in zip(words, tokens, strict=True)]


def test_lengths_without_an_image_are_negative(tmp_path):
    turns = [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "2"}]
    path = tmp_path / "train.json"
    path.write_text(json.dumps([{"conversations": turns}]))
    assert RecordStore.open(path).lengths.tolist() == [-3]


def test_a_selection_knows_its_rows(stored):
    chosen = stored.select(np.array([5, 3, 8]))
    again = chosen.select(np.array([2, 0]))
    assert [record["id"] for record in again] == [stored[8]["id"], stored[5]["id"]]
    assert [again.row(0), again.row(-1)] == [8, 5]
    assert again.lengths.tolist() == stored.lengths[[8, 5]].tolist()
    assert again.images.tolist() == stored.images[[8, 5]].tolist()


def test_a_file_is_converted_once_and_again_when_it_or_what_is_checked_changes(tmp_path, cache, workshop):
    path = tmp_path / "train.json"
    records = json.loads(workshop.records.read_text())
    path.write_text(json.dumps(records))

    def files(**arguments):
        RecordStore.open(path, **arguments)
        return sorted(file.name for file in cache.glob("*.arrow"))

    assert files() == files()
    assert len(files(families=[DEPTH])) == 2
    path.write_text(json.dumps(records[:-1]))
    assert len(files()) == 1
    assert len(RecordStore.open(path)) == len(records) - 1


def test_files_of_earlier_states_go_and_those_of_other_sources_and_checks_stay(tmp_path, cache, workshop):
    path, other = tmp_path / "train.json", tmp_path / "elsewhere" / "train.json"
    other.parent.mkdir()
    for each in (path, other):
        shutil.copy(workshop.records, each)
    earlier = RecordStore.open(path)
    kept = RecordStore.open(other)
    path.write_text(json.dumps(json.loads(workshop.records.read_text())[:3]))
    checked, unchecked = RecordStore.open(path, families=[DEPTH, PIXELS]), RecordStore.open(path)
    assert {each.file for each in (kept, checked, unchecked)} == set(cache.glob("*.arrow"))
    assert list(earlier) == list(kept)  # it is mapped still


def test_nothing_is_kept_of_a_file_that_is_refused(tmp_path, cache):
    path = tmp_path / "train.json"
    path.write_text("[{}]")
    with pytest.raises(AuroraError, match="record 0"):
        RecordStore.open(path)
    assert not list(cache.glob("*.arrow"))


def test_a_broken_store_names_the_file_to_delete(stored):
    stored.file.write_bytes(b"no arrow")
    with pytest.raises(AuroraError, match=r"\.arrow: not readable .* delete it"):
        RecordStore(stored.file, source=stored.source)


def test_a_cache_that_cannot_be_written_names_the_variable(workshop, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLAVA_AURORA_CACHE", str(tmp_path / "file" / "folder"))
    with pytest.raises(AuroraError, match="set LLAVA_AURORA_CACHE to a folder that can be written"):
        RecordStore.open(workshop.records)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("LLAVA_AURORA_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("LLAVA_AURORA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "llava_aurora"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "llava_aurora"


def test_a_rank_reads_it_without_pandas(workshop):
    """pyarrow imports that whenever it is installed and an array is asked for as NumPy's: 27 MB in each rank."""
    written = RecordStore.open(workshop.records)
    reading = (
        "import sys; from llava_aurora.data.store.record_store import RecordStore;"
        "store = RecordStore.open(sys.argv[1]);"
        "print(len(store.tasks), len(store.lengths), len(store.images), len(store[0]) > 0, 'pandas' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", reading, workshop.records], capture_output=True, text=True)
    assert run.stdout.split() == [str(len(written))] * 3 + ["True", "False"], run.stderr


def test_a_pickle_holds_the_path_and_not_the_records(stored):
    chosen = stored.select(np.array([4, 1]))
    assert len(pickle.dumps(chosen)) < 1000


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_loader_read_it(stored, method):
    loader = DataLoader(
        stored,
        batch_size=16,
        num_workers=1,
        collate_fn=list,
        multiprocessing_context=multiprocessing.get_context(method),
    )
    assert [record for batch in loader for record in batch] == list(stored)


def test_processes_that_come_together_convert_once(workshop, cache, tmp_path, monkeypatch):
    convert, log = store_module._convert, tmp_path / "conversions"

    def logged(*arguments):
        with log.open("a") as file:
            file.write("once\n")
        convert(*arguments)

    monkeypatch.setattr(store_module, "_convert", logged)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    ranks = [context.Process(target=lambda: queue.put(len(RecordStore.open(workshop.records)))) for _ in range(4)]
    for rank in ranks:
        rank.start()
    lengths = [queue.get(timeout=120) for _ in ranks]
    for rank in ranks:
        rank.join()
    assert lengths == [64] * 4
    assert log.read_text() == "once\n"
