"""Files under a folder: found behind links, the rest counted by kind."""

import os
from pathlib import Path

import pytest

from llava_aurora.errors import AuroraError
from llava_aurora.found_files import find_files


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


def test_links_are_followed_loops_end_and_the_rest_is_counted(tmp_path):
    """The shape of LLaVA's playground/data: links to folders elsewhere, among other things."""
    root = tmp_path / "data"
    for name in ("a.png", "near/B.PNG", "notes.txt", "README", ".half.png", ".cache/c.png"):
        write(root / name)
    for name in ("d.png", "deep/e.png"):
        write(tmp_path / "elsewhere" / name)
    (root / "coco").symlink_to(tmp_path / "elsewhere")
    (root / "f.png").symlink_to(tmp_path / "elsewhere" / "d.png")
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "near" / "self").symlink_to(root)
    (tmp_path / "elsewhere" / "deep" / "up").symlink_to("..")
    os.mkfifo(root / "pipe.png")
    found = find_files(root, (".png",))
    names = [path.relative_to(root).as_posix() for path in found.paths]
    assert names == ["a.png", "coco/d.png", "coco/deep/e.png", "f.png", "near/B.PNG"]
    assert found.passed_over == {
        ".txt files": 1,
        "files without a suffix": 1,
        "hidden entries": 2,
        "broken links": 1,
        "special files": 1,
        "links to a folder that they lie in": 2,
    }


def test_a_folder_that_cannot_be_read_is_counted(tmp_path, monkeypatch):
    write(tmp_path / "a.png")
    write(tmp_path / "closed" / "b.png")
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_files(tmp_path, (".png",))
    assert found.paths == [tmp_path / "a.png"]
    assert found.passed_over == {"unreadable folders": 1}


def test_a_folder_without_such_files_is_refused(tmp_path):
    with pytest.raises(AuroraError, match="nowhere: no such folder"):
        find_files(tmp_path / "nowhere", (".png",))
    write(tmp_path / "a.tiff")
    with pytest.raises(AuroraError, match=r"holds none of \.png; passed over: 1 \.tiff files"):
        find_files(tmp_path, (".png",))
