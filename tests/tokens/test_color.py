"""Colours as three codes."""

import pytest
import torch
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.tokens.color import ColorKind

KIND = ColorKind()


def test_levels_are_codes_and_spans():
    assert KIND.decode(KIND.encode((0, 128, 255))) == (0, 128, 255)
    assert KIND.read(f"It is {KIND.text((7, 8, 9))}.") == [(7, 8, 9)]
    drawn = KIND.draw([(255, 0, 0), (0, 0, 255)], Image.new("RGB", (8, 8)))
    assert (drawn.getpixel((0, 3)), drawn.getpixel((7, 3))) == ((255, 0, 0), (0, 0, 255))


@pytest.mark.parametrize("levels", [(1, 2), (1, 2, 256), (-1, 0, 0)])
def test_what_is_no_colour_is_refused(levels):
    with pytest.raises(AuroraError, match="three levels from 0 to 255"):
        KIND.encode(levels)


def test_the_reconstruction_loss_is_ordinal():
    def picture(*levels):
        return KIND.reconstruct(torch.nn.functional.one_hot(torch.tensor([levels]), 256).float())

    true = picture(100, 0, 255)
    assert true[0, :, 0, 0].tolist() == pytest.approx([100 / 255, 0, 1])
    errors = [KIND.picture_error(picture(level, 0, 255), true).item() for level in (100, 101, 110, 200)]
    assert errors[0] == 0
    assert errors == sorted(set(errors))
    spread = torch.zeros(1, 3, 256)
    spread[0, :, 40] = spread[0, :, 60] = 0.5
    assert KIND.reconstruct(spread)[0, :, 0, 0].tolist() == pytest.approx([50 / 255] * 3)


def test_likeness_falls_with_the_difference():
    assert KIND.compare((1, 2, 3), (1, 2, 3)) == 1
    assert KIND.compare((0, 0, 0), (255, 255, 255)) == 0
    assert KIND.compare((10, 0, 0), (40, 0, 0)) == pytest.approx(1 - 30 / (3 * 255))
