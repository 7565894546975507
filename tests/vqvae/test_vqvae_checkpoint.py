"""VQ-VAEs on disk: our folders, the published layout, and everything that is neither."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from llava_aurora.errors import AuroraError
from llava_aurora.vqvae import (
    DepthVQVAE,
    DepthVQVAEConfig,
    build_depth_vqvae,
    fingerprint,
    load_depth_vqvae,
    save_depth_vqvae,
)

TINY = DepthVQVAEConfig(image_size=32, channels=(3, 4), code_dim=5, codebook_size=6, decay=0.9)


@pytest.fixture
def model() -> DepthVQVAE:
    return build_depth_vqvae(TINY, seed=1)


def published(prefix: str = "") -> dict[str, torch.Tensor]:
    """Small weights under every name of the published layout, spelled out."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {}
    widths = [1, 2, 3, 4, 5, 6]
    for level in range(5):
        shapes[f"encoder.{2 * level}"] = (widths[level + 1], widths[level], 4, 4)
    for side, blocks in (("encoder", (10, 11)), ("decoder", (2, 3))):
        for block in blocks:
            shapes[f"{side}.{block}.net.0"] = (6, 6, 3, 3)
            shapes[f"{side}.{block}.net.2"] = (6, 6, 3, 3)
            shapes[f"{side}.{block}.net.4"] = (6, 6, 1, 1)
    shapes["encoder.12"] = (7, 6, 1, 1)
    shapes["decoder.0"] = (6, 7, 1, 1)
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator)
        weights[f"{name}.bias"] = torch.randn(shape[0], generator=generator)
    for index, (inner, outer) in zip((4, 6, 8, 10, 12), ((6, 6), (6, 5), (5, 4), (4, 3), (3, 2)), strict=True):
        weights[f"decoder.{index}.weight"] = torch.randn(inner, outer, 4, 4, generator=generator)
        weights[f"decoder.{index}.bias"] = torch.randn(outer, generator=generator)
    weights["decoder.14.weight"] = torch.randn(1, 2, 1, 1, generator=generator)
    weights["decoder.14.bias"] = torch.randn(1, generator=generator)
    weights["_vq_vae._embedding"] = torch.randn(9, 7, generator=generator)
    weights["_vq_vae._ema_cluster_size"] = torch.rand(9, generator=generator)
    weights["_vq_vae._ema_w"] = torch.randn(9, 7, generator=generator)
    return {prefix + name: tensor for name, tensor in weights.items()}


def test_a_saved_model_comes_back_the_same(tmp_path: Path, model: DepthVQVAE):
    save_depth_vqvae(model, tmp_path / "vqvae")
    again = load_depth_vqvae(tmp_path / "vqvae")
    assert sorted(path.name for path in (tmp_path / "vqvae").iterdir()) == ["config.json", "model.safetensors"]
    assert again.config == TINY
    assert not again.training
    assert fingerprint(again) == fingerprint(model)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_fingerprint_names_what_decides_the_codes(model: DepthVQVAE):
    name = fingerprint(model)
    assert name == fingerprint(build_depth_vqvae(TINY, seed=1).to(memory_format=torch.channels_last))
    model.quantizer.cluster_size += 1
    assert fingerprint(model) == name
    model.quantizer.codebook[0, 0] += 1
    assert fingerprint(model) != name
    assert fingerprint(build_depth_vqvae(TINY, seed=2)) != name


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_published_layout_maps_name_by_name(tmp_path: Path, prefix: str):
    weights = published(prefix)
    torch.save({"weights": weights, "epoch": 3}, tmp_path / "vqvae.pt")
    model = load_depth_vqvae(tmp_path / "vqvae.pt")
    assert model.config.channels == (2, 3, 4, 5, 6)
    assert (model.config.image_size, model.grid, model.config.codebook_size, model.config.code_dim) == (320, 10, 9, 7)
    ours = model.state_dict()
    for name, tensor in published().items():
        if not name.startswith("_vq_vae."):
            assert torch.equal(ours[name], tensor), name
    assert torch.equal(ours["quantizer.codebook"], published()["_vq_vae._embedding"])
    assert torch.equal(ours["quantizer.cluster_size"], published()["_vq_vae._ema_cluster_size"])
    assert torch.equal(ours["quantizer.cluster_sum"], published()["_vq_vae._ema_w"])


def test_the_default_model_has_exactly_the_published_names():
    names = set(build_depth_vqvae(DepthVQVAEConfig()).state_dict())
    mapped = {name for name in published() if not name.startswith("_vq_vae.")}
    assert names - mapped == {f"quantizer.{part}" for part in ("codebook", "cluster_size", "cluster_sum", "updates")}
    assert mapped <= names


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("encoder.4.weight", (4, 3, 3, 3), r"encoder\.4\.weight: expected shape \(4, 3, 4, 4\), found \(4, 3, 3, 3\)"),
        ("_vq_vae._ema_w", (9, 8), r"_vq_vae\._ema_w: expected shape \(9, 7\), found \(9, 8\)"),
        ("decoder.14.bias", None, r"tensor decoder\.14\.bias \(1,\) is missing"),
        ("_vq_vae._embedding", None, "_embedding` .* is missing"),
        ("decoder.99.bias", (1,), r"unexpected tensor decoder\.99\.bias"),
    ],
)
def test_published_weights_that_do_not_fit_are_named(tmp_path: Path, name: str, shape: tuple | None, message: str):
    weights = published()
    weights.pop(name, None)
    if shape is not None:
        weights[name] = torch.zeros(shape)
    torch.save({"weights": weights}, tmp_path / "vqvae.pth")
    with pytest.raises(AuroraError, match=rf"vqvae\.pth: .*{message}"):
        load_depth_vqvae(tmp_path / "vqvae.pth")


class Payload:
    ran = False

    def __reduce__(self):
        return setattr, (Payload, "ran", True)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path):
    path = tmp_path / "evil.pt"
    torch.save({"weights": published(), "extra": Payload()}, path)
    with pytest.raises(AuroraError, match=r"evil\.pt: refused"):
        load_depth_vqvae(path)
    path.write_bytes(pickle.dumps({"weights": Payload()}))
    with pytest.raises(AuroraError, match=r"evil\.pt"):
        load_depth_vqvae(path)
    assert not Payload.ran


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off", b"\x80\x02}q"])
def test_files_of_something_else_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(AuroraError, match=r"x\.pt: "):
        load_depth_vqvae(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [{"model": {}}, {"weights": [1]}, [1, 2]])
def test_a_file_without_weights_says_what_was_expected(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(AuroraError, match="dictionary of tensors under the key `weights`"):
        load_depth_vqvae(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_says_which(tmp_path: Path, model: DepthVQVAE, name: str):
    save_depth_vqvae(model, tmp_path / "vqvae")
    (tmp_path / "vqvae" / name).unlink()
    with pytest.raises(AuroraError, match=f"vqvae: not a depth VQ-VAE, {name} is missing"):
        load_depth_vqvae(tmp_path / "vqvae")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "config.json: model_type"),
        ({"colour": 1}, "config.json: unknown settings colour"),
        ({"image_size": 33}, "config.json: image_size 33 is not a multiple"),
        ({"channels": 4}, "config.json: a setting has the wrong type"),
        ({"code_dim": 6}, r"safetensors: tensor encoder\.6\.weight: expected shape \(6, 4, 1, 1\), found \(5, 4"),
        ({"image_size": 64}, "safetensors: not the weights that config.json"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(tmp_path: Path, model: DepthVQVAE, change: dict, message: str):
    save_depth_vqvae(model, tmp_path / "vqvae")
    config = tmp_path / "vqvae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(AuroraError, match=message):
        load_depth_vqvae(tmp_path / "vqvae")


def test_damaged_weights_are_named(tmp_path: Path, model: DepthVQVAE):
    save_depth_vqvae(model, tmp_path / "vqvae")
    weights = tmp_path / "vqvae" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(AuroraError, match="safetensors: cannot read the weights"):
        load_depth_vqvae(tmp_path / "vqvae")


def test_saving_replaces_a_vqvae_but_no_other_folder(tmp_path: Path, model: DepthVQVAE):
    save_depth_vqvae(build_depth_vqvae(TINY, seed=9), tmp_path / "vqvae")
    save_depth_vqvae(model, tmp_path / "vqvae")
    assert fingerprint(load_depth_vqvae(tmp_path / "vqvae")) == fingerprint(model)
    (tmp_path / "vqvae" / "thesis.tex").write_text("years of work")
    with pytest.raises(AuroraError, match=r"thesis\.tex"):
        save_depth_vqvae(model, tmp_path / "vqvae")
    assert (tmp_path / "vqvae" / "thesis.tex").exists()


def test_no_such_path(tmp_path: Path):
    with pytest.raises(AuroraError, match="nowhere: expected a VQ-VAE folder or a published"):
        load_depth_vqvae(tmp_path / "nowhere")
