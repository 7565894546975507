"""Asking one question about every image of a folder: a line of JSON each, in a file that a second run continues."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from llava_aurora.batches import batches
from llava_aurora.data.images.image_files import SUFFIXES, open_image
from llava_aurora.errors import AuroraError
from llava_aurora.found_files import find_files
from llava_aurora.generation.answer_pictures import save_picture
from llava_aurora.generation.aurora import Aurora
from llava_aurora.generation.result import Reasoning
from llava_aurora.line_file import LineFile
from llava_aurora.progress import count_bars
from llava_aurora.read_ahead import read_ahead

_THREADS = 2


@dataclass
class FolderReport:
    """How many images were answered now, how many before, a message for each that could not be read, and how many other
    entries of the folder were passed over, by kind."""

    answered: int = 0
    kept: int = 0
    failures: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def ask_folder(
    aurora: Aurora,
    folder: str | Path,
    *,
    question: str,
    out: str | Path,
    reasoning: Reasoning = "chain",
    batch_size: int = 16,
    pictures: str | Path | None = None,
    **options: Any,
) -> FolderReport:
    """Asks about every image under a folder that the file has no answer for.

    Args:
        question, reasoning, batch_size, options: as for `Aurora.ask`.
        out: the file, one line for each image: {"image": its path in the folder, "model", and `Result.to_json`}.
        pictures: folder for a picture of each answer, under the image's path with ".png" behind it.
    Raises AuroraError if the folder holds no images, the file holds something else or answers to another question (it
    is not touched then), or the file system refuses. An image that cannot be read is no error, but in the report.
    """
    folder, file = Path(folder), LineFile(Path(out), keys=("image", "model"), what="answer about an image of a folder")
    if pictures is not None and folder.resolve() in (Path(pictures).resolve(), *Path(pictures).resolve().parents):
        raise AuroraError(f"{pictures}: is inside {folder}, where its pictures would be asked about; choose another")
    found = find_files(folder, SUFFIXES)
    names = {path: path.relative_to(folder).as_posix() for path in found.paths}
    about = {"question": question, "reasoning": reasoning, "reasoning_prompt": options.get("reasoning_prompt")}
    done = _answered(file, {"model": aurora.name, **about})
    file.append([])  # whether it can be written is known before anything is asked
    todo = [path for path, name in names.items() if name not in done]
    report = FolderReport(kept=len(names) - len(todo), passed_over=found.passed_over)
    with count_bars(transient=True) as progress:
        bar = progress.add_task("Asking", total=len(names), completed=report.kept)
        read = read_ahead(todo, open_image, workers=_THREADS, ahead=2 * batch_size)
        for batch in batches(read, batch_size):
            shown = {path: image for path, image in batch if isinstance(image, Image.Image)}
            report.failures += [str(error) for _, error in batch if isinstance(error, AuroraError)]
            results = aurora.ask(list(shown.values()), question, reasoning=reasoning, batch_size=batch_size, **options)
            for path, result in zip(shown, results, strict=True):
                if pictures is not None:
                    save_picture(result.figure(), Path(pictures) / f"{names[path]}.png")
            answers = zip(shown, results, strict=True)
            file.append({"image": names[path], "model": aurora.name, **result.to_json()} for path, result in answers)
            report.answered += len(results)
            progress.advance(bar, len(batch))
    return report


def _answered(file: LineFile, about: dict[str, str | None]) -> set[str]:
    """The images that the file has answers for. Raises AuroraError if one is of another model or question."""
    done = set()
    for number, answer in enumerate(file.read(), start=1):
        done.add(str(answer["image"]))
        for name, value in about.items():
            if answer.get(name) != value:
                raise AuroraError(
                    f"{file.path}: line {number} was answered with the {name} {answer.get(name)!r}, and now it is"
                    f" {value!r}; choose another file"
                )
    return done
