"""Pictures of answers on disk. They say which program made them, so that no other picture is replaced by one."""

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from llava_aurora.files import atomic_file
from llava_aurora.ownership import refuse_other_file

_SOFTWARE = "llava_aurora"


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture of an answer as PNG. Raises AuroraError if something else is there, or it is not written."""
    refuse_other_picture(path)
    about = PngInfo()
    about.add_text("Software", _SOFTWARE)
    with atomic_file(path) as temporary:
        picture.save(temporary, format="png", pnginfo=about)


def refuse_other_picture(path: Path) -> None:
    """Raises AuroraError if something else than a picture of an answer lies there."""
    refuse_other_file(path, "picture of an answer", lambda beginning: _SOFTWARE.encode() in beginning)
