"""One question about every image of a folder: a line of JSON for each, in a file that grows as they are answered.

What the file holds is not asked again, so a run that was stopped goes on where it was. A line that it was stopped in is
dropped.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from llava_aurora.batches import batches
from llava_aurora.data.images.image_reader import open_image
from llava_aurora.data.sources.depth.depth_estimation import SUFFIXES
from llava_aurora.data.sources.depth.depth_maps import find_inputs
from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_file
from llava_aurora.generation.aurora import Aurora
from llava_aurora.generation.result import Reasoning, Result
from llava_aurora.read_ahead import read_ahead

_THREADS = 2


@dataclass
class FolderReport:
    """How many images were answered now, how many before, and a line for each that could not be read."""

    answered: int = 0
    kept: int = 0
    failures: list[str] = field(default_factory=list)


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
    """Asks about every image under a folder that the file holds no answer for.

    Args:
        aurora: the model.
        folder: of images, searched to its depths.
        question, reasoning, batch_size, options: as for `Aurora.ask`.
        out: the file, one line an image: {"image": its path in the folder, "model", and `Result.to_json`}.
        pictures: folder for a picture of each answer, under the image's path with ".png" behind it.

    Raises:
        AuroraError: if the folder holds no images, the file holds something else or answers to another question, or
            the file system refuses. An image that cannot be read is no error, but listed in the report.
    """
    folder, out = Path(folder), Path(out)
    if pictures is not None and folder.resolve() in (Path(pictures).resolve(), *Path(pictures).resolve().parents):
        raise AuroraError(f"{pictures}: is inside {folder}, where its pictures would be asked about; choose another")
    names = {path: path.relative_to(folder).as_posix() for path in find_inputs(folder, suffixes=SUFFIXES)}
    about = {"model": aurora.name, "question": question, "reasoning": reasoning}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out, "a+b") as file, _progress() as progress:
            done = _answered(file, out, about)
            todo = [path for path, name in names.items() if name not in done]
            report = FolderReport(kept=len(names) - len(todo))
            bar = progress.add_task("Asking", total=len(names), completed=report.kept)
            read = read_ahead(todo, open_image, workers=_THREADS, ahead=2 * batch_size)
            for batch in batches(read, batch_size):
                shown = {path: image for path, image in batch if isinstance(image, Image.Image)}
                report.failures += [str(error) for _, error in batch if isinstance(error, AuroraError)]
                images = list(shown.values())
                results = aurora.ask(images, question, reasoning=reasoning, batch_size=batch_size, **options)
                for path, result in zip(shown, results, strict=True):
                    if pictures is not None:
                        _save_picture(result, Path(pictures) / f"{names[path]}.png")
                    line = {"image": names[path], "model": aurora.name, **result.to_json()}
                    file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                    report.answered += 1
                file.flush()
                progress.advance(bar, len(batch))
    except OSError as error:
        raise AuroraError(f"{out}: not written ({error.strerror}); the answers that are in it stay") from error
    return report


def _answered(file: IO[bytes], path: Path, about: Mapping[str, str]) -> set[str]:
    """The images that the file holds answers for; cuts off a last line that is not whole.

    Raises:
        AuroraError: if a line is no answer, or one of another model, question or reasoning.
    """
    done = set()
    file.seek(0)
    whole = 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            file.truncate(whole)
            break
        whole += len(line)
        try:
            answer = json.loads(line)
            done.add(answer["image"])
            found = {name: answer[name] for name in about}
        except (ValueError, KeyError, TypeError) as error:
            raise AuroraError(f"{path}: line {number} is no answer of this command; choose another file") from error
        for name, value in about.items():
            if found[name] != value:
                raise AuroraError(
                    f"{path}: line {number} was answered with the {name} {found[name]!r}, and now it is {value!r};"
                    " choose another file"
                )
    return done


def _save_picture(result: Result, path: Path) -> None:
    with atomic_file(path) as temporary:
        result.figure().save(temporary)


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, transient=True)
