"""What set-up checks before it installs anything, and what it hands over to uv."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What set-up reads of this repository, without an environment."""
    for folder in ("scripts", "llava_aurora", "patches"):
        shutil.copytree(ROOT / folder, tmp_path / "checkout" / folder, symlinks=True)
    for file in ("constraints.txt", "constraints-4.57.txt", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path / "checkout")
    return tmp_path / "checkout"


def environment(checkout: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs code after what set-up's scripts share, with the Python of the tests."""
    begin = f"set -euo pipefail; name=setup root={checkout} venv={sys.prefix} constraints=/dev/null; "
    begin += f"source {checkout}/scripts/environment.sh; log={checkout}/log; "
    return subprocess.run(
        ["bash", "-c", begin + code], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


def test_a_llava_that_cannot_be_patched_is_refused_before_anything_is_made(checkout, tmp_path):
    source = tmp_path / "LLaVA"
    (source / "llava" / "train").mkdir(parents=True)
    (source / "pyproject.toml").touch()
    (source / "llava" / "train" / "train.py").write_bytes(b"import os\r\n")
    run = subprocess.run(
        ["bash", checkout / "scripts" / "setup.sh"],
        env={**os.environ, "LLAVA_SOURCE": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert f"LLAVA_SOURCE={source} cannot be patched" in run.stderr
    assert not (checkout / ".venv").exists()


def test_a_source_distribution_of_another_hash_is_not_used(checkout):
    sdist = checkout / ".venv" / "src" / "llava-torch-1.2.2.post1.tar.gz"
    sdist.parent.mkdir(parents=True)
    sdist.write_bytes(b"something else")
    run = environment(checkout, "fetch_llava", PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
    assert run.returncode == 1
    assert "downloading LLaVA failed" in run.stderr
    assert not sdist.exists()


def test_pips_indexes_are_uvs_too(checkout):
    settings = {"PIP_INDEX_URL": "https://one/simple", "PIP_EXTRA_INDEX_URL": "https://two https://three"}
    shown = environment(checkout, "pip_settings_for_uv; env", UV_FIND_LINKS="kept", **settings).stdout.splitlines()
    assert {"UV_DEFAULT_INDEX=https://one/simple", "UV_INDEX=https://two https://three", "UV_FIND_LINKS=kept"} <= set(
        shown
    )


def test_a_stack_is_the_default_with_other_pins_in_their_place(checkout):
    def pins(stack: str) -> dict[str, str]:
        shown = environment(checkout, f"cd {checkout}; stack_constraints '{stack}'").stdout.splitlines()
        return dict(line.split("==", 1) for line in shown if "==" in line and "python_version" not in line)

    default, old = pins(""), pins("4.57")
    changed = {name for name, version in old.items() if default.get(name) != version}
    assert default["transformers"].startswith("5.")
    assert old["transformers"].startswith("4.57.")
    listed = (checkout / "constraints-4.57.txt").read_text().splitlines()
    assert changed == {line.split("==")[0] for line in listed if "==" in line}
    assert default.keys() == old.keys()


@pytest.mark.parametrize(("torch", "sympy"), [("2.13.0+cpu", True), ("2.6.0+debian", False)])
def test_another_torch_brings_its_own_sympy(checkout, torch, sympy):
    code = f"cd {checkout}; constraints=locked stack=; lock_torch {torch}; cat locked"
    pins = environment(checkout, code).stdout.splitlines()
    assert f"torch=={torch}" in pins
    assert any(pin.startswith("sympy==") for pin in pins) == sympy


def test_a_stack_that_there_is_not_is_named(checkout):
    run = environment(checkout, f"cd {checkout}; stack_constraints 9")
    assert run.returncode == 1
    assert "STACK=9: there is no constraints-9.txt" in run.stderr
