"""Folders of maps to files of codes and back, in Python and by command; files that are damaged or another VQ-VAE's."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import llava_aurora
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.vqvae import DepthVQVAE, DepthVQVAEConfig, build_depth_vqvae, fingerprint
from llava_aurora.vqvae.code_files import EncodedMap, codes_writer
from llava_aurora.vqvae.folders import decode_file, encode_folder, read_codes


@pytest.fixture
def codes(tmp_path: Path, maps: Path, model: DepthVQVAE) -> Path:
    report = encode_folder(model=model, maps=maps, out=tmp_path / "codes.parquet", batch_size=2, workers=2)
    assert (report.written, report.failures) == (5, [])
    return tmp_path / "codes.parquet"


@pytest.mark.parametrize("workers", [0, 3])
def test_a_folder_becomes_codes_and_pictures(tmp_path: Path, maps: Path, model: DepthVQVAE, workers: int):
    report = encode_folder(model=model, maps=maps, out=tmp_path / "codes.parquet", batch_size=2, workers=workers)
    assert (report.written, report.failures) == (5, [])
    content = read_codes(tmp_path / "codes.parquet", model=model)
    assert (content.fingerprint, content.grid, content.codebook_size) == (fingerprint(model), 4, 16)
    assert sorted(content.codes) == ["a", "b.c", "e", "room/d", "room/ä"]
    with Image.open(maps / "a.png") as picture:
        assert content.codes["a"] == model.encode_array(np.asarray(picture))
    report = decode_file(
        model=model, codes=tmp_path / "codes.parquet", out=tmp_path / "out", size=(20, 30), batch_size=2
    )
    assert (report.written, report.failures) == (5, [])
    with Image.open(tmp_path / "out" / "room" / "ä.png") as picture:
        decoded = np.asarray(picture)
    expected = model.decode_codes(content.codes["room/ä"], size=(20, 30))
    # A batch may round differently from a single map.
    assert np.abs(decoded.astype(int) - expected).max() <= 1


def test_unusable_maps_are_listed_and_the_others_encoded(tmp_path: Path, maps: Path, model: DepthVQVAE):
    (maps / "broken.png").write_bytes(b"no picture")
    np.save(maps / "a.npy", np.full((4, 4), 0.5))  # a second map called "a"
    report = encode_folder(model=model, maps=maps, out=tmp_path / "codes.parquet")
    assert report.written == 5
    assert [failure.split(":")[0] for failure in report.failures] == [str(maps / "a.png"), str(maps / "broken.png")]
    assert "another map of this folder is called a too" in report.failures[0]


def test_a_folder_without_one_usable_map_writes_nothing(tmp_path: Path, model: DepthVQVAE):
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    with pytest.raises(
        AuroraError, match=r"none of its 1 maps could be used, the first because of: .*a\.npy: .*all zero"
    ):
        encode_folder(model=model, maps=tmp_path, out=tmp_path / "codes.parquet")
    assert not (tmp_path / "codes.parquet").exists()


def test_a_row_has_path_size_and_codes_of_one_byte(codes: Path, model: DepthVQVAE):
    table = pq.read_table(codes)
    assert table.schema.field("codes").type.list_size == 16
    assert table.schema.field("codes").type.value_type == pa.uint8()
    rows = {row["map"]: (row["height"], row["width"]) for row in table.to_pylist()}
    assert rows == {
        "a.png": (20, 30),
        "b.c.png": (20, 31),
        "e.npy": (16, 16),
        "room/d.png": (20, 32),
        "room/ä.png": (20, 33),
    }
    assert json.loads(table.schema.metadata[b"llava_aurora"])["fingerprint"] == fingerprint(model)


def test_more_than_256_codes_need_two_bytes(tmp_path: Path):
    config = DepthVQVAEConfig(image_size=16, channels=(4, 8), residual_blocks=1, code_dim=4, codebook_size=257)
    large = build_depth_vqvae(config, seed=0)
    with codes_writer(tmp_path / "codes.parquet", large) as add:
        add([EncodedMap("a.png", (9, 9), [256] * 16)])
    assert pq.read_schema(tmp_path / "codes.parquet").field("codes").type.value_type == pa.uint16()
    assert read_codes(tmp_path / "codes.parquet", model=large).codes == {"a": [256] * 16}


def test_many_maps_are_written_in_parts(tmp_path: Path, model: DepthVQVAE):
    with codes_writer(tmp_path / "codes.parquet", model) as add:
        for start in range(0, 20_000, 100):
            add([EncodedMap(f"{number:05}.png", (9, 9), [number % 16] * 16) for number in range(start, start + 100)])
    assert pq.ParquetFile(tmp_path / "codes.parquet").num_row_groups == 3
    content = read_codes(tmp_path / "codes.parquet", model=model).codes
    assert len(content) == 20_000
    assert content["12345"] == [12345 % 16] * 16


def test_codes_of_another_vqvae_are_refused(tmp_path: Path, codes: Path, model: DepthVQVAE):
    other = build_depth_vqvae(model.config, seed=2)
    with pytest.raises(AuroraError, match=r"codes\.parquet: made with another VQ-VAE: fingerprint is"):
        read_codes(codes, model=other)
    with pytest.raises(AuroraError, match="made with another VQ-VAE"):
        decode_file(model=other, codes=codes, out=tmp_path / "out")


def rewrite(path: Path, **columns: pa.Array) -> None:
    """The file with other columns under the same schema."""
    table = pq.read_table(path)
    arrays = {name: columns.get(name, table[name]) for name in table.column_names}
    pq.write_table(pa.table(arrays, schema=table.schema), path)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["a.png", "../b.png", "c.png", "d.png", "e.png"], "row 1: the name '../b' leads out of the folder"),
        (["a.png", "b.png", "/c.png", "d.png", "e.png"], "row 2: the name '/c' leads out of the folder"),
        (["a.png", "b.png", "c.png", "", "e.png"], "row 3: the name '' leads out of the folder"),
        (["a.png", "b.png", "c.png", "d.png", "a.npy"], "row 4: the name 'a' occurs twice"),
    ],
)
def test_a_row_with_a_bad_name_is_named(tmp_path: Path, codes: Path, model: DepthVQVAE, names: list, problem: str):
    rewrite(codes, map=pa.array(names))
    with pytest.raises(AuroraError, match=rf"codes\.parquet: {problem}"):
        read_codes(codes, model=model)
    report = decode_file(model=model, codes=codes, out=tmp_path / "deep" / "out")
    assert (report.written, report.failures) == (4, [f"{codes}: {problem}"])
    assert not list(tmp_path.glob("deep/*.png"))


def test_a_row_with_a_code_that_is_none_is_named(tmp_path: Path, codes: Path, model: DepthVQVAE):
    values = pa.array([3] * 79 + [16], pa.uint8())
    rewrite(codes, codes=pa.FixedSizeListArray.from_arrays(values, type=pq.read_schema(codes).field("codes").type))
    with pytest.raises(AuroraError, match=r"row 4: a code is not in \[0, 16\)"):
        read_codes(codes, model=model)
    assert decode_file(model=model, codes=codes, out=tmp_path / "out").written == 4


def test_files_that_are_no_codes_are_refused(tmp_path: Path, codes: Path, model: DepthVQVAE):
    table = pq.read_table(codes)
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "bare.parquet")
    with pytest.raises(AuroraError, match="its metadata is not the header of a file of depth codes"):
        read_codes(tmp_path / "bare.parquet", model=model)
    pq.write_table(table.drop_columns(["width"]), tmp_path / "narrow.parquet")
    with pytest.raises(AuroraError, match="the columns are not those of depth codes: map, height, width, codes"):
        read_codes(tmp_path / "narrow.parquet", model=model)
    (tmp_path / "half.parquet").write_bytes(codes.read_bytes()[:200])
    for name in ("half.parquet", "nowhere.parquet"):
        with pytest.raises(AuroraError, match=rf"{name}: cannot read the codes"):
            read_codes(tmp_path / name, model=model)


def test_no_half_file_is_left(tmp_path: Path, maps: Path, model: DepthVQVAE, monkeypatch):
    def stop(self, depth):
        raise KeyboardInterrupt

    monkeypatch.setattr(DepthVQVAE, "encode", stop)
    with pytest.raises(KeyboardInterrupt):
        encode_folder(model=model, maps=maps, out=tmp_path / "codes.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps"]
    with pytest.raises(AuroraError, match=r"ends in \.parquet"):
        encode_folder(model=model, maps=maps, out=tmp_path / "codes.jsonl")


def test_the_commands_train_encode_and_decode(tmp_path: Path, maps: Path):
    def run(*arguments: object):
        return llava_aurora("vqvae", *arguments)

    vqvae, codes, out = tmp_path / "vqvae", tmp_path / "codes.parquet", tmp_path / "out"
    shape = ["--image-size", 16, "--channels", "4,8", "--code-dim", 4, "--codebook-size", 16]
    result = run("train", maps, "--out", vqvae, *shape, "--epochs", 1, "--batch-size", 2, "--learning-rate", 1e-3)
    assert result.exit_code == 0, result.output
    assert json.loads((vqvae / "config.json").read_text())["channels"] == [4, 8]
    result = run("encode", maps, "--vqvae", vqvae, "--out", codes, "--workers", 2)
    assert result.exit_code == 0, result.output
    assert "maps per second" in result.output
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
        (["--channels", "4,x"], "--channels 4,x: expected numbers"),
        (["--device", "abacus"], "--device abacus: not usable here"),
    ],
)
def test_the_commands_refuse_what_cannot_be(tmp_path: Path, maps: Path, arguments: list[str], message: str):
    result = llava_aurora("vqvae", "train", maps, "--out", tmp_path / "vqvae", *arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, AuroraError)
    assert message in str(result.exception)
