"""Record stores of small generated files, in a cache of each test's own."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llava_aurora.data.store.record_store import RecordStore


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("LLAVA_AURORA_CACHE", str(folder))
    return folder


def plain_record(number: int, task: str | None, image: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>\nHow?"}, {"from": "gpt", "value": "So."}]
    record = {"id": f"{image}/{task}/{number}", "image": image, "conversations": turns}
    return record if task is None else {**record, "aurora": {"task": task}}


@pytest.fixture
def make_store(tmp_path) -> Callable[..., RecordStore]:
    """A store with as many records of each task as asked for, record i of a task about image i of its domain."""

    def make(
        counts: Mapping[str | None, int], *, images: Callable[[str | None, int], str] | None = None
    ) -> RecordStore:
        named = images or (lambda task, number: f"{'marked' if task and 'generation' not in task else 'plain'}{number}")
        records = [plain_record(n, task, named(task, n)) for task, count in counts.items() for n in range(count)]
        path = tmp_path / f"records-{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps(records))
        return RecordStore.open(path)

    return make
