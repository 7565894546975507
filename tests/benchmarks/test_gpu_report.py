"""The report of a GPU: parts that end, fail, hang or are left out, a run that goes on, commands that are understood."""

import argparse
import importlib
import json
import runpy
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu_report")


def test_a_run_goes_on_where_another_ended(report, monkeypatch, tmp_path, capsys):
    counter = tmp_path / "counter"
    rows = json.dumps({"rows": [{"way": "a|b", "rate": 2.0, "losses": [1]}, {"way": "c"}]})
    verdict = {"name": "training", "state": "failed", "found": "NaN", "remedy": "another driver"}
    told = json.dumps({"verdicts": [verdict]})
    programs = {
        "doctor": f"open({str(counter)!r}, 'a').write('x'); print('a line'); print({rows!r})",
        "step": "import time; print('begun'); time.sleep(60)",
        "epoch": "raise ValueError('no such thing')",
        "generation": f"import sys; print({told!r}); sys.exit(1)",
        "vqvae": None,
    }

    def part(name):
        command = "flash-attn is not installed" if programs[name] is None else [sys.executable, "-c", programs[name]]
        return report.Part(f"the {name}", 1 if name == "step" else 60, lambda size: command)

    monkeypatch.setattr(report, "PARTS", {name: part(name) for name in programs})
    size, out = report.Size(True, "cpu", 0, tmp_path / "work"), tmp_path / "out"
    for _ in range(2):
        assert report.run(out, size, list(programs), ends=time.monotonic() + 600) == 1
        found = json.loads((out / "report.json").read_text())["parts"]
        assert {name: each["state"] for name, each in found.items()} == {
            **{"doctor": "done", "step": "stopped", "epoch": "failed", "generation": "failed", "vqvae": "skipped"}
        }
    assert counter.read_text() == "x"
    assert "doctor: done before" in capsys.readouterr().out
    assert "no such thing" in found["epoch"]["reason"]
    assert found["generation"]["reason"] == "training"
    page = (out / "report.md").read_text()
    for line in (
        "| a b | 2 |",
        "- failed: training: NaN (another driver)",
        "| vqvae: the vqvae | skipped |  | flash-attn is not installed |",
    ):
        assert line in page
    # With no time left, what was found before stays, and the rest is named.
    monkeypatch.setattr(report, "PARTS", {**report.PARTS, "packed": part("vqvae")})
    report.run(out, size, [*programs, "packed"], ends=time.monotonic())
    found = json.loads((out / "report.json").read_text())["parts"]
    assert [found[name]["state"] for name in ("doctor", "step", "packed")] == ["done", "stopped", "not run"]


@pytest.mark.slow
def test_the_script_in_the_tiny_size(start, tmp_path):
    out = tmp_path / "out"
    parts = ("vqvae", "flash", "packed", "generation", "unpatched")
    run = start("bash", "scripts/gpu_report.sh", "--out", out, "--tiny", "--minutes", 60, "--parts", *parts)
    assert run.code == 0, run.output
    found = json.loads((out / "report.json").read_text())["parts"]
    assert found["vqvae"]["state"] == "done"
    assert {row["what"] for row in found["vqvae"]["found"]["rows"]} == {"encode", "decode"}
    assert found["packed"]["state"] == "done"
    assert found["packed"]["found"]["rows"][2]["same_answers"] == 1
    missing = {"flash": "flash-attn", "generation": "doctor"}
    assert all(word in found[name]["reason"] and found[name]["state"] == "skipped" for name, word in missing.items())
    assert sorted(path.name for path in out.iterdir()) == ["report.json", "report.log", "report.md"]


def test_a_folder_of_another_size_is_refused(report, tmp_path):
    size = report.Size(True, "cpu", 0, tmp_path / "work")
    report.run(tmp_path / "out", size, [], ends=0)
    report.write_report(tmp_path / "out", {"tiny": False, "machine": report.machine(), "versions": {}, "parts": {}})
    with pytest.raises(SystemExit, match="another machine or size"):
        report.run(tmp_path / "out", size, [], ends=0)


def test_without_a_gpu_it_says_why_and_stops(report, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_report", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=r"no CUDA device: .*--tiny"):
        report.main()
    assert not (tmp_path / "out").exists()


class Understood(Exception):
    """A script has read its flags."""


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("memory", [24e9, 80e9])
def test_every_command_is_understood_by_what_it_starts(report, monkeypatch, tmp_path, tiny, memory):
    """On a GPU, where a flag with a typing error would cost the run."""
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser, *given):
        parse(parser, *given)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setenv("LLAVA_AURORA_UPSTREAM_PYTHON", sys.executable)
    trained = tmp_path / "doctor" / "trained"
    trained.mkdir(parents=True)
    (trained / "config.json").write_text("{}")
    size = report.Size(tiny, "cuda", memory, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(report.importlib.util, "find_spec", lambda name: name)  # flash-attn too
        commands = {name: part.command(size) for name, part in report.PARTS.items()}
    for name, command in commands.items():
        assert not isinstance(command, str), f"{name}: {command}"
        path, *flags = command[2:] if command[1] == "-m" else command[1:]
        path = f"{path.replace('.', '/')}.py" if command[1] == "-m" else path
        monkeypatch.setattr(sys, "argv", [path, *flags])
        with pytest.raises(Understood):
            runpy.run_path(str(ROOT / path), run_name="__main__")
