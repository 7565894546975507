"""The contract of a token kind, and the registry of all kinds.

A kind turns an annotation of an image (a depth map, a box) into codes and back; codes are written as tokens of its
family (vocabulary.py). Records, decoding, checkpoints and evaluation use this contract only. A new kind is one new file
in this folder.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.tokens.vocabulary import PerceptionVocabulary, TokenFamily

if TYPE_CHECKING:
    import torch


class TokenKind(ABC):
    """One kind of intermediate picture that a model can write down.

    Attributes:
        name: in --perception_modalities.
        order: tokens of kinds with a lower one come first, ties by name; what a checkpoint has already stays first.
        has_picture: spans can be compared as pictures (`reconstruct`).
        in_pixels: annotations are arrays (side, side) over the frame, which results give in the pixels of the image.
        hides_context: under --information_bottleneck, what stands before a span is hidden from what follows it.
        allowed_by_place: `allowed_codes` depends on the number of codes alone, so that spans share their states.
        measure: the name of what `compare` returns.
        legend: how a picture of a span is to be read, such as "bright = close".
        frame: where codes are coordinates, the side in pixels of the square that they refer to, and annotations are
            (x, y, x, y, ...) in it; None for other kinds.
        family: its tokens.
    """

    name: ClassVar[str]
    order: ClassVar[int] = 100
    has_picture: ClassVar[bool] = False
    in_pixels: ClassVar[bool] = False
    hides_context: ClassVar[bool] = False
    allowed_by_place: ClassVar[bool] = False
    measure: ClassVar[str | None] = None
    legend: ClassVar[str] = ""
    frame: int | None = None
    family: TokenFamily

    # annotation -> codes -> text ----------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, annotation: Any) -> list[int]:
        """Annotation to codes. Raises AuroraError if the annotation is not a valid one."""

    def text(self, annotation: Any) -> str:
        """Annotation to the span of tokens that a record holds."""
        return self.family.text(self.encode(annotation))

    # ids or text -> codes -> annotation -> picture ----------------------------------------------------------------

    @abstractmethod
    def decode(self, codes: Sequence[int]) -> Any:
        """Codes of one span back to an annotation."""

    def read(self, text: str) -> list[Any]:
        """Every annotation written in a text, in order. Raises MalformedSpan."""
        return [self.decode(span.codes) for span in self.family.parse(text)]

    @abstractmethod
    def draw(self, annotations: Sequence[Any], image: Image.Image) -> Image.Image:
        """A picture of what the model wrote, of the size of `image`."""

    def with_scale(self, picture: Image.Image) -> Image.Image:
        """What `draw` returns with a colour bar at its right, if colours stand for values."""
        return picture

    def draw_written(self, codes: Sequence[int]) -> Image.Image | None:
        """A picture of a span that is still being written, stretched over the image by who shows it.

        Args: codes: the first codes of a span of a delimited family, at least one.
        Returns: None where an unfinished span shows nothing; this one waits until the span is whole.
        """
        if len(codes) < self.family.lengths[-1]:
            return None
        return self.draw([self.decode(codes)], Image.new("RGB", (336, 336)))

    def without_labels(self, codes: Sequence[int]) -> list[int]:
        """Of the codes of a span those that say something of the image."""
        return list(codes)

    @property
    def cell_codes(self) -> int:
        """How many codes `without_labels` may return: those below this number."""
        return self.family.size

    def with_labels(self, codes: Sequence[int]) -> list[int]:
        """What `without_labels` returned back to the codes of a span."""
        return list(codes)

    # what the decoder allows next ---------------------------------------------------------------------------------

    def allowed_codes(self, prefix: Sequence[int]) -> range:
        """Which codes may follow the codes of an unfinished span. An empty range forbids to go on."""
        return range(self.family.size)

    # what the reconstruction loss compares ------------------------------------------------------------------------

    def reconstruct(self, probabilities: "torch.Tensor") -> "torch.Tensor":
        """Differentiable picture of each span, from the model's probabilities over its codes.

        Args: probabilities: (B, codes in a span, family.size), rows sum to 1; one-hot rows give the true picture.
        Returns: (B, C, H, W).
        Raises NotImplementedError unless `has_picture`.
        """
        raise NotImplementedError(f"{self.name} spans have no picture to compare")

    def picture_error(self, written: "torch.Tensor", true: "torch.Tensor") -> "torch.Tensor":
        """How far each picture is from the true one: (B, C, H, W) both to (B,), 0 for the same."""
        return (written - true).square().flatten(1).mean(dim=1)

    # how far off a span is ----------------------------------------------------------------------------------------

    def compare(self, written: Sequence[int], true: Sequence[int]) -> float | None:
        """Similarity of two spans of codes, in [0, 1], 1 = the same; None where it is not measured."""
        return None

    # what its tokens start from ---------------------------------------------------------------------------------------

    def code_features(self) -> "torch.Tensor | None":
        """Features of the first codes, (codes, F): codes with similar ones start alike. Others start at random."""
        return None

    def description(self, code: int) -> str:
        """A code in words, as text that would stand in its place: what `--perception_init words` starts it from."""
        return f" {self.family.name.lower()} {code}"

    # what a checkpoint keeps --------------------------------------------------------------------------------------

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What config.json keeps; `from_settings` builds the same kind from it."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Mapping[str, Any], folder: Path) -> "TokenKind":
        """Builds it; paths in `settings` are relative to `folder`. Raises AuroraError naming what is missing."""

    def save_files(self, folder: Path) -> None:  # noqa: B027 - most kinds have no files
        """Writes what does not fit into config.json (weights) into the checkpoint's folder."""


_registry: dict[str, type[TokenKind]] = {}


def register_kind(cls: type[TokenKind]) -> type[TokenKind]:
    """Class decorator. Raises ValueError if the name is taken."""
    if cls.name in _registry:
        raise ValueError(f"modality {cls.name!r} is registered already, by {_registry[cls.name].__module__}")
    _registry[cls.name] = cls
    return cls


def unregister_kind(name: str) -> None:
    """Takes a kind out again. Raises KeyError if there is none of that name."""
    del _registry[name]


def kind_class(name: str) -> type[TokenKind]:
    """Raises AuroraError for an unknown name, listing those there are."""
    _import_all()
    if name not in _registry:
        raise AuroraError(f"unknown token kind {name!r}; available: {', '.join(sorted(_registry))}")
    return _registry[name]


def build_kinds(settings: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, TokenKind]:
    """Builds kinds from their settings, in the order of their tokens."""
    names = sorted(settings, key=lambda name: (kind_class(name).order, name))
    return {name: kind_class(name).from_settings(settings[name], folder) for name in names}


def vocabulary_of(kinds: Iterable[TokenKind]) -> PerceptionVocabulary:
    """The tokens of these kinds together."""
    return PerceptionVocabulary(tuple(kind.family for kind in kinds))


def _import_all() -> None:
    package = importlib.import_module("llava_aurora.tokens")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
