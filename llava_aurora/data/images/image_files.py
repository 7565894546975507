"""Image files: resolves their paths inside a folder, opens them safely, and converts them to 8-bit RGB."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_file

# MPO is opened as JPEG. Pillow would open PostScript too, by starting Ghostscript, whatever the file's suffix says.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # of the files that commands on folders take
_LONGEST_NAME = 255  # bytes of a file's name, on every common file system
_ORIENTATION = 0x0112  # EXIF tag; 1 = stored upright, 2 to 8 = stored mirrored or turned


def path_inside(folder: str | Path, name: str) -> Path:
    """The path of a file that a data set names relative to a folder. The file need not exist.

    An absolute name is allowed if it lies in the folder, also by way of links, as LLaVA does. Links in the folder may
    lead anywhere. Raises AuroraError if the name is an address, has a backslash or a null character, is empty or leads
    outside.
    """
    if "://" in name:
        raise AuroraError(f"the path {name!r} is a URL; download the image and give its path in {folder}")
    if "\\" in name:
        raise AuroraError(f"the path {name!r} has a backslash; was it written on Windows? Use / instead")
    root = os.path.abspath(folder)
    path = os.path.normpath(os.path.join(root, name))
    if (
        "\0" in name
        or path == root
        or any(len(part.encode(errors="surrogatepass")) > _LONGEST_NAME for part in path.split(os.sep))
    ):
        raise AuroraError(f"the path {name!r} names no file in the folder {folder}")
    if not _contains(root, path):
        parent, file = os.path.split(path)
        if not os.path.isabs(name) or not _contains(os.path.realpath(root), os.path.realpath(parent)):
            raise AuroraError(f"the path {name!r} leads out of the folder {folder}")
        path = os.path.join(os.path.realpath(parent), file)
    return Path(path)


def _contains(root: str, path: str) -> bool:
    return os.path.commonpath([root, path]) == root


@contextmanager
def opened_image(source: Path | IO[bytes], *, name: str = "") -> Iterator[Image.Image]:
    """Opens an image; its pixels are decoded when they are asked for, inside the block.

    Args:
        name: of the image in errors; the path if left out.
    Raises AuroraError naming the image, if it is missing, no regular file, broken, of a format that is not in FORMATS,
    or has more pixels than Pillow's limit for decompression bombs.
    """
    name = name or str(source)
    if isinstance(source, Path) and not source.is_file():  # opening a named pipe would wait for ever
        raise AuroraError(f"{name}: {'not a regular file' if source.exists() else 'no such image'}")
    try:
        with Image.open(source, formats=FORMATS) as image:
            _check_pixels(image)
            yield image
    except AuroraError:
        raise
    except Exception as error:  # Pillow's readers raise whatever they stumble over in a broken file
        raise _unreadable(name, error) from error


def open_image(source: str | Path | Image.Image, *, upright: bool = True, on_white: bool = True) -> Image.Image:
    """An image as 8-bit RGB: what a model is asked about with the defaults; training leaves both out, as LLaVA does.

    Args:
        source: a file; or an image that Pillow opened, which may not be decoded yet.
        on_white: show transparent parts on white; otherwise transparency is dropped, and hidden colours appear.
    Raises AuroraError naming the image; see `opened_image` and `to_rgb`.
    """
    if not isinstance(source, Image.Image):
        with opened_image(Path(source)) as image:
            return to_rgb(image, upright=upright, on_white=on_white)
    try:
        _check_pixels(source)
        return to_rgb(source, upright=upright, on_white=on_white)
    except Exception as error:  # as in opened_image: it may be a file that is not decoded yet
        raise _unreadable(getattr(source, "filename", "") or "the image", error) from error


def to_rgb(image: Image.Image, *, upright: bool, on_white: bool) -> Image.Image:
    """An image of any mode as 8-bit RGB. Pixels of 16 bits are divided by 257; floats are scaled by `eight_bits`.

    Raises ValueError if its values are in no known range. And whatever decoding raises.
    """
    image.load()
    if upright and orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if is_deep(image):
        image = eight_bits(image)
    if on_white and image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a decoded image, 1 to 8; 1 if there is none. Pillow turns TIFF files while decoding."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block, raised as anything from SyntaxError to struct.error; the pixels are fine
        return 1
    return value if value in range(1, 9) else 1


def refuse_turned(image: Image.Image, path: Path) -> None:
    """Raises AuroraError naming the file if its EXIF orientation is not upright. Decodes no upright image."""
    if orientation(image) != 1:
        image.load()
        if (found := orientation(image)) != 1:
            raise AuroraError(
                f"{path}: stored turned or mirrored (EXIF orientation {found}); save it upright, for instance by"
                " `mogrify -auto-orient`"
            )


def is_deep(image: Image.Image) -> bool:
    """Whether its pixels have more than 8 bits a channel; Pillow cuts them off at 255 in a conversion to RGB."""
    return image.mode.startswith(("I", "F"))


def eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of integers from 0 to 65535, or of floats from 0 to 1, 255 or 65535, scaled to 8 bits, mode "L"."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    top = next((top for top in ((1, 255, 65535) if image.mode == "F" else (65535,)) if high <= top), None)
    if top is None or not low >= 0:  # NaN is neither
        expected = "0 … 1, 255 or 65535" if image.mode == "F" else "0 … 65535"
        raise ValueError(f"its mode {image.mode} has values from {low:g} to {high:g}; {expected} are expected")
    return Image.fromarray(np.round(values * (255 / top)).astype(np.uint8))


def _unreadable(name: str, error: Exception) -> AuroraError:
    reason = str(error).replace(repr(name), "it")
    if isinstance(error, UnidentifiedImageError):
        reason = f"it is damaged, or of none of the formats {', '.join(FORMATS)}"
    return AuroraError(f"{name}: cannot read the image: {reason or type(error).__name__}")


def _check_pixels(image: Image.Image) -> None:
    if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(
            f"{image.width} × {image.height} pixels are too many; at most {Image.MAX_IMAGE_PIXELS} are read"
        )


def save_png(path: Path, image: Image.Image | np.ndarray) -> None:
    """Writes a PNG that is there whole or not at all. Args: image: an array is as `Image.fromarray` takes it."""
    with atomic_file(path) as temporary:
        (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(
            temporary, format="PNG", compress_level=3
        )
