"""The command line: help without torch, and errors of one line."""

import sys
from importlib.metadata import entry_points

import pytest

from llava_aurora.patch_queue import read_series

CLI = "-m", "llava_aurora.cli"
VERBS = [
    [*verb.split(), "--help"]
    for verb in (
        *("", "patch", "vqvae", "data", "data check", "plan", "merge", "import aurora", "demo", "export", "grammar"),
        *("ask", "serve", "eval", "replace-test", "compare", "lmms-tasks"),
    )
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_answers_without_torch(start, verb):
    code = "import sys; sys.argv[1:] = {!r}\ntry:\n    import llava_aurora.cli.__main__ as c; c.main()\nfinally:\n"
    run = start(sys.executable, "-c", code.format(verb) + "    print('torch' in sys.modules)")
    assert run.code == 0
    assert "Usage:" in run.output
    assert run.output.strip().endswith("False")


def test_the_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="llava-aurora")
    assert command.value == "llava_aurora.cli.__main__:main"


def test_doctor_finds_a_sound_installation(start):
    run = start(sys.executable, *CLI, "doctor")
    assert run.code == 0, run.output
    patches = len(read_series())
    applied = f"{patches} of {patches} applied"
    for word in ("llava-torch", "transformers", applied, "sdpa", "no CUDA device", "gloo"):
        assert word in run.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--preset", "huge"], "error: unknown preset 'huge'; there are: demo, smoke"),
        (["patch", "--source", "nowhere"], "error: "),
    ],
)
def test_an_error_is_one_line_and_exit_code_one(start, arguments, message):
    run = start(sys.executable, *CLI, *arguments)
    assert run.code == 1
    assert run.output.splitlines()[-1].startswith(message)
    assert "Traceback" not in run.output


def test_the_public_names_are_there():
    import llava_aurora

    for name in llava_aurora.__all__:
        assert getattr(llava_aurora, name) is not None
    with pytest.raises(AttributeError):
        llava_aurora.no_such_name  # noqa: B018
