"""A streamed JSON list gives what json.loads gives, and the same errors, wherever the pieces are cut."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_aurora.data.store import record_file
from llava_aurora.data.store.record_file import check_records, read_records
from llava_aurora.errors import AuroraError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def record(**more):
    turns = [{"from": "human", "value": "<image>\nHow?"}, {"from": "gpt", "value": '[{]}, "so" é\n'}]
    return {"image": "0.png", "conversations": turns, **more}


@settings(max_examples=50)
@given(
    extras=st.lists(VALUES, min_size=1, max_size=4),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    piece=st.sampled_from([1, 7, 64, 1 << 20]),
)
def test_records_of_any_shape_survive_any_cut(tmp_path_factory, extras, indent, ascii_only, piece):
    records = [record(extra=extra) for extra in extras]
    path = tmp_path_factory.mktemp("records") / "train.json"
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_only)
    path.write_bytes(b" " + text.encode("utf-8", "surrogatepass") + b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_file, "CHARACTERS_PER_READ", piece)
        assert list(check_records(path)) == read_records(path) == records


GOOD = json.dumps(record())


@pytest.mark.parametrize(
    "content",
    [
        f"[{GOOD}",
        f"[{GOOD},",
        f"[{GOOD},]",
        f"[{GOOD} {GOOD}]",
        f"[{GOOD}] x",
        "[] x",
        f"\ufeff[{GOOD}]",
        '[{"a": 1,, "b": 2}]',
        "",
        b'["\xff"]',
    ],
)
@pytest.mark.parametrize("piece", [3, 1 << 20])
def test_broken_json_is_told_as_json_loads_tells_it(tmp_path, monkeypatch, content, piece):
    monkeypatch.setattr(record_file, "CHARACTERS_PER_READ", piece)
    path = tmp_path / "train.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as expected:  # noqa: PT011
        json.loads(path.read_text(encoding="utf-8"))
    with pytest.raises(AuroraError) as error:
        list(check_records(path))
    told = (
        "cannot read the training records" if isinstance(content, bytes) else "the training records are not valid JSON"
    )
    assert str(error.value) == f"{path}: {told}: {expected.value}"
