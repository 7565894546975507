"""Models of a few thousand weights: a second thread only waits, and on busy cores for long."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from llava_aurora.vqvae import DepthVQVAE, DepthVQVAEConfig, build_depth_vqvae


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model() -> DepthVQVAE:
    """4 × 4 codes of 16 a map."""
    config = DepthVQVAEConfig(image_size=16, channels=(4, 8), residual_blocks=1, code_dim=4, codebook_size=16)
    return build_depth_vqvae(config, seed=1).eval()


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "maps"
    (folder / "room").mkdir(parents=True)
    for number, name in enumerate(("a", "b.c", "room/d", "room/ä")):
        Image.fromarray(rng.integers(1, 256, (20, 30 + number), dtype=np.uint8)).save(folder / f"{name}.png")
    np.save(folder / "e.npy", rng.uniform(0, 1, (16, 16)))
    (folder / ".f-half-written.png").write_bytes(b"")
    return folder
