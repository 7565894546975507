"""Guards existing files and folders: a command replaces or continues its own output and touches nothing else."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json, write_json

_BEGINNING = 1 << 16  # bytes of a file by which it is recognized


def refuse_other_file(path: str | Path, what: str, recognize: Callable[[bytes], bool]) -> None:
    """Looks at a file that is about to be replaced.

    Args:
        path: of the file, which need not exist.
        what: is to be written there, for the message.
        recognize: whether the beginning of a file is that of such a file. One without content may be replaced.
    Raises AuroraError if there is anything else.
    """
    path = Path(path)
    if not path.exists():
        return
    try:
        beginning = path.open("rb").read(_BEGINNING) if path.is_file() else None
    except OSError as error:
        raise AuroraError(f"{path}: cannot be read before it is replaced: {error.strerror}") from error
    if beginning is None or (beginning and not recognize(beginning)):
        raise AuroraError(f"{path}: already exists and holds no {what}; choose another file, or remove it")


def claim_folder(folder: str | Path, header: str, settings: Mapping[str, Any], *, what: str) -> None:
    """Writes down in a folder what its files are made with, or checks that they are made with the same.

    Args: folder: to be written into; settings: what the files are made with, as JSON can hold it.
    Raises AuroraError if the folder holds anything but such files, or was written with other settings.
    """
    folder, path = Path(folder), Path(folder) / header
    settings = json.loads(json.dumps(settings))
    foreign = folder.exists() and not (folder.is_dir() and all(entry.name[0] == "." for entry in folder.iterdir()))
    if not path.exists():  # after the folder was looked at: another process may claim it meanwhile
        if foreign:
            raise AuroraError(f"{folder}: is not empty, not a folder of {what} ({header} is missing); choose another")
        write_json(path, settings)
        return
    before, now = _flat(read_json(path, what=f"settings of the {what}")), _flat(settings)
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            raise AuroraError(
                f"{folder}: holds {what} made with {name} {before.get(name)}, not {now.get(name)}; choose another"
            )


def _flat(settings: Any) -> dict[str, Any]:
    """Settings with those of groups among the others."""
    items = settings.items() if isinstance(settings, dict) else ()
    return {key: each for name, value in items for key, each in (_flat(value) or {name: value}).items()}
