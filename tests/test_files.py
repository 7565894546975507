"""Files and folders appear whole or not at all; a full disk leaves the old ones as they were."""

import errno
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llava_aurora.errors import AuroraError
from llava_aurora.files import (
    atomic_file,
    atomic_folder,
    read_json,
    remove_leftovers,
    staged_into,
    write_json,
    write_text,
)


@contextmanager
def full_disk():
    """The file system refuses to let a file grow beyond 4 kB, as a full disk would; pytest's own log among them."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert leftovers(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / "model"
    with atomic_folder(path) as folder:
        (folder / "weights").write_text("old")
    with pytest.raises(KeyError), atomic_folder(path) as folder:
        (folder / "weights").write_text("half")
        raise KeyError
    assert (path / "weights").read_text() == "old"
    with atomic_folder(path) as folder:
        (folder / "other").write_text("new")
    assert leftovers(path) == ["other"]
    assert leftovers(tmp_path) == ["model"]


def test_staging_keeps_what_else_is_in_a_folder(tmp_path):
    (tmp_path / "log").write_text("kept")
    (tmp_path / "vqvae").mkdir()
    (tmp_path / "vqvae" / "old").write_text("old")
    with staged_into(tmp_path) as staging:
        (staging / "weights").write_text("new")
        (staging / "vqvae").mkdir()
        (staging / "vqvae" / "new").write_text("new")
    assert leftovers(tmp_path) == ["log", "vqvae", "weights"]
    assert leftovers(tmp_path / "vqvae") == ["new"]


def test_a_full_disk_is_one_clear_error_and_the_old_file_stays(tmp_path):
    path = tmp_path / "records.json"
    write_json(path, [1])
    message = r"records.json: not written \(File too large\); what was there before"
    with full_disk(), pytest.raises(AuroraError, match=message):
        write_json(path, list(range(10_000)))
    assert read_json(path, what="records") == [1]
    assert leftovers(tmp_path) == ["records.json"]


def test_weights_that_do_not_fit_leave_the_old_checkpoint(tmp_path):
    (tmp_path / "model.safetensors").write_text("old")
    with full_disk(), pytest.raises(AuroraError, match="not written"), staged_into(tmp_path) as staging:
        save_file({"weight": torch.zeros(10_000)}, staging / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_text() == "old"
    assert leftovers(tmp_path) == ["model.safetensors"]


def test_torchs_own_writer_on_a_full_disk_is_one_clear_error(tmp_path):
    with full_disk(), pytest.raises(AuroraError, match="disk full"), atomic_file(tmp_path / "state.pt") as temporary:
        torch.save(torch.zeros(10_000), temporary)
    assert leftovers(tmp_path) == []


def test_no_space_left_is_called_disk_full(tmp_path):
    with pytest.raises(AuroraError, match=r"a\.txt: not written \(disk full\)"), atomic_file(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_every_file_has_the_mode_of_an_ordinary_one_and_the_umask_is_never_set(tmp_path, monkeypatch):
    """safetensors makes its files 0600. Setting the umask, even for a moment, changes other threads' files."""
    (tmp_path / "ordinary").touch()
    ordinary = (tmp_path / "ordinary").stat().st_mode
    monkeypatch.setattr(os, "umask", None)
    weights = {"weight": torch.zeros(3)}
    with staged_into(tmp_path / "run") as staging:
        (staging / "inner").mkdir()
        save_file(weights, staging / "inner" / "model.safetensors")
    with atomic_folder(tmp_path / "model") as folder:
        save_file(weights, folder / "model.safetensors")
    with atomic_file(tmp_path / "model.safetensors") as file:
        save_file(weights, file)
    files = list(tmp_path.rglob("*.safetensors"))
    assert len(files) == 3
    assert {file.stat().st_mode for file in files} == {ordinary}


def killed(code: str, folder: Path) -> int:
    """Runs code in a process of its own that kills itself in the middle of it."""
    begin = "import os, pathlib, signal, sys\nfrom llava_aurora import files\nfolder = pathlib.Path(sys.argv[1])\n"
    return subprocess.run([sys.executable, "-c", begin + code, folder], check=False).returncode


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    kinds = "files.atomic_file(folder / 'a.txt'), files.atomic_folder(folder / 'model'), files.staged_into(folder)"
    assert killed(f"with {kinds}: {KILL}", tmp_path) == -signal.SIGKILL
    assert len(leftovers(tmp_path)) == 3
    with atomic_file(tmp_path / "living"):
        write_text(tmp_path / "b.txt", "whole")
        assert killed("files.write_text(folder / 'c.txt', 'whole')", tmp_path) == 0
        assert len(leftovers(tmp_path)) == 3, "what a living process writes stays"
    assert leftovers(tmp_path) == ["b.txt", "c.txt", "living"]


def test_a_folder_whose_replacement_was_cut_short_is_the_new_one(tmp_path):
    code = f"""
replace, calls = os.replace, []
def stop(source, target):
    calls.append(source) or len(calls) > 1 and {KILL}
    replace(source, target)
(folder / 'model').mkdir()
os.replace = stop
with files.atomic_folder(folder / 'model') as new: (new / 'weights').write_text('new')
"""
    assert killed(code, tmp_path) == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    remove_leftovers(tmp_path)
    assert leftovers(tmp_path) == ["model"]
    assert leftovers(tmp_path / "model") == ["weights"]


def test_json_that_cannot_be_read_says_which_and_where(tmp_path):
    with pytest.raises(AuroraError, match=r"none.json: cannot read the settings"):
        read_json(tmp_path / "none.json", what="settings")
    (tmp_path / "broken.json").write_text('{"a": ')
    with pytest.raises(AuroraError, match=r"broken.json: the settings are not valid JSON: .* line 1 column"):
        read_json(tmp_path / "broken.json", what="settings")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(AuroraError, match=r"deep.json: the settings are not valid JSON: it is nested too deeply"):
        read_json(tmp_path / "deep.json", what="settings")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(AuroraError, match=r"pipe.json: cannot read the settings: not a regular file"):
        read_json(tmp_path / "pipe.json", what="settings")


def test_halves_of_surrogate_pairs_are_written_as_json_escapes_them(tmp_path):
    write_json(tmp_path / "a.json", {"text": "\ud83d"})
    assert read_json(tmp_path / "a.json", what="settings") == {"text": "\ud83d"}
