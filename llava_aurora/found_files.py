"""Finds the files with given suffixes under a folder, through links, and counts all others."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llava_aurora.errors import AuroraError


@dataclass(frozen=True)
class FoundFiles:
    """What a folder holds."""

    # the files asked for, sorted; each begins with the folder as it was given
    paths: list[Path] = field(default_factory=list)
    # how many other entries there are, by kind: ".txt files", "hidden entries", "broken links", "links to a folder that
    # they lie in", "unreadable folders", "special files" (pipes, sockets, devices)
    passed_over: Counter[str] = field(default_factory=Counter)


def find_files(folder: str | Path, suffixes: Iterable[str]) -> FoundFiles:
    """All files of some suffixes under a folder, in folders inside and behind links too.

    Hidden files and folders (a name with a dot first) are passed over: they may be half written. A link to a folder
    that the link itself lies in is not followed, so that the search ends.

    Args:
        suffixes: in lower case with the dot; files may have them in upper case too.
    Raises AuroraError if it is no folder or holds no such file.
    """
    folder, suffixes = Path(folder), tuple(suffixes)
    if not folder.is_dir():
        raise AuroraError(f"{folder}: no such folder")
    found = FoundFiles()
    _search(folder, suffixes, found, ())
    if not found.paths:
        raise AuroraError(f"{folder}: holds none of {', '.join(suffixes)}{in_words(found.passed_over)}")
    found.paths.sort()
    return found


def in_words(passed_over: Mapping[str, int]) -> str:
    """'; passed over: 2 .txt files, 1 broken links', or nothing where nothing was."""
    counted = ", ".join(f"{number} {kind}" for kind, number in sorted(passed_over.items()))
    return f"; passed over: {counted}" if counted else ""


def _search(folder: Path, suffixes: tuple[str, ...], found: FoundFiles, above: tuple[tuple[int, int], ...]) -> None:
    """Adds what is in `folder` to `found`. `above`: device and inode of each folder on the way here."""
    try:
        status = folder.stat()
        entries = list(os.scandir(folder))
    except OSError:
        found.passed_over["unreadable folders"] += 1
        return
    if (status.st_dev, status.st_ino) in above:
        found.passed_over["links to a folder that they lie in"] += 1
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            found.passed_over["hidden entries"] += 1
        elif path.is_dir():
            _search(path, suffixes, found, (*above, (status.st_dev, status.st_ino)))
        elif path.is_file():
            if path.suffix.lower() in suffixes:
                found.paths.append(path)
            else:
                found.passed_over[f"{path.suffix.lower()} files" if path.suffix else "files without a suffix"] += 1
        else:
            found.passed_over["broken links" if entry.is_symlink() else "special files"] += 1
