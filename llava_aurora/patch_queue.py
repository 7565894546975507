"""Applies the patches that LLaVA needs to its source, reverses them, and tells which are applied.

Works on the text of the files alone and imports nothing that has to be installed, so that it serves an unpacked source
distribution, a git clone and an installed package alike, and set-up can ask before it downloads anything. A tree is
known if every file equals the original with the first k of its patches applied. So an interrupted run is completed by
the next one, and any other difference at a patched place is refused before a single file is changed.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from llava_aurora.errors import AuroraError

LLAVA_VERSION = "1.2.2.post1"


class State(str, Enum):
    """The state of a patch in a source tree."""

    APPLIED = "applied"  # also if LLaVA's own source has the change already
    PENDING = "pending"
    CONFLICT = "conflict"  # some file is neither as LLaVA has it nor as the patch leaves it


@dataclass(frozen=True)
class Patch:
    """One file of the queue."""

    name: str  # of the file, without its suffix
    path: Path  # of the file
    description: str  # first line of its header's Description
    upstream_has: str  # a line by which a file shows that a newer LLaVA has the change already; empty if none has
    # the text before and after each change, by the path of the changed file, relative to the folder that contains
    # `llava/`
    hunks: dict[str, list[tuple[bytes, bytes]]]

    def __hash__(self) -> int:
        return hash(self.path)

    def concerns(self, name: str, text: bytes) -> bool:
        """Whether it changes the file called `name`, given its text."""
        lines = (line.strip() for line in text.splitlines())
        return name in self.hunks and not (self.upstream_has and self.upstream_has.encode() in lines)

    def apply(self, name: str, text: bytes, *, reverse: bool = False) -> bytes | None:
        """The text of the file called `name` after the patch; None if some hunk does not fit in exactly one place."""
        text = b"\n" + text  # hunks begin at the beginning of a line
        for before, after in self.hunks[name]:
            old, new = (b"\n" + after, b"\n" + before) if reverse else (b"\n" + before, b"\n" + after)
            if text.count(old) != 1:
                return None
            text = text.replace(old, new)
        return text[1:]


@dataclass(frozen=True)
class _File:
    """A file of the tree with the patches that change it, the first `applied` of which are applied."""

    path: Path
    patches: list[Patch]
    applied: int
    conflict: Patch | None
    text: bytes
    pristine: bytes
    patched: bytes

    def check(self) -> None:
        if self.conflict is None:
            return
        if not self.path.is_file():
            reason = "the file is missing"
        elif b"\r\n" in self.text:
            reason = "its lines end in CRLF; check LLaVA out again with: git -c core.autocrlf=false clone"
        else:
            reason = f"it is neither as LLaVA {LLAVA_VERSION} or its main branch has it nor as the patch leaves it"
        raise AuroraError(f"{self.path}: patch {self.conflict.name} does not fit: {reason}. Nothing was changed")


def patch_directory() -> Path:
    """The shipped queue. In a checkout it is a link to `patches/` at the root, so that a wheel carries it too.

    Raises AuroraError if it is not there.
    """
    directory = Path(__file__).resolve().parent / "patches"
    if not (directory / "series").is_file():
        raise AuroraError(f"{directory}: the patch queue is missing; reinstall llava-aurora")
    return directory


def read_series(directory: str | Path | None = None) -> tuple[Patch, ...]:
    """The patches of `directory` (default: `patch_directory()`) in the order in which they are applied.

    Raises AuroraError if a patch that `series` names is missing or malformed.
    """
    directory = Path(directory) if directory is not None else patch_directory()
    names = [line.strip() for line in (directory / "series").read_text(encoding="utf-8").splitlines()]
    return tuple(_read_patch(directory / name) for name in names if name and not name.startswith("#"))


def status(source: str | Path, *, directory: str | Path | None = None) -> dict[Patch, State]:
    """The state of each patch in the LLaVA at `source`, in the order of the series. Changes nothing.

    Args:
        source: the folder that contains `llava/`: an unpacked source distribution, a clone, or site-packages.
        directory: the patch queue; the shipped one by default.
    Raises AuroraError if `source` has no folder `llava`.
    """
    patches = read_series(directory)
    states = dict.fromkeys(patches, State.APPLIED)
    for file in _examine(Path(source), patches):
        for position, patch in enumerate(file.patches):
            if patch is file.conflict:
                states[patch] = State.CONFLICT
            elif position >= file.applied and states[patch] is State.APPLIED:
                states[patch] = State.PENDING
    return states


def check(source: str | Path, *, directory: str | Path | None = None) -> None:
    """Raises AuroraError, with file, patch and reason, unless every patch is applied to `source` or can be."""
    _known(Path(source), directory)


def apply(source: str | Path, *, directory: str | Path | None = None) -> int:
    """Applies what is missing of the queue. Returns how many files were rewritten; 0 if all was applied.

    Raises AuroraError as `check` does, before anything is changed; or if a file cannot be written.
    """
    return _write([(file, file.patched) for file in _known(Path(source), directory)])


def reverse(source: str | Path, *, directory: str | Path | None = None) -> int:
    """Takes the queue out; the files are then byte for byte as LLaVA has them. Returns how many were rewritten.

    Raises AuroraError as `apply` does.
    """
    return _write([(file, file.pristine) for file in _known(Path(source), directory)])


def _known(source: Path, directory: str | Path | None) -> list[_File]:
    files = _examine(source, read_series(directory))
    for file in files:
        file.check()
    return files


def _read_patch(path: Path) -> Patch:
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError as error:
        raise AuroraError(f"{path}: named in series, but cannot be read: {error.strerror}") from error
    header = {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines if line[:1].isupper()}
    hunks: dict[str, list[tuple[bytes, bytes]]] = {}
    for line in lines:
        if line.startswith("+++ b/"):
            changes = hunks.setdefault(line.removeprefix("+++ b/").strip(), [])
        elif hunks and line.startswith("@@ "):
            changes.append((b"", b""))
        elif hunks and changes and line[0] in " +-" and not line.startswith("--- a/"):
            before, after = changes[-1]
            text = line[1:].encode()
            changes[-1] = before + text * (line[0] != "+"), after + text * (line[0] != "-")
    if not header.get("Description") or not hunks or not all(hunks.values()):
        raise AuroraError(f"{path}: a patch needs a Description line, a '+++ b/FILE' line and a hunk for each file")
    return Patch(path.stem, path, header["Description"], header.get("Upstream-Has", ""), hunks)


def _examine(source: Path, patches: tuple[Patch, ...]) -> list[_File]:
    if not (source / "llava").is_dir():
        raise AuroraError(f"{source}: no folder llava in it; name the folder that contains LLaVA's package")
    names = dict.fromkeys(name for patch in patches for name in patch.hunks)
    return [_examine_file(source / name, name, patches) for name in names]


def _examine_file(path: Path, name: str, patches: tuple[Patch, ...]) -> _File:
    """Finds the largest k for which the first k patches can be reversed; the others must then apply."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        own = [patch for patch in patches if name in patch.hunks]
        return _File(path, own, 0, own[0], b"", b"", b"")
    except OSError as error:
        raise AuroraError(f"{path}: cannot be read: {error.strerror}") from error
    own = [patch for patch in patches if patch.concerns(name, text)]
    candidates = ((k, _reverse(text, name, own[:k])) for k in range(len(own), -1, -1))
    applied, pristine = next((k, result) for k, result in candidates if result is not None)  # k = 0 always is one
    patched = text
    for patch in own[applied:]:
        result = patch.apply(name, patched)
        if result is None:
            return _File(path, own, applied, patch, text, pristine, patched)
        patched = result
    return _File(path, own, applied, None, text, pristine, patched)


def _reverse(text: bytes, name: str, patches: list[Patch]) -> bytes | None:
    for patch in reversed(patches):
        result = patch.apply(name, text, reverse=True)
        if result is None:
            return None
        text = result
    return text


def _write(files: list[tuple[_File, bytes]]) -> int:
    """Writes every changed text under a temporary name first, and renames them only when all are on disk."""
    from llava_aurora.files import atomic_file  # needs safetensors, which is not there when set-up begins

    changed = [(file.path, text) for file, text in files if text != file.text]
    modes = {path: path.stat().st_mode & 0o777 for path, _ in changed}
    with ExitStack() as stack:
        for path, text in changed:
            stack.enter_context(atomic_file(path)).write_bytes(text)
    for path, mode in modes.items():
        path.chmod(mode)
    return len(changed)
