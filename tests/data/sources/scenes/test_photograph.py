import sys

import numpy as np
import pytest

from llava_aurora.data.sources.scenes.photograph import fill_unknown, load_photograph
from llava_aurora.errors import AuroraError


@pytest.mark.parametrize("frame", [112, 336])
def test_photograph_has_metric_depth_everywhere(frame):
    pytest.importorskip("skimage")
    photograph = load_photograph(frame=frame)
    assert photograph.image.shape == (frame, frame, 3)
    assert photograph.image.dtype == np.uint8
    assert photograph.depth.shape == photograph.known.shape == (frame, frame)
    assert photograph.depth.dtype == np.float32
    assert 2.0 < photograph.depth.min() < 2.3
    assert 4.8 < photograph.depth.max() < 5.0
    assert 0.85 < photograph.known.mean() < 1


def test_photograph_agrees_with_the_copy_that_scikit_image_loads():
    data = pytest.importorskip("skimage.data")
    left, _, disparity = data.stereo_motorcycle()
    photograph = load_photograph(frame=500)
    square = slice(120, 620)
    assert np.array_equal(photograph.image, left[:, square])
    known = np.isfinite(disparity[:, square])
    assert np.array_equal(photograph.known, known)
    depth = 994.978 * 0.193001 / (disparity[:, square][known] + 31.086)
    assert np.allclose(photograph.depth[known], depth, rtol=1e-6)


def test_gaps_take_the_farther_neighbour_and_empty_rows_the_nearest_row():
    unknown = np.nan
    disparity = np.array([[9.0, unknown, 4.0, unknown], [unknown] * 4, [unknown] * 4, [unknown, 2.0, unknown, 5.0]])
    filled = fill_unknown(disparity, np.isfinite(disparity))
    top, bottom = [9.0, 4.0, 4.0, 4.0], [2.0, 2.0, 2.0, 5.0]
    assert filled.tolist() == [top, top, bottom, bottom]


def test_missing_scikit_image_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(AuroraError, match=r"pip install 'llava-aurora\[demo\]'"):
        load_photograph()
