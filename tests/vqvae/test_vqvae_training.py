"""Training: it learns, it resumes bit for bit, and what it cannot use it names."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from llava_aurora.errors import AuroraError
from llava_aurora.vqvae import DepthVQVAE, DepthVQVAEConfig, fingerprint, load_depth_vqvae
from llava_aurora.vqvae import training as training_module
from llava_aurora.vqvae.training import train_depth_vqvae

TINY = DepthVQVAEConfig(image_size=16, channels=(4, 8), residual_blocks=1, code_dim=4, codebook_size=16)


def ramps_with_boxes(count: int, size: int = 20) -> np.ndarray:
    """A floor that comes closer towards the bottom, and a box on it: uint8 (count, size, size)."""
    rng = np.random.default_rng(0)
    rows = np.linspace(1, 200, size)[:, None] * np.ones((1, size))
    maps = np.stack([rows * rng.uniform(0.4, 1.0) for _ in range(count)])
    for depth in maps:
        top, left = rng.integers(2, size - 8, 2)
        depth[top : top + 6, left : left + 6] = rng.uniform(100, 255)
    return maps.astype(np.uint8)


MAPS = ramps_with_boxes(24)


def train(out: Path, **options):
    settings = {
        "depth_maps": MAPS,
        "config": TINY,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "decay_steps": 3,
        "epochs": 3,
    }
    return train_depth_vqvae(out=out, **{**settings, **options})


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_depth_vqvae(path).state_dict()


def logs_of(path: Path) -> list[dict]:
    logs = [json.loads(line) for line in (path / "training_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in log.items() if key != "seconds"} for log in logs]


def test_it_learns_and_logs(tmp_path: Path):
    result = train(tmp_path / "vqvae", epochs=20, learning_rate_decay=0.97)
    first, last = result.history[0], result.history[-1]
    assert last.heldout_mse < 0.4 * first.heldout_mse
    assert last.train_mse < 0.4 * first.train_mse
    assert last.codebook_use > 0.5
    assert 1 < last.perplexity <= 16
    assert (last.epoch, last.step) == (20, 20 * 6)
    assert [log["epoch"] for log in logs_of(tmp_path / "vqvae")] == list(range(1, 21))
    assert fingerprint(load_depth_vqvae(tmp_path / "vqvae")) == fingerprint(result.model)
    assert not result.model.training


def test_the_learning_rate_falls_by_steps(tmp_path: Path):
    result = train(tmp_path / "vqvae", learning_rate_decay=0.5, decay_steps=6)
    assert [log.learning_rate for log in result.history] == [3e-3, 1.5e-3, 0.75e-3]


def test_the_defaults_are_the_papers():
    defaults = train_depth_vqvae.__kwdefaults__
    paper = {"epochs": 20, "batch_size": 8, "learning_rate": 3e-4, "learning_rate_decay": 0.98, "decay_steps": 500}
    assert {name: defaults[name] for name in paper} == paper


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(tmp_path / "whole")
    forward, calls = DepthVQVAE.forward, []

    def killed(self: DepthVQVAE, depth: torch.Tensor):
        calls.append(depth)
        if len(calls) > 10:  # in the second epoch
            raise KeyboardInterrupt
        return forward(self, depth)

    with monkeypatch.context() as patched:
        patched.setattr(DepthVQVAE, "forward", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed")
    assert len(logs_of(tmp_path / "killed")) == 1
    torch.rand(3)  # whatever else draws random numbers must not matter
    train(tmp_path / "killed", resume=True)
    assert logs_of(tmp_path / "killed") == logs_of(tmp_path / "whole")
    killed_weights = weights_of(tmp_path / "killed")
    assert all(torch.equal(value, killed_weights[name]) for name, value in weights_of(tmp_path / "whole").items())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_resuming_a_finished_run_changes_nothing_and_more_epochs_go_on(tmp_path: Path):
    train(tmp_path / "vqvae", epochs=1)
    before = (tmp_path / "vqvae" / "model.safetensors").read_bytes()
    assert len(train(tmp_path / "vqvae", epochs=1, resume=True).history) == 1
    assert (tmp_path / "vqvae" / "model.safetensors").read_bytes() == before
    assert len(train(tmp_path / "vqvae", epochs=2, resume=True).history) == 2


def test_a_finished_vqvae_is_not_overwritten(tmp_path: Path):
    train(tmp_path / "vqvae", epochs=1)
    with pytest.raises(AuroraError, match="vqvae: holds a VQ-VAE already"):
        train(tmp_path / "vqvae", epochs=1)


def test_a_run_whose_held_out_error_is_not_finite_writes_nothing(tmp_path: Path):
    with pytest.raises(AuroraError, match="held-out maps is nan after epoch 1; nothing was written; lower"):
        train(tmp_path / "vqvae", learning_rate=1e30, batch_size=len(MAPS))
    assert not (tmp_path / "vqvae").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 1e-3}, "was trained with learning_rate 0.003, but the present setting is 0.001"),
        ({"seed": 1}, "was trained with seed 0"),
        ({"depth_maps": MAPS[:20]}, "was trained with maps 24, but the present setting is 20"),
        ({"config": DepthVQVAEConfig(image_size=16, channels=(4, 4))}, "was trained with channels"),
    ],
)
def test_other_settings_cannot_resume(tmp_path: Path, change: dict, message: str):
    train(tmp_path / "vqvae", epochs=1)
    with pytest.raises(AuroraError, match=message):
        train(tmp_path / "vqvae", resume=True, **change)


def test_a_damaged_state_is_named(tmp_path: Path):
    train(tmp_path / "vqvae", epochs=1)
    state = tmp_path / "vqvae" / "training_state.pt"
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(AuroraError, match=r"training_state\.pt: damaged"):
        train(tmp_path / "vqvae", resume=True)
    state.unlink()
    os.mkfifo(state)
    with pytest.raises(AuroraError, match="not a regular file"):
        train(tmp_path / "vqvae", resume=True)


def test_a_nan_loss_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(tmp_path / "vqvae", epochs=1)
    good = (tmp_path / "vqvae" / "model.safetensors").read_bytes()
    monkeypatch.setattr(training_module, "to_model_range", lambda frames: torch.full(frames.shape, float("nan")))
    with pytest.raises(AuroraError, match="the loss is nan at step 7; the checkpoint of epoch 1 is kept"):
        train(tmp_path / "vqvae", resume=True)
    assert (tmp_path / "vqvae" / "model.safetensors").read_bytes() == good


def test_maps_too_many_for_memory_are_read_again_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(tmp_path / "cached", epochs=1)
    monkeypatch.setattr(training_module, "CACHE_LIMIT", 0)
    train(tmp_path / "lazy", epochs=1)
    assert logs_of(tmp_path / "cached") == logs_of(tmp_path / "lazy")


def test_unusable_maps_are_named_before_anything_is_written(tmp_path: Path):
    broken = [*MAPS[:3], np.zeros((20, 20), np.uint8)]
    with pytest.raises(AuroraError, match="depth map 3: it is all zero"):
        train(tmp_path / "vqvae", depth_maps=broken)
    with pytest.raises(AuroraError, match="at least 2 depth maps"):
        train(tmp_path / "vqvae", depth_maps=MAPS[:1])
    folder = tmp_path / "maps"
    folder.mkdir()
    np.save(folder / "a.npy", MAPS[0])
    (folder / "b.png").write_bytes(b"no picture")
    with pytest.raises(AuroraError, match=r"b\.png: not a usable depth map"):
        train(tmp_path / "vqvae", depth_maps=folder)
    assert not (tmp_path / "vqvae").exists()
