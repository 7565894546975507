"""Image files that a data set names: found below their folder and nowhere else, and refused if they are bombs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from llava_aurora.errors import AuroraError


def path_inside(folder: str | Path, name: str) -> Path:
    """The path of a file that a data set names relative to a folder. The file need not exist.

    An absolute name is allowed if it lies in the folder, as LLaVA does. Links in the folder may lead anywhere.

    Raises:
        AuroraError: if the name leads out of the folder, is the folder itself, or is no name.
    """
    root = os.path.abspath(folder)
    path = os.path.normpath(os.path.join(root, name))
    foreign = "\0" in name or "\\" in name or ":" in name.split("/")[0]  # names of other systems
    if foreign or path == root or os.path.commonpath([root, path]) != root:
        raise AuroraError(f"the path {name!r} leads out of the folder {folder}")
    return Path(path)


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Opens an image; its pixels are decoded when they are asked for, inside the block.

    Raises:
        AuroraError: naming the file, if it is missing or broken, or has more pixels than Pillow holds for safe.
    """
    try:
        with Image.open(path) as image:
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} × {image.height} pixels are too many")
            yield image
    except FileNotFoundError as error:
        raise AuroraError(f"{path}: there is no such image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # SyntaxError: a broken PNG
        raise AuroraError(f"{path}: cannot read the image: {error}") from error
