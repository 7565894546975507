"""Models to evaluate that need no training: they do what a test says."""

import numpy as np
import pytest
from plain_kind import PlainKind
from stub_predictor import StubPredictor
from transformers import AutoTokenizer

from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import depth_family
from llava_aurora.vqvae.maps import resize_nearest

FRAME, GRID, LEVELS = 56, 8, 16


class PlainDepth(PlainKind):
    """Depth maps of 8 × 8 cells in 16 levels, without a VQ-VAE: what a code means is plain to see."""

    name = "depth"
    order = 10

    def __init__(self):
        self.family = depth_family(codebook_size=LEVELS, codes_per_map=GRID**2)

    def encode(self, annotation):
        cells = resize_nearest(annotation, (4 * GRID, 4 * GRID)).reshape(GRID, 4, GRID, 4)
        return (np.median(cells, axis=(1, 3)) // LEVELS).astype(int).ravel().tolist()

    def decode(self, codes):
        cells = (np.array(codes) * LEVELS + LEVELS // 2).astype(np.uint8).reshape(GRID, GRID)
        return np.kron(cells, np.ones((8, 8), np.uint8))

    code_depths = np.arange(LEVELS) * LEVELS + LEVELS // 2

    def cells_around(self, point, *, frame):
        """The point's own cell, so that what a code means stays plain to see."""
        x, y = (place * GRID // frame for place in point)
        return {y * GRID + x: 1.0}

    def depth_between_cells(self, codes, point, *, frame):
        (cell,) = self.cells_around(point, frame=frame)
        return int(self.code_depths[codes[cell]])


@pytest.fixture(scope="session")
def plain_depth():
    return PlainDepth()


@pytest.fixture(scope="session")
def stub(workshop, plain_depth):
    """Makes a model out of what it answers."""
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)
    perception = PerceptionTokens.teach(tokenizer, {"depth": plain_depth, "box": BoxKind(frame=FRAME)})
    return lambda respond: StubPredictor(tokenizer, perception, respond)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A folder of 24 small ray-cast scenes."""
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    write_scenes(out=folder, count=24, seed=5, config=SceneConfig(frame=84, shadows=False, antialias=False))
    return folder
