"""A toy token kind. Run as a script, it trains as scripts/finetune_aurora.sh does, with this kind registered."""

import numpy as np
from PIL import Image

from llava_aurora.tokens import TokenKind, register_kind
from llava_aurora.tokens.vocabulary import TokenFamily


class Brightness(TokenKind):
    """Mean brightness of the four quarters of a grey image, in `levels` steps."""

    name = "brightness"
    order = 30

    def __init__(self, *, levels: int) -> None:
        self.levels = levels
        self.family = TokenFamily("LIGHT", levels, (4,), delimited=True, kind="brightness")

    def encode(self, annotation):
        grey = np.asarray(annotation, dtype=float) / 256
        half = grey.shape[0] // 2, grey.shape[1] // 2
        quarters = [grey[rows, columns] for rows in _halves(half[0]) for columns in _halves(half[1])]
        return [int(quarter.mean() * self.levels) for quarter in quarters]

    def decode(self, codes):
        return np.asarray(codes).reshape(2, 2) * 255 // (self.levels - 1)

    def draw(self, annotations, image):
        return Image.fromarray(annotations[-1].astype(np.uint8)).resize(image.size)

    def settings(self):
        return {"levels": self.levels}

    @classmethod
    def from_settings(cls, settings, folder):
        return cls(**settings)


def _halves(middle):
    return slice(None, middle), slice(middle, None)


if __name__ == "__main__":
    from llava_aurora.training.train import main

    register_kind(Brightness)
    main(__file__)
