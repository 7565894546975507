"""The patches LLaVA needs before anything else here can run: which are in a source tree, put them in, take them out.

Works on the text of the files alone and imports no LLaVA, so that it serves an unpacked source distribution, a git
clone and an installed package alike. Each file's own sequence of patches is looked at: a tree is known if every file
equals the original with the first k of them applied. So an interrupted run is completed by the next one, and any
other difference at a patched place is refused before a single file is touched.
"""

import os
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_file

LLAVA_VERSION = "1.2.2.post1"


class State(str, Enum):
    """Where a patch stands in a source tree."""

    APPLIED = "applied"
    PENDING = "pending"
    CONFLICT = "conflict"  # some file is neither as LLaVA has it nor as the patch leaves it


@dataclass(frozen=True)
class Patch:
    """One file of the queue. `files` are the paths it changes, relative to the folder that contains `llava/`."""

    name: str
    path: Path
    description: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class _File:
    """A file of the tree with its own sequence of patches, the first `applied` of which are in."""

    path: Path
    patches: tuple[Patch, ...]
    applied: int
    conflict: Patch | None
    text: bytes
    pristine: bytes
    patched: bytes


def patch_directory() -> Path:
    """The shipped queue. In a checkout it is a link to `patches/` at the root, so that a wheel carries it too.

    Raises:
        AuroraError: if it is not there.
    """
    directory = Path(__file__).resolve().parent / "patches"
    if not (directory / "series").is_file():
        raise AuroraError(f"{directory}: the patch queue is missing; reinstall llava-aurora")
    return directory


def read_series(directory: str | Path | None = None) -> tuple[Patch, ...]:
    """The patches in the order in which they are applied; from `patch_directory()` unless told otherwise.

    Raises:
        AuroraError: if a patch that `series` names is missing or has no Description or no file in it.
    """
    directory = Path(directory) if directory is not None else patch_directory()
    names = [line.strip() for line in (directory / "series").read_text(encoding="utf-8").splitlines()]
    return tuple(_read_patch(directory / name) for name in names if name and not name.startswith("#"))


def status(source: str | Path, *, directory: str | Path | None = None) -> dict[Patch, State]:
    """Which patches are in the LLaVA at `source`, in the order of the series. Changes nothing.

    Args:
        source: the folder that contains `llava/`: an unpacked source distribution, a clone, or site-packages.
        directory: the patch queue; the shipped one by default.

    Raises:
        AuroraError: if `source` has no folder `llava`, or git is missing.
    """
    patches = read_series(directory)
    states = dict.fromkeys(patches, State.APPLIED)
    for file in _examine(Path(source), patches):
        for position, patch in enumerate(file.patches):
            if patch == file.conflict:
                states[patch] = State.CONFLICT
            elif position >= file.applied and states[patch] is State.APPLIED:
                states[patch] = State.PENDING
    return states


def apply(source: str | Path, *, directory: str | Path | None = None) -> int:
    """Puts in what is missing of the queue. Returns how many files were rewritten; 0 if all was in place.

    Raises:
        AuroraError: if some file is neither pristine nor patched (named, with the patch); nothing was changed then.
            Or as `status` does, or if a file cannot be written.
    """
    files = _known(Path(source), directory)
    return _write([(file, file.patched) for file in files])


def reverse(source: str | Path, *, directory: str | Path | None = None) -> int:
    """Takes the queue out; the files are then byte for byte as LLaVA has them. Returns how many were rewritten.

    Raises:
        AuroraError: as `apply` does.
    """
    files = _known(Path(source), directory)
    return _write([(file, file.pristine) for file in files])


def _read_patch(path: Path) -> Patch:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise AuroraError(f"{path}: named in series, but cannot be read: {error.strerror}") from error
    description = next((line.partition(":")[2].strip() for line in lines if line.startswith("Description:")), "")
    files = tuple(line.removeprefix("+++ b/") for line in lines if line.startswith("+++ b/"))
    if not description or not files:
        raise AuroraError(f"{path}: a patch needs a Description line and at least one '+++ b/FILE' line")
    return Patch(name=path.stem, path=path, description=description, files=files)


def _known(source: Path, directory: str | Path | None) -> list[_File]:
    files = _examine(source, read_series(directory))
    for file in files:
        if file.conflict is not None:
            raise AuroraError(
                f"{file.path}: neither as LLaVA {LLAVA_VERSION} has it nor as patch {file.conflict.name} leaves it; "
                f"nothing was changed. Use an unmodified LLaVA {LLAVA_VERSION}"
            )
    return files


def _examine(source: Path, patches: tuple[Patch, ...]) -> list[_File]:
    if not (source / "llava").is_dir():
        raise AuroraError(f"{source}: no folder llava in it; name the folder that contains LLaVA's package")
    names = dict.fromkeys(name for patch in patches for name in patch.files)
    return [_examine_file(source / name, name, tuple(p for p in patches if name in p.files)) for name in names]


def _examine_file(path: Path, name: str, patches: tuple[Patch, ...]) -> _File:
    """Finds the largest k for which the first k patches can be taken out again; the others must then go in."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return _File(path, patches, 0, patches[0], b"", b"", b"")
    except OSError as error:
        raise AuroraError(f"{path}: cannot be read: {error.strerror}") from error
    candidates = ((k, _take_out(text, name, patches[:k])) for k in range(len(patches), -1, -1))
    applied, pristine = next((k, result) for k, result in candidates if result is not None)  # k = 0 always does
    patched = text
    for patch in patches[applied:]:
        result = _git_apply(patch, name, patched)
        if result is None:
            return _File(path, patches, applied, patch, text, pristine, patched)
        patched = result
    return _File(path, patches, applied, None, text, pristine, patched)


def _take_out(text: bytes, name: str, patches: tuple[Patch, ...]) -> bytes | None:
    for patch in reversed(patches):
        result = _git_apply(patch, name, text, "--reverse")
        if result is None:
            return None
        text = result
    return text


def _git_apply(patch: Patch, name: str, text: bytes, *options: str) -> bytes | None:
    """The text of the file called `name` after the patch; None if the patch does not fit it.

    git runs in an empty folder of its own, is kept from looking for a repository above it (inside one it silently
    skips every path that is not below its root) and from the user's settings (which may rewrite blanks).
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C"}
    with tempfile.TemporaryDirectory(prefix="llava-aurora-patch-") as folder:
        root = Path(folder).resolve()
        file = root / name
        file.parent.mkdir(parents=True)
        file.write_bytes(text)
        command = ["git", "apply", "--whitespace=nowarn", f"--include={name}", *options, str(patch.path.resolve())]
        try:
            run = subprocess.run(
                command,
                cwd=root,
                env=environment | {"GIT_CEILING_DIRECTORIES": str(root.parent)},
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise AuroraError("git was not found; install it (apt-get install git)") from error
        result = file.read_bytes()
    if run.returncode == 1:
        return None
    if run.returncode != 0 or result == text:
        reason = run.stderr.strip().splitlines()[0] if run.stderr.strip() else "git reports success and changed nothing"
        raise AuroraError(f"{patch.path}: git apply failed on {name}: {reason}")
    return result


def _write(files: list[tuple[_File, bytes]]) -> int:
    """Writes every changed text under a temporary name first; only when all are on disk do they take their places."""
    changed = [(file.path, text) for file, text in files if text != file.text]
    modes = {path: path.stat().st_mode & 0o777 for path, _ in changed}
    with ExitStack() as stack:
        for path, text in changed:
            stack.enter_context(atomic_file(path)).write_bytes(text)
    for path, mode in modes.items():
        path.chmod(mode)
    return len(changed)
