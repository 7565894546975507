"""A map shows what is written of it, and nothing that was written becomes more than text."""

import base64
import io
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from llava_aurora.serving.view import UNWRITTEN, AnswerView, partial_map, written_codes
from llava_aurora.tokens.depth import color_map

CODES = (3, 1, 4, 1, 5, 9, 2, 6, 5)
EVIL = """<script>alert(1)</script><img src=x onerror="alert('&')">{{ 7 * 7 }}${7*7}"""


class Elements(HTMLParser):
    """How many there are of each element, and all the text."""

    def __init__(self, page):
        super().__init__()
        self.names, self.text = Counter(), ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names[tag] += 1

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def view(aurora):
    return AnswerView(perception=aurora.model.perception)


def picture(html):
    (data,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', html)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_codes_are_read_after_every_character(aurora):
    family = aurora.family
    tokens = [family.start, *map(family.token, CODES), family.end]
    text = "The depth map is " + "".join(tokens) + ". So"
    for end in range(len(text) + 1):
        whole = sum(
            text.find(token, 17) >= 0 and end >= 17 + len("".join(tokens[: n + 1])) for n, token in enumerate(tokens)
        )
        assert written_codes(text[:end], family) == CODES[: max(0, min(whole, len(CODES) + 1) - 1)]


def test_the_last_map_counts(aurora):
    family = aurora.family
    text = family.text(CODES) + " and " + family.start + family.token(7)
    assert written_codes(text, family) == (7,)


def test_a_malformed_span_has_no_codes(aurora):
    family = aurora.family
    for text in (family.token(1) * 12, "words " + family.token(1), family.token(1).replace("1", "99")):
        assert written_codes(family.start + text, family) == ()


def test_cells_without_a_code_are_grey(aurora):
    depth = aurora.model.perception.kinds["depth"]
    half = np.asarray(partial_map(depth, CODES[:4]))
    assert half.shape == (48, 48, 3)
    written = np.zeros((48, 48), bool)
    written[:16] = True
    written[16:32, :16] = True
    assert (half[~written] == UNWRITTEN).all()
    assert (half[written] != UNWRITTEN).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(np.asarray(partial_map(depth, CODES)), np.asarray(color_map(depth.decode(CODES))))


def test_a_map_is_stretched_over_the_image(view, aurora):
    count, html = view.map(aurora.family.text(CODES), (640, 320))
    assert count == 9
    assert picture(html).size == (480, 240)
    assert "bright = close" in html
    assert view.map("no map so far", (640, 320))[0] == 0
    count, html = view.map(aurora.family.start + aurora.family.token(1), (640, 320))
    assert count == 1
    assert "1 of 9 codes" in html


def test_a_chain_reads_with_maps_folded_and_coordinates_as_numbers(view, aurora):
    text = "".join(aurora.pieces)
    assert (
        Elements(view.chain(text)).text
        == "Look at (14,14,28,28). The depth map is [depth map, 9 codes]. The answer is (B)."
    )
    cut = text[: text.index(aurora.family.token(4))]
    assert Elements(view.chain(cut)).text.endswith("The depth map is [depth map, 4 of 9 codes]")


def test_boxes_and_points_stand_where_they_are_in_the_image(view):
    html = view.picture(Image.new("RGB", (200, 100)), boxes=[(10, 20, 60, 80)], points={"A": (5, 6)})
    assert 'viewBox="0 0 200 100"' in html
    assert '<rect x="10" y="20" width="50" height="60"' in html
    assert '<circle cx="5" cy="6"' in html
    assert "1 box" in html


def test_what_was_written_is_text_and_nothing_else(view, aurora):
    aurora.answer = EVIL
    *_, result = aurora.stream(Image.new("RGB", (20, 20)), "?", reasoning="direct")
    for html in (view.chain(EVIL), view.answer(result)):
        elements = Elements(html)
        assert set(elements.names) <= {"div", "span"}
        assert EVIL in elements.text


def test_a_model_without_perception_tokens_has_text_alone():
    view = AnswerView(perception=None)
    assert view.map("<DEPTH_START>", (20, 20), whole=True)[0] == 0
    assert Elements(view.chain("A cat.")).text == "A cat."
