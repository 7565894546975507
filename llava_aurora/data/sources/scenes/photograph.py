"""One real photograph with measured depth: the Middlebury "Motorcycle" pair, which comes inside scikit-image.

Held out from all training: it shows what a model that has only seen rendered rooms makes of a real garage. Source:
Scharstein et al., "High-resolution stereo datasets with subpixel-accurate ground truth", GCPR 2014.
"""

from dataclasses import dataclass
from importlib import resources

import numpy as np
from PIL import Image

from llava_aurora.errors import AuroraError

# Calibration of the copy in scikit-image, from the docstring of skimage.data.stereo_motorcycle.
FOCAL_LENGTH = 994.978  # pixels
BASELINE = 0.193001  # metres
PRINCIPAL_POINT_OFFSET = 31.086  # pixels between the two cameras' principal points, along x


@dataclass(frozen=True, kw_only=True)
class Photograph:
    image: np.ndarray  # uint8 (H, W, 3)
    depth: np.ndarray  # float32 (H, W), z-depth in metres, 2.1 to 4.9; never unknown, see `fill_unknown`
    # bool (H, W), where depth was measured; elsewhere it is filled in. For marked points, set the relative depth to 0
    # where this is False.
    known: np.ndarray


def load_photograph(*, frame: int = 336) -> Photograph:
    """The middle square of the left image, resized to frame × frame pixels: colour smoothly, depth to the nearest.

    Raises AuroraError if scikit-image is not installed, or does not hold the pair's files.
    """
    image, disparity = _read_pair()
    known = np.isfinite(disparity)
    depth = FOCAL_LENGTH * BASELINE / (fill_unknown(disparity, known) + PRINCIPAL_POINT_OFFSET)
    height, width = depth.shape
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)

    def nearest(array: np.ndarray) -> np.ndarray:
        return np.array(Image.fromarray(array).crop(box).resize((frame, frame), Image.Resampling.NEAREST))

    return Photograph(
        image=np.array(Image.fromarray(image).crop(box).resize((frame, frame), Image.Resampling.LANCZOS)),
        depth=nearest(depth.astype(np.float32)),
        known=nearest(known.astype(np.uint8)) > 0,
    )


def fill_unknown(disparity: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fills gaps from the nearest known pixels to the left and right in the same row: the smaller of the two.

    What one camera of a pair cannot see lies behind what hides it, so the farther neighbour, of the smaller disparity,
    is the better guess. A row without any known pixel takes over the nearest row that has one.

    Args: disparity: (H, W), pixels; known: bool (H, W), true somewhere.
    Returns: (H, W), equal to `disparity` where that is known.
    """
    columns = np.arange(disparity.shape[1])
    before = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    after = np.minimum.accumulate(np.where(known, columns, len(columns))[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(np.where(known, disparity, np.inf), ((0, 0), (1, 1)), constant_values=np.inf)
    left, right = (np.take_along_axis(padded, index + 1, axis=1) for index in (before, after))
    filled = np.minimum(left, right)
    rows = np.flatnonzero(known.any(axis=1))
    closest = rows[np.abs(np.arange(len(filled))[:, None] - rows).argmin(axis=1)]
    return filled[closest]


def _read_pair() -> tuple[np.ndarray, np.ndarray]:
    """Left image uint8 (500, 741, 3) and its disparity float32 (500, 741); not finite where it is unknown."""
    try:
        folder = resources.files("skimage") / "data"
    except ModuleNotFoundError as error:
        raise AuroraError(
            "the motorcycle photograph comes with scikit-image, which is not installed: "
            "pip install 'llava-aurora[demo]'"
        ) from error
    try:
        with (folder / "motorcycle_left.png").open("rb") as file, Image.open(file) as picture:
            image = np.array(picture.convert("RGB"))
        with (folder / "motorcycle_disp.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            disparity = arrays["arr_0"]
    except (OSError, KeyError, ValueError) as error:
        raise AuroraError(
            f"{folder}: cannot read the motorcycle pair ({error}): pip install --force-reinstall 'scikit-image<0.27'"
        ) from error
    return image, disparity
