"""Whole folders to codes and back, in Python and by command."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from llava_aurora.cli.__main__ import app
from llava_aurora.errors import AuroraError
from llava_aurora.vqvae import DepthVQVAE, fingerprint
from llava_aurora.vqvae.folders import decode_file, encode_folder, read_codes


def test_a_folder_of_maps_becomes_codes_and_pictures(tmp_path: Path, maps: Path, model: DepthVQVAE):
    report = encode_folder(model=model, maps=maps, out=tmp_path / "codes.jsonl", batch_size=2)
    assert (report.written, report.failures) == (5, [])
    content = read_codes(tmp_path / "codes.jsonl", model=model)
    assert (content.fingerprint, content.grid, content.codebook_size) == (fingerprint(model), 4, 16)
    assert sorted(content.codes) == ["a", "b.c", "e", "room/d", "room/ä"]
    with Image.open(maps / "a.png") as picture:
        assert content.codes["a"] == model.encode_array(np.asarray(picture))
    report = decode_file(model=model, codes=tmp_path / "codes.jsonl", out=tmp_path / "out", size=(20, 30), batch_size=2)
    assert (report.written, report.failures) == (5, [])
    with Image.open(tmp_path / "out" / "room" / "ä.png") as picture:
        decoded = np.asarray(picture)
    expected = model.decode_codes(content.codes["room/ä"], size=(20, 30))
    # A batch may round differently from a single map.
    assert np.abs(decoded.astype(int) - expected).max() <= 1


def test_unusable_maps_are_listed_and_the_others_encoded(tmp_path: Path, maps: Path, model: DepthVQVAE):
    (maps / "broken.png").write_bytes(b"no picture")
    np.save(maps / "a.npy", np.full((4, 4), 0.5))  # a second map called "a"
    report = encode_folder(model=model, maps=maps, out=tmp_path / "codes.jsonl")
    assert report.written == 5
    assert [failure.split(":")[0] for failure in report.failures] == [str(maps / "a.png"), str(maps / "broken.png")]
    assert "another map of this folder is called a too" in report.failures[0]


def test_a_folder_without_one_usable_map_writes_nothing(tmp_path: Path, model: DepthVQVAE):
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    with pytest.raises(
        AuroraError, match=r"none of its 1 maps could be used, the first because of: .*a\.npy: .*all zero"
    ):
        encode_folder(model=model, maps=tmp_path, out=tmp_path / "codes.jsonl")
    assert not (tmp_path / "codes.jsonl").exists()


@pytest.mark.parametrize("content", ["", "no json\n", '{"name": "a", "codes": []}\n', "[]\n"])
def test_a_file_without_the_header_is_refused(tmp_path: Path, model: DepthVQVAE, content: str):
    (tmp_path / "codes.jsonl").write_text(content)
    with pytest.raises(AuroraError, match="not the header of a file of depth codes"):
        read_codes(tmp_path / "codes.jsonl", model=model)
    with pytest.raises(AuroraError, match="cannot read the codes"):
        read_codes(tmp_path / "nowhere.jsonl", model=model)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "x", "codes": [0] * 15}, "expected 16 codes"),
        ({"name": "x", "codes": [0] * 15 + [16]}, "code 16 at position 15"),
        ({"name": "../x", "codes": [0] * 16}, "the name .* leads out of the folder"),
        ({"name": "/x", "codes": [0] * 16}, "the name .* leads out of the folder"),
        ({"name": "", "codes": [0] * 16}, "the name .* leads out of the folder"),
        ({"name": "a", "codes": [0] * 16}, "the name 'a' occurs twice"),
        ({"name": "x"}, "expected"),
        (["x"], "expected"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, maps: Path, model: DepthVQVAE, entry: object, message: str):
    codes = tmp_path / "codes.jsonl"
    encode_folder(model=model, maps=maps, out=codes)
    codes.write_text(codes.read_text() + json.dumps(entry) + "\n")
    with pytest.raises(AuroraError, match=rf"codes\.jsonl:7: {message}"):
        read_codes(codes, model=model)
    report = decode_file(model=model, codes=codes, out=tmp_path / "out")
    assert report.written == 5
    assert len(report.failures) == 1
    assert not (tmp_path / "x.png").exists()


def test_the_commands_train_encode_and_decode(tmp_path: Path, maps: Path):
    def run(*arguments: object):
        return CliRunner().invoke(app, ["vqvae", *map(str, arguments)])

    vqvae, codes, out = tmp_path / "vqvae", tmp_path / "codes.jsonl", tmp_path / "out"
    shape = ["--image-size", 16, "--channels", "4,8", "--code-dim", 4, "--codebook-size", 16]
    result = run("train", maps, "--out", vqvae, *shape, "--epochs", 1, "--batch-size", 2, "--learning-rate", 1e-3)
    assert result.exit_code == 0, result.output
    assert json.loads((vqvae / "config.json").read_text())["channels"] == [4, 8]
    assert run("encode", maps, "--vqvae", vqvae, "--out", codes).exit_code == 0
    result = run("decode", codes, "--vqvae", vqvae, "--out", out, "--height", 10)
    assert result.exit_code == 0
    with Image.open(out / "a.png") as picture:
        assert picture.size == (16, 10)
    (maps / "broken.png").write_bytes(b"")
    result = run("encode", maps, "--vqvae", vqvae, "--out", codes)
    assert result.exit_code == 1
    assert "5 written, 1 failed" in result.output
    assert "broken.png" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image-size", "15"], "no VQ-VAE can have this shape: image_size 15"),
        (["--channels", "4,x"], "no VQ-VAE can have this shape"),
        (["--device", "abacus"], "--device abacus: not usable here"),
    ],
)
def test_the_commands_refuse_what_cannot_be(tmp_path: Path, maps: Path, arguments: list[str], message: str):
    result = CliRunner().invoke(app, ["vqvae", "train", str(maps), "--out", str(tmp_path / "vqvae"), *arguments])
    assert result.exit_code == 1
    assert isinstance(result.exception, AuroraError)
    assert message in str(result.exception)
