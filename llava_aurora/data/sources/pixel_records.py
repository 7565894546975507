"""Records that ask for the colour of a pixel, about any folder of images."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from llava_aurora.data.images.image_files import SUFFIXES, open_image, refuse_turned
from llava_aurora.data.images.seen_colors import seen_colors
from llava_aurora.data.sources.made_records import MadeRecords
from llava_aurora.errors import AuroraError
from llava_aurora.found_files import find_files
from llava_aurora.progress import tracked
from llava_aurora.tasks.annotated import AnnotatedImage, Drawing
from llava_aurora.tasks.records import RecordWriter, write_records


def write_pixel_records(
    out: Path,
    *,
    images: Path,
    writer: RecordWriter,
    shares: Mapping[str, float],
    per_image: int = 1,
    aspect_ratio: str = "pad",
    frame: int = 336,
    seed: int = 0,
) -> MadeRecords:
    """Writes a JSON file in LLaVA's format; its image paths are relative to `images`.

    Args:
        per_image: rounds of questions about an image. In training each asks for another pixel whenever it is seen.
        aspect_ratio: how images get into the frame, see `FrameTransform.of`.
    Raises AuroraError if the folder holds no images, none can be read, or `out` is there and holds no records.
    """
    made = MadeRecords(out=out, seed=seed)
    found = find_files(images, SUFFIXES)
    made.passed_over = found.passed_over
    for path in tracked(found.paths, "Writing records"):
        name = path.relative_to(images).as_posix()
        try:
            image = open_image(path, upright=False, on_white=False)
            refuse_turned(image, path)
            colors = seen_colors(image, aspect_ratio=aspect_ratio)
        except AuroraError as error:
            made.failures.append(str(error))
            continue
        for number in range(per_image):
            shown = AnnotatedImage(name=f"{name}/{number}", size=image.size, seen_colors=partial(np.asarray, colors))
            made.training += write_records(
                shown, image=name, shares=shares, drawing=Drawing(frame=frame), writer=writer, seed=seed
            )
    made.write()
    return made
