"""The patch queue on LLaVA's source distribution and on its main branch, and every way a tree can be unknown."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llava_aurora import patch_queue
from llava_aurora.errors import AuroraError
from llava_aurora.patch_queue import Patch, State

PATCHES = patch_queue.read_series()
SDIST = Path(sys.prefix) / "src" / f"llava-torch-{patch_queue.LLAVA_VERSION}.tar.gz"
MOST_CHANGED_LINES = 15


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLaVA's source distribution, unpacked; never changed by a test."""
    if not SDIST.is_file():
        reason = f"{SDIST} is missing; run scripts/setup.sh"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    folder = tmp_path_factory.mktemp("sdist")
    shutil.unpack_archive(SDIST, folder)
    return folder / f"llava-torch-{patch_queue.LLAVA_VERSION}"


@pytest.fixture
def source(sdist: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sdist / "llava", tmp_path / "LLaVA checkout" / "llava")).parent


def contents(source: Path) -> dict[str, tuple[bytes, int]]:
    """Text and mode of every file, and no others: a temporary file left behind would show."""
    files = (path for path in source.rglob("*") if path.is_file())
    return {str(path.relative_to(source)): (path.read_bytes(), path.stat().st_mode) for path in files}


def changed_lines(patch: Patch) -> list[str]:
    lines = patch.path.read_text().splitlines()
    return [line for line in lines if line[:1] in "+-" and line[:4] not in ("+++ ", "--- ") and line]


def body(patch: Patch) -> str:
    text = patch.path.read_text()
    return text[text.index("\n--- ") + 1 :]


def test_apply_then_reverse_leaves_the_pristine_tree(source: Path) -> None:
    pristine = contents(source)
    touched = {name for patch in PATCHES for name in patch.hunks}

    assert set(patch_queue.status(source).values()) == {State.PENDING}
    assert patch_queue.apply(source) == len(touched)
    patched = contents(source)
    assert set(patch_queue.status(source).values()) == {State.APPLIED}
    assert {name for name in pristine if pristine[name] != patched[name]} == touched

    assert patch_queue.apply(source) == 0
    assert contents(source) == patched

    assert patch_queue.reverse(source) == len(touched)
    assert contents(source) == pristine
    assert patch_queue.reverse(source) == 0
    assert contents(source) == pristine


def test_the_result_compiles(source: Path) -> None:
    patch_queue.apply(source)
    for name in {name for patch in PATCHES for name in patch.hunks}:
        compile((source / name).read_text(), name, "exec")


@pytest.mark.parametrize("length", range(len(PATCHES) + 1))
def test_a_prefix_is_completed_and_reversed(sdist: Path, source: Path, tmp_path: Path, length: int) -> None:
    prefix = tmp_path / "prefix"
    shutil.copytree(patch_queue.patch_directory(), prefix)
    (prefix / "series").write_text("".join(f"{patch.name}.patch\n" for patch in PATCHES[:length]))
    patch_queue.apply(source, directory=prefix)

    states = list(patch_queue.status(source).values())
    assert states == [State.APPLIED] * length + [State.PENDING] * (len(PATCHES) - length)
    patch_queue.apply(source)
    assert set(patch_queue.status(source).values()) == {State.APPLIED}
    patch_queue.reverse(source)
    assert contents(source / "llava") == contents(sdist / "llava")


def test_a_run_cut_short_between_two_files_is_completed(sdist: Path, source: Path) -> None:
    patch_queue.apply(source)
    patched = contents(source)
    two_files = next(patch for patch in PATCHES if len(patch.hunks) > 1)
    shutil.copy(sdist / list(two_files.hunks)[-1], source / list(two_files.hunks)[-1])

    assert patch_queue.status(source)[two_files] is State.PENDING
    assert patch_queue.apply(source) == 1
    assert contents(source) == patched


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
@pytest.mark.parametrize("patched_before", [False, True], ids=["pristine", "patched"])
def test_an_unknown_tree_is_refused_and_untouched(source: Path, patch: Patch, patched_before: bool) -> None:
    if patched_before:
        patch_queue.apply(source)
    changes = changed_lines(patch)
    own_lines = [line[1:] for line in changes if line[0] == ("+" if patched_before else "-")]
    if not own_lines:  # a patch that only adds: what it adds beside must be gone
        own_lines = [line[1:] for line in body(patch).splitlines() if line[:1] == " " and line.strip()]
    file = source / list(patch.hunks)[-1]
    text = file.read_text()
    assert own_lines[-1] in text
    file.write_text(text.replace(own_lines[-1], own_lines[-1] + "  # somebody's own"))
    before = contents(source)

    for change in (patch_queue.apply, patch_queue.reverse):
        with pytest.raises(AuroraError) as refusal:
            change(source)
        assert str(file) in str(refusal.value)
        assert patch.name in str(refusal.value)
        assert contents(source) == before
    assert patch_queue.status(source)[patch] is State.CONFLICT


def test_a_missing_file_is_refused_by_name(source: Path) -> None:
    missing = source / next(iter(PATCHES[-1].hunks))
    missing.unlink()
    before = contents(source)
    with pytest.raises(AuroraError, match=missing.name):
        patch_queue.apply(source)
    assert contents(source) == before


def test_a_change_elsewhere_in_a_file_is_kept(source: Path) -> None:
    file = source / "llava" / "train" / "train.py"
    file.write_text("# somebody's own first line\n" + file.read_text())
    before = contents(source)
    patch_queue.apply(source)
    assert set(patch_queue.status(source).values()) == {State.APPLIED}
    patch_queue.reverse(source)
    assert contents(source) == before


def test_a_folder_without_llava_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuroraError, match="no folder llava"):
        patch_queue.apply(tmp_path)


def test_a_file_that_cannot_be_written_leaves_all_as_it_was(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of the files fails: not one of the earlier may have taken its place."""
    before = contents(source)
    write_bytes, written = Path.write_bytes, []

    def full_disk(path: Path, text: bytes) -> int:
        if path.is_relative_to(source):
            written.append(path)
            if len(written) == 3:
                raise OSError(28, "No space left on device")
        return write_bytes(path, text)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(AuroraError, match="disk full"):
        patch_queue.apply(source)
    assert len(written) == 3
    assert contents(source) == before


def test_git_makes_the_same_of_the_queue(source: Path, sdist: Path, tmp_path: Path) -> None:
    by_git = shutil.copytree(sdist / "llava", tmp_path / "by git" / "llava").parent
    (by_git / ".git").mkdir()  # so that git looks for no repository above
    patches = [patch.path for patch in PATCHES]
    environment = {"PATH": os.environ["PATH"], "GIT_DIR": str(by_git / ".git")}
    subprocess.run(["git", "apply", "--whitespace=nowarn", *patches], cwd=by_git, env=environment, check=True)
    patch_queue.apply(source)
    for name in {name for patch in PATCHES for name in patch.hunks}:
        assert (source / name).read_bytes() == (by_git / name).read_bytes()


@pytest.fixture
def main_branch(source: Path) -> Path:
    """LLaVA's main branch at c121f04, as far as patches change it: generation in cli.py stops without criteria."""
    file = source / "llava" / "serve" / "cli.py"
    text = file.read_text()
    for old, new in (
        ("output_ids[0, input_ids.shape[1]:]", "output_ids[0]"),
        (",\n                stopping_criteria=[stopping_criteria])", ")"),
        ("        stopping_criteria = KeywordsStoppingCriteria(keywords, tokenizer, input_ids)\n", ""),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    file.write_text(text)
    return source


def test_what_the_main_branch_has_already_counts_as_applied(main_branch: Path) -> None:
    before = contents(main_branch)
    states = list(patch_queue.status(main_branch).values())
    assert states == [State.PENDING] * 10 + [State.APPLIED] + [State.PENDING] * 2
    patch_queue.apply(main_branch)
    assert set(patch_queue.status(main_branch).values()) == {State.APPLIED}
    text = (main_branch / "llava" / "serve" / "cli.py").read_text()
    assert "tokenizer.decode(output_ids[0]).strip()" in text, "left as the main branch has it"
    assert text.count("dtype=model.dtype") == 2, "the other patches of this file are applied"
    patch_queue.reverse(main_branch)
    assert contents(main_branch) == before


def test_line_endings_are_named(source: Path) -> None:
    file = source / "llava" / "train" / "train.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(AuroraError, match=r"train\.py.*CRLF"):
        patch_queue.apply(source)


def test_check_tells_pending_from_conflicting(source: Path, start) -> None:
    command = ["llava-aurora", "patch", "--check", "--source", source]
    assert f"{len(PATCHES)} of {len(PATCHES)} patches are pending" in start(*command, code=1).output
    (source / "llava" / "train" / "train.py").write_text("")
    shown = start(*command, code=1)
    assert "conflict  0003" in shown.output
    assert "pending   0001" in shown.output
    assert "train.py: patch 0003-processing-class does not fit" in shown.output


def test_series_names_every_patch_in_order() -> None:
    directory = patch_queue.patch_directory()
    assert [patch.path.name for patch in PATCHES] == sorted(path.name for path in directory.glob("*.patch"))
    assert [int(patch.name[:4]) for patch in PATCHES] == list(range(1, len(PATCHES) + 1))


def test_all_of_them_change_at_most_70_lines() -> None:
    assert sum(len(changed_lines(patch)) for patch in PATCHES) <= 70


def test_a_patch_that_series_names_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "series").write_text("0001-gone.patch\n")
    with pytest.raises(AuroraError, match=r"0001-gone\.patch"):
        patch_queue.read_series(tmp_path)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_header_and_size(patch: Patch) -> None:
    header = patch.path.read_text().partition("\n\n")[0].splitlines()
    fields = {line.partition(":")[0]: line.partition(":")[2].strip() for line in header if not line.startswith(" ")}
    assert list(fields)[:4] == ["Description", "Origin", "Forwarded", "Can-Go-When"]
    assert list(fields)[4:] in ([], ["Upstream-Has"])
    assert all(fields.values())
    assert sum(line.startswith(" ") for line in header) >= 2, "the Description says why, in lines of its own"
    assert 1 <= len(changed_lines(patch)) <= MOST_CHANGED_LINES
