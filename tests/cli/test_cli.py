"""The command line: help without torch, and errors of one line."""

import json
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer

from llava_aurora.cli.__main__ import app, main
from llava_aurora.cli.shared import model_or_demo
from llava_aurora.errors import AuroraError
from llava_aurora.found_files import FoundFiles
from llava_aurora.patch_queue import read_series
from llava_aurora.progress import QUIET
from llava_aurora.version import __version__

CLI = "-m", "llava_aurora.cli"
VERBS = ["", "patch", "vqvae", "data", "data check", "data convert", "plan", "merge", "import aurora", "demo", "export"]
VERBS += ["grammar", "ask", "serve", "eval", "replace-test", "compare", "lmms-tasks"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_answers_without_torch_and_gradio(start, verb):
    code = (
        f"import sys; sys.argv[1:] = {[*verb.split(), '--help']!r}\ntry:\n    import llava_aurora.cli.__main__ as c\n"
    )
    code += "    c.main()\nfinally:\n    print(bool({'torch', 'gradio'} & set(sys.modules)))"
    run = start(sys.executable, "-c", code)
    assert "Usage:" in run.output
    assert run.output.strip().endswith("False")


def test_the_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="llava-aurora")
    assert command.value == "llava_aurora.cli.__main__:main"


def test_doctor_finds_a_sound_installation(start):
    run = start(sys.executable, *CLI, "doctor")
    patches = len(read_series())
    applied = f"{patches} of {patches} applied"
    for word in ("llava-torch", "transformers", applied, "sdpa", "no CUDA device", "gloo"):
        assert word in run.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--preset", "huge"], "error: unknown preset 'huge'; available: demo, full, smoke"),
        (["patch", "--source", "nowhere"], "error: "),
    ],
)
def test_an_error_is_one_line_and_exit_code_one(start, arguments, message):
    run = start(sys.executable, *CLI, *arguments, code=1)
    assert run.output.splitlines()[-1].startswith(message)
    assert "Traceback" not in run.output


def cli(monkeypatch, *arguments):
    """Runs a command as its entry point does; its exit code."""
    monkeypatch.setattr(sys, "argv", ["llava-aurora", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_habits_of_the_command_line(monkeypatch, capsys, tmp_path):
    assert cli(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == __version__
    assert cli(monkeypatch, "data", "scenes", "-h") == 0
    assert "--out" in capsys.readouterr().out
    for wrong in (["data", "scenes"], ["data", "scenes", "--nothing"], ["nothing"], ["plan", "--mode", "prefix"]):
        assert cli(monkeypatch, *wrong) == 2
        assert "Traceback" not in capsys.readouterr().err
    made = [
        "data",
        "scenes",
        "--out",
        tmp_path,
        *["--count", "1", "--frame", "48", "--max_objects", "2", "--workers", "1"],
    ]
    assert cli(monkeypatch, *made) == 0
    printed = capsys.readouterr()
    assert "1 scenes" in printed.out
    assert "rendering" not in printed.out
    assert "rendering" in printed.err
    monkeypatch.setenv(QUIET, "")
    assert cli(monkeypatch, "--quiet", *made) == 0
    assert capsys.readouterr().err == ""


def test_every_command_takes_json_and_quiet(monkeypatch, capsys, tmp_path):
    def commands(command, *names):
        for name, each in command.commands.items():
            yield from commands(each, *names, name) if hasattr(each, "commands") else [[*names, name]]

    found = [names for names in commands(typer.main.get_command(app)) if names != ["serve"]]  # a server has no result
    assert len(found) > 20
    for names in found:
        assert cli(monkeypatch, *names, "--help") == 0
        assert {"--json", "--quiet"} <= set(capsys.readouterr().out.split()), names
    scenes = ["data", "scenes", "--out", tmp_path, "--count", "1", "--frame", "48", "--workers", "1"]
    assert cli(monkeypatch, *scenes, "--json") == 0
    assert json.loads(capsys.readouterr().out)["scenes"] == 1
    monkeypatch.setenv(QUIET, "")
    assert cli(monkeypatch, *scenes, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_is_one_line_with_the_command_that_goes_on(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("llava_aurora.vqvae.training.train_depth_vqvae", stop)
    monkeypatch.setattr("llava_aurora.cli.vqvae.checked_scale", lambda *_, **__: (None, FoundFiles()))
    assert cli(monkeypatch, "vqvae", "train", "my maps", "--out", "vq") == 130
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "interrupted; to resume: llava-aurora vqvae train 'my maps' --out vq --resume"


def test_the_public_names_are_there():
    import llava_aurora

    for name in llava_aurora.__all__:
        assert getattr(llava_aurora, name) is not None
    with pytest.raises(AttributeError):
        llava_aurora.no_such_name  # noqa: B018


def test_points_are_letters_with_two_numbers():
    from llava_aurora.cli.asking import points_of

    assert points_of(["A=120,80", "B=3.5,4"]) == {"A": (120, 80), "B": (3.5, 4)}
    for wrong in (["A"], ["A=1"], ["A=1,2,3"], ["A=x,2"], ["A=1,2", "A=3,4"]):
        with pytest.raises(typer.BadParameter):
            points_of(wrong)


def test_what_the_demo_made_is_the_model_where_no_other_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert model_or_demo(Path("other")) == Path("other")
    with pytest.raises(AuroraError, match="give --model; demo_output/work/model, which `llava-aurora demo` makes"):
        model_or_demo(None)
    (tmp_path / "demo_output/work/model").mkdir(parents=True)
    (tmp_path / "demo_output/work/model/config.json").write_text("{}")
    assert model_or_demo(None) == Path("demo_output/work/model")
    assert "the demo's model" in capsys.readouterr().err
