"""Whoever waits for a large file sees how far it is; a small one is read in silence."""

import json

import pytest

from llava_aurora.data.store import record_progress
from llava_aurora.data.store.record_conversion import convert_records
from llava_aurora.data.store.record_file import check_records
from llava_aurora.data.store.record_store import RecordStore


def test_a_small_file_is_read_in_silence(workshop, capfd):
    RecordStore.open(workshop.records)
    assert capfd.readouterr() == ("", "")


def test_a_large_file_is_named_on_stderr_once(workshop, capfd, monkeypatch):
    monkeypatch.setattr(record_progress, "BYTES_WORTH_A_LINE", 1000)
    for _ in range(2):
        RecordStore.open(workshop.records)
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.count(f"{workshop.records.name}: reading it once") >= 1
    assert told.err.count("━") > 0
    RecordStore.open(workshop.records)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_bytes_are_counted_up_to_the_last(workshop, tmp_path, suffix):
    folder = tmp_path / "parts"
    folder.mkdir()
    for number in range(2):
        convert_records(workshop.records, folder / f"{number}.{suffix}")
    sizes = [part.stat().st_size for part in sorted(folder.iterdir())]
    for path, size in ((folder, sum(sizes)), (folder / f"0.{suffix}", sizes[0])):
        if path == folder and suffix == "json":
            continue  # a folder of JSON lists is no format
        told = []
        assert list(check_records(path, progress=told.append)) == json.loads(workshop.records.read_text()) * (
            2 if path == folder else 1
        )
        assert told == sorted(told)
        assert told[-1] == size
