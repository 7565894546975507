"""A map shows the codes that are written so far."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from llava_aurora.serving.view import last_span, span_html, written_codes
from llava_aurora.tokens.depth import UNWRITTEN, color_map

CODES = (3, 1, 4, 1, 5, 9, 2, 6, 5)


@pytest.fixture
def depth(aurora):
    return aurora.model.perception.kinds["depth"]


def test_codes_are_read_after_every_character(aurora):
    family = aurora.family
    tokens = [family.start, *map(family.token, CODES), family.end]
    text = "The depth map is " + "".join(tokens) + ". So"
    ends = [text.index(tokens[0]) + len("".join(tokens[: count + 1])) for count in range(len(tokens))]
    for end in range(len(text) + 1):
        whole = sum(end >= each for each in ends) - 1  # tokens behind the first
        assert written_codes(text[:end], family) == CODES[: max(0, whole)]


def test_the_last_map_counts_and_a_malformed_one_has_no_codes(aurora):
    family = aurora.family
    assert written_codes(family.text(CODES) + " and " + family.start + family.token(7), family) == (7,)
    for text in (family.token(1) * 12, "words " + family.token(1), family.token(1).replace("1", "99"), ""):
        assert written_codes(family.start + text, family) == ()
    assert written_codes(family.token(1), family) == ()


def test_cells_without_a_code_are_grey(depth):
    half = np.asarray(depth.draw_written(CODES[:4]))
    assert half.shape == (48, 48, 3)
    written = np.zeros((48, 48), bool)
    written[:16] = True
    written[16:32, :16] = True
    assert (half[~written] == UNWRITTEN).all()
    assert (half[written] != UNWRITTEN).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(np.asarray(depth.draw_written(CODES)), np.asarray(color_map(depth.decode(CODES))))


def test_a_map_is_stretched_over_the_image(depth):
    html = span_html(depth, CODES, (640, 320))
    (data,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', html)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (480, 240)
    assert "bright = close" in html
    assert "1 of 9 codes" in span_html(depth, CODES[:1], (640, 320))


def test_the_span_that_began_last_is_shown(aurora, depth):
    kinds, text = aurora.model.perception.kinds.values(), depth.family.text(CODES)
    assert last_span(text + "(<PIXEL_1>,<PIXEL_2>)", kinds) == (depth, CODES)
    assert last_span("(<PIXEL_1>,<PIXEL_2>)", kinds) is None
    assert last_span(text + depth.family.start, kinds) is None  # begun, without a code
