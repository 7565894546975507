"""Files of JSON lines: continued where they were cut off, and left alone if they are somebody else's."""

import json

import pytest

from llava_aurora.errors import AuroraError
from llava_aurora.line_file import LineFile

LINES = [{"id": str(number), "text": f"é\u2028{number}"} for number in range(3)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "lines.jsonl"


def lines_of(path):
    return LineFile(path, keys=("id", "text"), what="answer")


def test_lines_come_back_and_are_added_to(path):
    assert lines_of(path).read() == []
    lines_of(path).append(LINES[:1])
    file = lines_of(path)
    file.append(LINES[1:2])
    file.append(LINES[2:])
    assert lines_of(path).read() == LINES
    assert len(path.read_bytes().splitlines()) == len(path.read_bytes().split(b"\n")) - 1 == 3


@pytest.mark.parametrize("cut", range(1, 22))
def test_a_file_that_was_cut_off_anywhere_is_continued(path, cut):
    lines_of(path).append(LINES)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    kept = lines_of(path).read()
    assert kept == LINES[: len(kept)]
    assert path.read_bytes() == whole[:-cut], "reading changes nothing"
    lines_of(path).append(LINES[len(kept) :])
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [
        '{"id": "0"}',
        '{"id": "0"}\n',
        "no json",
        "no json\n",
        "[1]\n",
        '{"text": "a", "id": "0"}\n',
        '{"id": "an',
        "[" * 99999,
    ],
)
def test_what_something_else_has_written_is_not_touched(path, content):
    path.parent.mkdir()
    path.write_text(content)
    for use in (lambda file: file.read(), lambda file: file.append(LINES)):
        with pytest.raises(AuroraError, match=r"lines.jsonl: line 1 is no answer"):
            use(lines_of(path))
    assert path.read_text() == content
    path.write_text(json.dumps(LINES[0]) + "\n" + content)
    if content != '{"id": "an':  # behind a line of ours this is one that was cut off
        with pytest.raises(AuroraError, match=r"lines.jsonl: line 2 is no answer"):
            lines_of(path).append(LINES)


def test_what_the_file_system_refuses_is_one_line(path, tmp_path):
    with pytest.raises(AuroraError, match="cannot read the lines"):
        lines_of(tmp_path).read()
    (tmp_path / "new").write_text("a file")
    with pytest.raises(AuroraError, match="not written"):
        lines_of(path).append(LINES)
