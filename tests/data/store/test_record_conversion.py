"""Records survive any way between the formats, and a file that cannot be trained on is refused in each of them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_aurora.data.store import record_conversion
from llava_aurora.data.store.record_conversion import convert_records
from llava_aurora.data.store.record_file import read_records
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.errors import AuroraError

SUFFIXES = ("json", "jsonl", "parquet")
TEXT = st.text(alphabet=st.characters(codec=None), max_size=6)  # half surrogate pairs and NUL among them
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
COLUMNS = ("id", "image", "conversations", "aurora", "task", "other_fields")


@st.composite
def odd_records(draw):
    turns = [
        {"from": speaker, "value": draw(st.text(max_size=6)), **draw(st.dictionaries(TEXT, VALUES, max_size=1))}
        for _ in range(draw(st.integers(1, 2)))
        for speaker in ("human", "gpt")
    ]
    for turn, speaker in zip(turns, ("human", "gpt") * 2, strict=False):
        turn |= {"from": speaker, "value": turn["value"] if isinstance(turn["value"], str) else ""}
    record = draw(st.dictionaries(TEXT | st.sampled_from(COLUMNS), VALUES, max_size=4))
    record.pop("image", None)
    if draw(st.booleans()):
        turns[0]["value"] += "<image>"
        record["image"] = f"{draw(TEXT)}.jpg"
    if draw(st.booleans()):
        record["aurora"] = {"task": draw(st.sampled_from(["depth_chain", "own"])), "points": draw(VALUES)}
    return {**record, "conversations": turns}


def plain(**more):
    turns = [{"from": "human", "value": "<image>\nHow?"}, {"from": "gpt", "value": "é 中"}]
    return {"id": "x1", "image": "a/0.png", "conversations": turns, **more}


@settings(max_examples=80)
@given(records=st.lists(odd_records(), min_size=1, max_size=5), way=st.permutations(SUFFIXES))
def test_odd_records_survive_every_way(tmp_path_factory, records, way):
    folder = tmp_path_factory.mktemp("records")
    path = folder / "start.json"
    path.write_text(json.dumps(records))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_conversion, "RECORDS_PER_BATCH", 2)
        for number, suffix in enumerate((*way, "json")):
            out = folder / f"{number}.{suffix}"
            assert convert_records(path, out) == len(records)
            path = out
            assert repr(sorted_fields(read_records(path))) == repr(sorted_fields(records))


def sorted_fields(value):
    """With fields in one order: Parquet's columns have their own. `repr` tells 1 from 1.0 and from True."""
    if isinstance(value, dict):
        return {key: sorted_fields(value[key]) for key in sorted(value)}
    return [sorted_fields(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_store_holds_the_same_of_each_format(workshop, tmp_path, suffix):
    path = tmp_path / f"train.{suffix}"
    convert_records(workshop.records, path)
    ours, theirs = RecordStore.open(path), RecordStore.open(workshop.records)
    assert list(ours) == list(theirs)
    for column in ("tasks", "lengths", "images"):
        assert getattr(ours, column).tolist() == getattr(theirs, column).tolist()


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_folder_of_parts_is_read_by_name(tmp_path, suffix):
    folder = tmp_path / "parts"
    folder.mkdir()
    for number in (2, 0, 1):
        source = tmp_path / "part.json"
        source.write_text(json.dumps([plain(id=f"{number}-{index}") for index in range(2)]))
        convert_records(source, folder / f"train-{number}.{suffix}")
    (folder / "README.md").touch()
    (folder / f"._hidden.{suffix}").touch()
    expected = [f"{number}-{index}" for number in range(3) for index in range(2)]
    assert [record["id"] for record in RecordStore.open(folder)] == expected
    convert_records(folder, tmp_path / "whole.json")
    assert [record["id"] for record in json.loads((tmp_path / "whole.json").read_text())] == expected
    (folder / f"train-1.{suffix}").unlink()
    assert len(RecordStore.open(folder)) == 4
    with pytest.raises(AuroraError, match=r"is the input, or inside it"):
        convert_records(folder, folder / f"whole.{suffix}")


def test_parquet_has_columns_for_other_tools(workshop, tmp_path):
    path = tmp_path / "train.parquet"
    convert_records(workshop.records, path)
    table = pq.read_table(path)
    assert tuple(table.column_names) == COLUMNS
    records = read_records(workshop.records)
    for name in ("id", "image", "conversations"):
        assert table[name].to_pylist() == [record[name] for record in records]
    assert [json.loads(text) for text in table["aurora"].to_pylist()] == [record["aurora"] for record in records]
    assert table["task"].to_pylist()[:2] == ["depth_generation", "depth_chain"]
    assert table["other_fields"].null_count == len(records)


def test_parquet_of_others_is_read(tmp_path):
    turns = plain()["conversations"]
    columns = {
        "image": pa.array(["a.png", None]).dictionary_encode(),
        "conversations": pa.array([json.dumps(turns), json.dumps([{**turns[0], "value": "How?"}, turns[1]])]),
        "task": pa.array(["depth_chain", "own"]),
        "score": pa.array([0.5, None], pa.float32()),
        "boxes": pa.array([[[1, 2]], []]),
    }
    pq.write_table(pa.table(columns), tmp_path / "theirs.parquet")
    with_image, without = RecordStore.open(tmp_path / "theirs.parquet")
    assert with_image == {
        **{"image": "a.png", "conversations": turns, "aurora": {"task": "depth_chain"}},
        **{"score": 0.5, "boxes": [[1, 2]]},
    }
    assert set(without) == {"conversations", "boxes"}


def test_images_inside_parquet_are_unpacked_beside_it(tmp_path):
    pictures = [b"\x89PNG one", b"two", None, None]
    images = [
        {"bytes": each, "path": path} for each, path in zip(pictures, (None, "x.JPG", "mine.png", None), strict=True)
    ]
    columns = {"image": [*images, None], "conversations": [json.dumps(plain()["conversations"])] * 5}
    pq.write_table(pa.table(columns), tmp_path / "theirs.parquet")
    for _ in range(2):  # the second time they are there
        names = [record.get("image") for record in read_records(tmp_path / "theirs.parquet")]
        assert names == ["theirs.images/0000/0000000.png", "theirs.images/0000/0000001.jpg", "mine.png", None, None]
        assert [(tmp_path / name).read_bytes() for name in names[:2]] == pictures[:2]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, "has no column conversations; it has text"),
        ({"conversations": ["{"]}, "record 0: conversations is not valid JSON"),
        ({"conversations": ["[]"], "aurora": ["{"]}, "record 0: aurora is not valid JSON"),
        ({"conversations": ["[]"], "other_fields": ["[]"]}, "record 0: other_fields is not a JSON object"),
        ({"conversations": ["[]"], "id": ["x7"]}, r"record 0 \(id x7\): a conversation has at least"),
        (
            {"conversations": ["[]"], "image": [{"bytes": b"x", "name": "a"}]},
            "its column image is of type struct.*; a path as text or {bytes, path} is expected",
        ),
        ({"conversations": ["[]"], "bytes": [b"x"]}, "its column bytes is of type binary; text, numbers"),
    ],
)
def test_parquet_without_llavas_records_is_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    with pytest.raises(AuroraError, match=f"train.parquet: {message}"):
        RecordStore.open(tmp_path / "train.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"no parquet at all", "cannot read the training records"),
        ("a.jsonl", json.dumps(plain()).encode() + b"\n\n{\n", "line 3 is not valid JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not valid JSON: it is nested too deeply"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.jsonl", json.dumps(plain()).encode() + b"\n\n3\n", "record 1: not LLaVA's format"),
        ("a.jsonl", b'{"a": "\xff"}', "line 1 is not valid JSON"),
        ("a.jsonl", b"", "with at least one"),
        ("a.json", json.dumps([plain(image="a/../../b.png")]).encode(), r"record 0 \(id x1\): .* leads out of the"),
        ("a.json", json.dumps([plain(image=["a", 7])]).encode(), "its image is .*, not a path or a list of paths"),
        ("a.json", json.dumps([plain(image=["a", "b"])]).encode(), "has 2 images and 1 <image>; one for each"),
    ],
)
def test_other_files_are_refused_by_name_and_leave_nothing(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "out.json"
    out.write_text('[{"conversations": []}]')
    with pytest.raises(AuroraError, match=f"{name}: .*{message}|{name}: {message}"):
        convert_records(tmp_path / name, out)
    assert out.read_text() == '[{"conversations": []}]'
    assert {path.name for path in tmp_path.iterdir()} <= {name, "out.json", "cache"}


def test_missing_files_and_folders_without_records_are_refused(tmp_path):
    with pytest.raises(AuroraError, match=r"gone.parquet: cannot read the training records: .*No such file"):
        convert_records(tmp_path / "gone.parquet", tmp_path / "out.json")
    with pytest.raises(AuroraError, match=r"gone.jsonl: cannot read the training records: No such file"):
        RecordStore.open(tmp_path / "gone.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AuroraError, match="this one neither"):
        RecordStore.open(tmp_path / "empty")
    for suffix in ("jsonl", "parquet"):
        (tmp_path / "empty" / f"a.{suffix}").touch()
    with pytest.raises(AuroraError, match="this one both"):
        RecordStore.open(tmp_path / "empty")


def test_what_cannot_be_written_is_refused(workshop, tmp_path):
    with pytest.raises(AuroraError, match=r"out.csv: the suffix must be one of .json, .jsonl, .parquet"):
        convert_records(workshop.records, tmp_path / "out.csv")
    with pytest.raises(AuroraError, match="is the input"):
        convert_records(workshop.records, workshop.records)
