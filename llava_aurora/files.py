"""Files and folders that appear under their final name only when they are whole.

Everything is written beside its destination under a temporary name and renamed at the end, so that a killed run,
a full disk or an exception leaves what was there before untouched.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from llava_aurora.errors import AuroraError

STAGING_PREFIX = ".saving-"


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path with the same suffix; renames it to `path` if the block succeeds.

    Raises:
        AuroraError: if the file system refuses (disk full, no permission); the old `path` is still there.
    """
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder; puts it in the place of `path` if the block succeeds.

    An older folder of that name is moved aside first and removed only once the new one stands.

    Raises:
        AuroraError: if the file system refuses; the old folder is still there.
    """
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        older = temporary.with_name(temporary.name + ".old")
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            if path.exists():
                os.replace(path, older)
            try:
                os.replace(temporary, path)
            except OSError:
                if older.exists():
                    os.replace(older, path)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(older, ignore_errors=True)


@contextmanager
def staged_into(folder: str | Path) -> Iterator[Path]:
    """Yields a temporary folder; moves each of its files and folders into `folder` if the block succeeds.

    For a folder that holds other things as well, such as the output folder of a training run.

    Raises:
        AuroraError: if the file system refuses; the older files in `folder` are still there.
    """
    folder = Path(folder)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=folder))
        try:
            yield staging
            for entry in sorted(staging.iterdir()):
                destination = folder / entry.name
                if entry.is_dir():
                    shutil.rmtree(destination, ignore_errors=True)
                os.replace(entry, destination)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, *, indent: int | None = 2) -> None:
    """Writes `value` as JSON, atomically."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: str | Path, *, what: str) -> Any:
    """Reads a JSON file; `what` names its role in the error ("training records", "VQ-VAE configuration").

    Raises:
        AuroraError: if the file is missing or is no JSON, with line and column.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AuroraError(f"{path}: cannot read the {what}: {error.strerror}") from error
    except ValueError as error:
        raise AuroraError(f"{path}: the {what} are not valid JSON: {error}") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AuroraError(f"{path}: not written ({reason}); what was there before is unchanged") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
