"""Points of a question, in the image's own pixels: drawn into the image, or named by coordinates."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.forms import LETTERS
from llava_aurora.tasks.marks import REFERENCE_FRAME, draw_points

if TYPE_CHECKING:
    from llava_aurora.generation.predictor import Predictor

PLACE = "{points}"  # in a question: where coordinates go
Points = Mapping[str, Sequence[float]]  # (x, y) in pixels of the image, by letter


def with_points(predictor: "Predictor", image: Image.Image, question: str, points: Points) -> tuple[Image.Image, str]:
    """The image and question as the model is to get them.

    Args:
        image: upright RGB.
        question: `{points}` in it is replaced by letters and coordinates, such as "A (<PIXEL_50>,<PIXEL_36>)"; without
            that the points are drawn into the image, as in records about marked points.
    Raises AuroraError for a name that is no capital letter, a point outside the image, or coordinates for a model that
    has no tokens for them.
    """
    for letter, (x, y) in points.items():
        if letter not in tuple(LETTERS):
            raise AuroraError(f"point {letter!r}: points are named by one capital letter, such as A")
        if not (0 <= x < image.width and 0 <= y < image.height):
            raise AuroraError(
                f"point {letter} ({x:g}, {y:g}) is outside the image, {image.width} × {image.height} pixels"
            )
    places = [(int(x), int(y)) for x, y in points.values()]
    seen = predictor.model.config, predictor.image_processor
    size = {"width": image.width, "height": image.height}
    if PLACE not in question:
        into = FrameTransform.of_model(*seen, **size, frame=REFERENCE_FRAME)
        side = round(REFERENCE_FRAME / max(into.scale))
        return Image.fromarray(draw_points(np.asarray(image), places, list(points), side=side)), question
    kinds = predictor.perception.kinds if predictor.perception is not None else {}
    box = kinds.get("box")
    if box is None or box.frame is None:
        raise AuroraError(f"this model has no coordinate tokens for {PLACE}; leave it out to have the points drawn")
    into = FrameTransform.of_model(*seen, **size, frame=box.frame)
    named = (f"{letter} {box.family.text(into.pixel(place))}" for letter, place in zip(points, places, strict=True))
    return image, question.replace(PLACE, ", ".join(named))
