"""Boxes and points as coordinates in the frame."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.tokens.box import BoxKind

BOX = BoxKind(frame=336)
coordinate = st.floats(0, 336, allow_nan=False)


@given(coordinate, coordinate, coordinate, coordinate)
def test_every_valid_box_is_written_within_a_pixel_and_right_way_up(x1, y1, x2, y2):
    if x1 >= x2 or y1 >= y2:
        with pytest.raises(AuroraError, match="upside down"):
            BOX.encode((x1, y1, x2, y2))
        return
    codes = BOX.encode((x1, y1, x2, y2))
    assert codes[0] < codes[2]
    assert codes[1] < codes[3]
    assert all(abs(code - value) <= 2 for code, value in zip(codes, (x1, y1, x2, y2), strict=True))
    assert BOX.read(BOX.text((x1, y1, x2, y2))) == [tuple(codes)]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ((10, 10, 5, 20), "upside down"),
        ((10, 10, 20, 337), "outside the frame of 336"),
        ((-1, 0, 5, 5), "outside the frame"),
        ((math.nan, 0, 5, 5), "outside the frame"),
        ((336, 0), "outside the frame"),
        ((1, 2, 3), "4 coordinates and a point 2, not 3"),
    ],
)
def test_bad_boxes_are_refused(annotation, message):
    with pytest.raises(AuroraError, match=message):
        BOX.encode(annotation)


@given(st.integers(0, 335), st.integers(0, 335))
def test_the_decoder_allows_only_boxes_that_can_be_encoded(x1, y1):
    allowed = BOX.allowed_codes([x1, y1])
    if 335 in (x1, y1):
        assert not allowed
        return
    assert (allowed.start, allowed.stop) == (x1 + 1, 336)
    assert BOX.allowed_codes([x1, y1, 335]).start == y1 + 1
    assert BOX.encode((x1, y1, allowed.start, y1 + 1)) == [x1, y1, x1 + 1, y1 + 1]


def test_a_picture_shows_the_box_where_it_is():
    image = Image.new("RGB", (168, 168))
    drawn = np.asarray(BOX.draw([(100, 100, 200, 200)], image)).any(axis=2)
    rows, columns = np.nonzero(drawn[:, :])
    assert rows.min() >= 48
    assert columns.min() == 50
    assert drawn[100, 60]
    assert drawn[60, 100]
    assert not drawn[75, 90]


@pytest.mark.parametrize("frame", [0, 1, 10**9, True, "56", 56.0])
def test_frames_that_no_image_has_are_refused(frame):
    with pytest.raises(AuroraError, match="a coordinate frame has from 2 to 65536 pixels"):
        BoxKind(frame=frame)
