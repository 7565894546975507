"""Files and folders that appear under their final name only when they are whole.

Everything is written beside its destination under a hidden temporary name and renamed at the end, so that a killed run,
a full disk or an exception leaves what was there before untouched. Temporary names carry the id of their process:
what a process that no longer lives has left behind is removed by the next one that writes into the same folder.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from llava_aurora.errors import AuroraError

STAGING_PREFIX = ".saving-"
# .NAME-MACHINE.PROCESS.RANDOM, with the suffix of a file or .old for the folder that is being replaced
_TEMPORARY = re.compile(r"\.(?P<name>.+)-(?P<machine>[\da-f]{8})\.(?P<process>\d+)\.[\da-f]{8}(?P<old>\.old)?(\.\w+)?")


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path with the same suffix; renames it to `path` if the block succeeds.

    Raises AuroraError if the file system refuses (disk full, no permission); the old `path` is still there.
    """
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        temporary = path.with_name(f".writing-{_tag()}{path.suffix}")
        try:
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # the block may have put a file of another mode there
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder; puts it in the place of `path` if the block succeeds.

    An older folder of that name is moved aside first and removed only once the new one is in place. Raises AuroraError
    if the file system refuses; the old folder is still there.
    """
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        temporary = path.with_name(f".{path.name}-{_tag()}")
        older = temporary.with_name(temporary.name + ".old")
        try:
            temporary.mkdir()
            yield temporary
            set_usual_modes(temporary)
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

    For a folder that holds other things as well, such as the output folder of a training run. Raises AuroraError if the
    file system refuses; the older files in `folder` are still there.
    """
    folder = Path(folder)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        staging = folder / f"{STAGING_PREFIX}{_tag()}"
        try:
            staging.mkdir()
            yield staging
            set_usual_modes(staging)
            for entry in sorted(staging.iterdir()):
                destination = folder / entry.name
                if entry.is_dir():
                    shutil.rmtree(destination, ignore_errors=True)
                os.replace(entry, destination)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def set_usual_modes(folder: Path) -> None:
    """Lets every file below `folder` be read and written by those who may read and write `folder`.

    safetensors makes its files readable by their owner alone.
    """
    shared = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | shared)


@cache
def remove_leftovers(folder: Path) -> None:
    """Removes temporary files and folders in `folder` whose process no longer lives; once in a process.

    Where that process was about to replace a folder and had moved the older one aside already, the new one, which was
    whole by then, takes its place.
    """
    if not folder.is_dir():
        return
    found = [(entry, match) for entry in folder.iterdir() if (match := _TEMPORARY.fullmatch(entry.name))]
    dead = [(entry, match) for entry, match in found if match["machine"] == _machine() and not _lives(match["process"])]
    for entry, match in sorted(dead, key=lambda pair: pair[1]["old"] is None):  # the older folders first
        newer, final = entry.with_name(entry.name.removesuffix(".old")), folder / match["name"]
        with suppress(OSError):  # another process does the same
            if match["old"] and not final.exists():
                os.replace(newer, final)
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _tag() -> str:
    return f"{_machine()}.{os.getpid()}.{secrets.token_hex(4)}"


@cache
def _machine() -> str:
    """Where process ids are unique: a machine, and in it a container. Several may write into one folder."""
    container = os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else ""
    return hashlib.sha256(f"{os.uname().nodename} {container}".encode()).hexdigest()[:8]


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    return True


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically; halves of surrogate pairs, which UTF-8 cannot hold, as JSON escapes them."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: Any, *, indent: int | None = 2) -> None:
    """Writes `value` as JSON, atomically."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def half_character(text: str) -> str | None:
    """The first half of a surrogate pair in a text, escaped; None in a text that tokenizers and UTF-8 can hold."""
    found = None if text.isascii() else re.search(r"[\ud800-\udfff]", text)
    return ascii(found[0]) if found else None


def regular_file(path: str | Path, *, what: str) -> Path:
    """The path of a file that is there. Raises AuroraError for anything else: reading a pipe would never end."""
    path = Path(path)
    if not path.is_file():
        raise AuroraError(
            f"{path}: cannot read the {what}: {'not a regular file' if path.exists() else 'No such file or directory'}"
        )
    return path


def read_text(path: str | Path, *, what: str) -> str:
    """The content of a UTF-8 file; `what` names its role in errors ("training records", "VQ-VAE configuration").

    Raises AuroraError if it is missing, no regular file, not readable or not UTF-8.
    """
    try:
        return regular_file(path, what=what).read_text(encoding="utf-8")
    except OSError as error:
        raise AuroraError(f"{path}: cannot read the {what}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AuroraError(f"{path}: cannot read the {what}: {error}") from error


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for what is no JSON, and for JSON that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: str | Path, *, what: str) -> Any:
    """Reads a JSON file; `what` as for `read_text`.

    Raises AuroraError as `read_text`, or if it is no JSON, with line and column.
    """
    try:
        return parse_json(read_text(path, what=what))
    except ValueError as error:
        raise AuroraError(f"{path}: the {what} are not valid JSON: {error}") from error


def read_json_object(path: str | Path, *, what: str) -> dict[str, Any]:
    """Reads a JSON file that holds an object. Raises AuroraError as `read_json`, or if it holds anything else."""
    content = read_json(path, what=what)
    if not isinstance(content, dict):
        raise AuroraError(f"{path}: the {what} must be a JSON object, not {type(content).__name__}")
    return content


def read_json_lines(path: str | Path, *, what: str) -> Iterator[tuple[str, Any]]:
    """The values of a JSONL file, each with its place ("FILE, line 3") for messages; blank lines are skipped.

    Lines end at line feeds only: JSON text may hold other Unicode line separators. Raises AuroraError as `read_text`,
    or naming the line that is no JSON.
    """
    for number, line in enumerate(read_text(path, what=what).split("\n"), start=1):
        if line.strip():
            try:
                value = parse_json(line)
            except ValueError as error:
                raise AuroraError(f"{path}, line {number}: not valid JSON: {error}") from error
            yield f"{path}, line {number}", value


@contextmanager
def undamaged(path: str | Path, remedy: str) -> Iterator[None]:
    """For a block that reads what this project wrote into a file: other keys or types in it are one AuroraError."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise AuroraError(f"{path}: is damaged ({type(error).__name__}: {error}); {remedy}") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error)
        reason = "disk full" if full else getattr(error, "strerror", None) or str(error)
        raise AuroraError(f"{path}: not written ({reason}); what was there before is unchanged") from error
    except RuntimeError as error:
        if "inline_container" not in str(error):  # raised by torch.save where a file cannot grow
            raise
        raise AuroraError(f"{path}: not written (disk full?); what was there before is unchanged") from error
