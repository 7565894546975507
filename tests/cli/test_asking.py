"""`ask` as a user runs it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from command import llava_aurora
from PIL import Image

from llava_aurora.cli.__main__ import main

pytestmark = pytest.mark.deepspeed


@pytest.fixture
def photo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "street.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def run(finetuned):
    def invoke(*arguments):
        options = "--model", finetuned[0], "--device", "cpu", "--max-new-tokens", 8
        done = llava_aurora("ask", *options, *arguments)
        return done.exit_code, done.stdout, done.stderr, done.exception

    return invoke


def test_an_answer_is_printed_and_its_picture_written(run, photo, tmp_path):
    code, output, errors, _ = run("--image", photo, "How far?")
    assert code == 0
    assert output.strip()
    assert "the answer was cut off" in errors
    with Image.open(tmp_path / "street.answer.png") as picture:
        assert picture.format == "PNG"
    code, _, _, _ = run("--image", photo, "--picture", tmp_path / "seen" / "it.png", "How far?")
    assert code == 0
    assert (tmp_path / "seen" / "it.png").is_file()


def test_a_chain_is_printed_with_its_map_folded_above_the_answer(run, photo, monkeypatch):
    from llava_aurora import Predictor

    write = Predictor.write

    def written(self, *args, **options):
        depth = self.perception.kinds["depth"].family
        text = f"The depth map is {depth.text(range(9))}. It is highest at B. The answer is (B)."
        return [replace(result, text=text, finished=True) for result in write(self, *args, **options)]

    monkeypatch.setattr(Predictor, "write", written)
    _, output, errors, _ = run("--image", photo, "Which is closest?")
    chain, empty, answer = output.splitlines()
    assert chain == "The depth map is [depth map, 9 codes]. It is highest at B. The answer is (B)."
    assert (empty, answer) == ("", "(B)")
    assert "cut off" not in errors


def test_json_holds_the_result(run, photo):
    code, output, _, _ = run("--image", photo, "--json", "--reasoning", "direct", "How far?")
    assert code == 0
    result = json.loads(output)
    assert (result["question"], result["reasoning"], result["finished"]) == ("How far?", "direct", False)
    assert result["timings"]["forward_passes"] == 8
    code, output, _, _ = run("--image", photo, "--json", "--reasoning-prompt", "Reason.", "How far?")
    assert code == 0
    assert json.loads(output)["reasoning_prompt"] == "Reason."


def test_a_folder_is_asked_about_once_and_failures_are_exit_code_one(run, photo, tmp_path):
    out = tmp_path / "answers.jsonl"
    arguments = "--folder", photo.parent, "--out", out, "--pictures", tmp_path / "seen", "How far?"
    code, output, _, _ = run(*arguments)
    assert code == 0
    assert "1 answered, 0 already done, 0 failed" in output
    assert (tmp_path / "seen" / "street.png.png").is_file()
    (photo.parent / "broken.jpg").write_bytes(b"no image")
    code, output, errors, _ = run(*arguments)
    assert code == 1
    assert "0 answered, 1 already done, 1 failed" in output
    assert "broken.jpg: cannot read the image" in errors
    assert len(out.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--image", "a.png", "--folder", "b"],
        ["--folder", "b"],
        ["--folder", "b", "--out", "c", "--point", "A=1,2"],
        ["--image", "a.png", "--out", "c"],
        ["--image", "a.png", "--reasoning", "long"],
        ["--image", "a.png", "--load-4bit", "--load-8bit"],
        ["--image", "a.png", "--max-new-tokens", "0"],
        ["--image", "a.png", "--look-again", "--reasoning", "direct"],
        ["--folder", "b", "--out", "c", "--look-again"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_two(arguments):
    done = llava_aurora("ask", "--model", "nowhere", *arguments, "How far?")
    assert done.exit_code == 2
    assert "Usage:" in done.stderr


def test_what_cannot_be_asked_is_one_line_and_exit_code_one(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["llava-aurora", "ask", "--model", str(tmp_path), "--image", str(photo), "Why?"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no checkpoint here")
