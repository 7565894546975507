"""Depth maps as codes of a VQ-VAE: START, one code per cell of a square grid row by row, END.

With raster rows each row begins with a code that tells which row it is. These row labels are the codes behind those of
the codebook; the decoder forces them, and they say nothing of the image.

A depth map is 8-bit relative depth, uint8 (H, W), higher = closer, 0 = nothing known. Source: AURORA, sec. 3; AiT.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

from llava_aurora.errors import AuroraError
from llava_aurora.tokens.kind import TokenKind, register_kind
from llava_aurora.tokens.vocabulary import depth_family

if TYPE_CHECKING:
    import torch

    from llava_aurora.vqvae.autoencoder import DepthVQVAE

VQVAE_FOLDER = "depth_vqvae"
UNWRITTEN = 128  # grey of the cells of a map that have no code yet


@register_kind
class DepthKind(TokenKind):
    """Args:
    vqvae: a trained depth VQ-VAE; it is only read from, never trained here.
    raster_rows: whether maps are written with row labels; those without are read too.
    """

    name: ClassVar[str] = "depth"
    order: ClassVar[int] = 10
    has_picture: ClassVar[bool] = True
    hides_context: ClassVar[bool] = True
    allowed_by_place: ClassVar[bool] = True
    legend: ClassVar[str] = "bright = close"

    def __init__(self, *, vqvae: "DepthVQVAE", raster_rows: bool = False) -> None:
        self.vqvae = vqvae.eval().requires_grad_(False)
        self.grid, self.codebook_size, self.raster_rows = vqvae.config.grid, vqvae.config.codebook_size, raster_rows
        self.family = depth_family(codebook_size=self.codebook_size, codes_per_map=self.grid**2, labels=self.labels)

    @property
    def labels(self) -> int:
        """How many row labels a map has."""
        return self.grid if self.raster_rows else 0

    @property
    def cell_codes(self) -> int:
        return self.codebook_size

    def with_labels(self, codes: Sequence[int]) -> list[int]:
        """The codes of a map's cells with the label of each row before it, if there are any."""
        if not self.raster_rows:
            return list(codes)
        rows = ((row, codes[row * self.grid : (row + 1) * self.grid]) for row in range(self.grid))
        return [code for row, cells in rows for code in (self.codebook_size + row, *cells)]

    def without_labels(self, codes: Sequence[int]) -> list[int]:
        """The codes of the cells without row labels, of a whole map or of the beginning of one.

        A label in the place of a cell's code counts as the last code of the codebook.
        """
        if self.raster_rows and codes and codes[0] >= self.codebook_size:
            codes = [code for place, code in enumerate(codes) if place % (self.grid + 1)]
        return [min(code, self.codebook_size - 1) for code in codes] if self.raster_rows else list(codes)

    def place_of_cell(self, cell: int, *, length: int) -> int:
        """Where in a span of so many codes a cell's own code stands."""
        return cell if length == self.grid**2 else cell + cell // self.grid + 1

    def allowed_codes(self, prefix: Sequence[int]) -> range:
        """A label where a row begins, else a code of the codebook."""
        row, place = divmod(len(prefix), self.grid + 1)
        if not self.raster_rows or place:
            return range(self.codebook_size)
        return range(self.codebook_size + row, self.codebook_size + row + 1)

    def encode(self, annotation: np.ndarray) -> list[int]:
        """(H, W) of any size to the codes of a span; uint8, uint16, or float in [0, 1].

        Raises AuroraError if it has another shape or type, holds NaN, or is zero everywhere.
        """
        from llava_aurora.vqvae.maps import check_depth_map

        try:
            return self.with_labels(self.vqvae.encode_array(check_depth_map(np.asarray(annotation))))
        except ValueError as error:
            raise AuroraError(f"not a usable depth map: {error}") from error

    def decode(self, codes: Sequence[int]) -> np.ndarray:
        """Codes to uint8 (image_size, image_size), the frame of the VQ-VAE."""
        return self.vqvae.decode_codes(self.without_labels(codes))

    @cached_property
    def code_depths(self) -> np.ndarray:
        """How close each code says that its cell is: the mean of a map of that code alone, uint8 (codebook_size,)."""
        maps = [self.decode([code] * self.grid**2) for code in range(self.codebook_size)]
        return np.rint([depth.mean() for depth in maps]).astype(np.uint8)

    def depth_between_cells(self, codes: Sequence[int], point: tuple[int, int], *, frame: int) -> int:
        """How close a point is, 0 to 255: interpolated between the cells around it, each by its code alone.

        Args: point: x, y in pixels of a square frame.
        """
        around, cells = self.cells_around(point, frame=frame), self.without_labels(codes)
        return round(sum(weight * float(self.code_depths[cells[cell]]) for cell, weight in around.items()))

    def cells_around(self, point: tuple[int, int], *, frame: int) -> dict[int, float]:
        """The up to four cells between whose centres a point lies, and their weights: bilinear interpolation.

        Returns:
            positive weights, 1 in all, by the numbers of the cells, row by row; arguments as for `depth_between_cells`.
        """
        across, down = (self._neighbours(place, frame) for place in point)
        return {
            row * self.grid + column: weight * share for row, weight in down.items() for column, share in across.items()
        }

    def _neighbours(self, place: int, frame: int) -> dict[int, float]:
        """The columns (or rows) between whose centres the middle of a pixel lies, and their weights."""
        between = min(max((place + 0.5) * self.grid / frame - 0.5, 0.0), self.grid - 1.0)
        first = int(between)
        weights = {first: first + 1 - between, first + 1: between - first}
        return {number: weight for number, weight in weights.items() if weight > 0}

    def draw(self, annotations: Sequence[np.ndarray], image: Image.Image) -> Image.Image:
        """The last map as a colour picture (bright = close), of the size of `image`; black if there is none."""
        if not annotations:
            return Image.new("RGB", image.size)
        return color_map(annotations[-1]).resize(image.size, Image.Resampling.NEAREST)

    def with_scale(self, picture: Image.Image) -> Image.Image:
        return with_scale(picture)

    def draw_written(self, codes: Sequence[int]) -> Image.Image:
        """The first codes of a map as a colour picture of the VQ-VAE's size; cells without a code are grey."""
        codes, cells = self.without_labels(codes) or [0], np.arange(self.grid**2).reshape(self.grid, self.grid)
        values = self.decode([*codes, *[codes[-1]] * (cells.size - len(codes))])
        picture = np.array(color_map(values))
        side = values.shape[0] // self.grid
        picture[np.kron(cells >= len(codes), np.ones((side, side), bool))] = UNWRITTEN
        return Image.fromarray(picture)

    def reconstruct(self, probabilities: "torch.Tensor") -> "torch.Tensor":
        """Of the cells' own codes; probabilities of row labels in their places are left out."""
        if probabilities.shape[1] > self.grid**2:
            probabilities = probabilities.unflatten(1, (self.grid, -1))[:, :, 1:].flatten(1, 2)
        if self.raster_rows:
            probabilities = probabilities[..., : self.codebook_size]
            probabilities = probabilities / probabilities.sum(-1, keepdim=True).clamp(min=1e-6)
        return self.vqvae.to(probabilities.device).decode_soft(probabilities)

    def code_features(self) -> "torch.Tensor":
        """The vectors of the codebook; row labels have none."""
        return self.vqvae.quantizer.codebook

    def description(self, code: int) -> str:
        """How close it is, as values are stated: two digits, 99 closest; of a row label, where the row's middle is, in
        pixels of the VQ-VAE's frame."""
        if code >= self.codebook_size:
            return f"{(2 * (code - self.codebook_size) + 1) * self.vqvae.config.image_size // (2 * self.grid)}"
        return f" {int(self.code_depths[code]) * 100 // 256:02d}"

    def settings(self) -> dict[str, Any]:
        from llava_aurora.vqvae.checkpoint import fingerprint

        return {
            "vqvae": VQVAE_FOLDER,
            "fingerprint": fingerprint(self.vqvae),
            "grid": self.grid,
            "codebook_size": self.codebook_size,
            **({"raster_rows": True} if self.raster_rows else {}),
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], folder: Path) -> "DepthKind":
        """`settings["vqvae"]` is a folder of ours or a published weight file, relative to `folder`.

        Raises AuroraError if there is none, or if its weights are not those the settings were written with.
        """
        from llava_aurora.vqvae.checkpoint import fingerprint, load_depth_vqvae

        if not settings.get("vqvae"):
            raise AuroraError("the depth kind needs a VQ-VAE: give --depth_vqvae FOLDER (`llava-aurora vqvae train`)")
        path = Path(folder) / settings["vqvae"]
        if not path.exists():
            raise AuroraError(
                f"{folder}: the depth VQ-VAE {settings['vqvae']!r} is missing; copy it from the folder of the"
                " training run (LLaVA's merge_lora_weights.py leaves it out, `llava-aurora merge` does not)"
            )
        kind = cls(vqvae=load_depth_vqvae(path), raster_rows=bool(settings.get("raster_rows")))
        expected, found = settings.get("fingerprint"), fingerprint(kind.vqvae)
        if expected and expected != found:
            raise AuroraError(
                f"{path}: this is another VQ-VAE (fingerprint {found[:12]}) than the one the model was trained with"
                f" ({expected[:12]}); its codes would mean something else"
            )
        return kind

    def save_files(self, folder: Path) -> None:
        from llava_aurora.vqvae.checkpoint import save_depth_vqvae

        save_depth_vqvae(self.vqvae, folder / VQVAE_FOLDER)


def with_scale(picture: Image.Image) -> Image.Image:
    """The picture of a map with a colour bar at its right, from near to far."""
    width, height = picture.size
    whole = Image.new("RGB", (width + 40, height), "white")
    whole.paste(picture, (0, 0))
    whole.paste(color_map(np.linspace(255, 0, height).astype(np.uint8)[:, None]).resize((12, height)), (width + 4, 0))
    draw = ImageDraw.Draw(whole)
    for text, top in (("near", 2), ("far", height - 14)):
        draw.text((width + 17, top), text, fill="black")
    return whole


def color_map(depth: np.ndarray) -> Image.Image:
    """uint8 (H, W) to a colour picture in matplotlib's "inferno": bright = close."""
    from matplotlib import colormaps

    return Image.fromarray((colormaps["inferno"](depth)[..., :3] * 255).astype(np.uint8))
