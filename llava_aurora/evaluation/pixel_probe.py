"""What a model sees of single pixels: every cell of an image's grid is asked for its colour (PAE-LaMM, 2408.03940).

The reconstruction error RE is the mean difference of a channel as a share of 255. The paper's formula can also be read
with the sum over the three channels, which is three times as much; both are given.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava_aurora.data.images.image_files import SUFFIXES, open_image
from llava_aurora.data.images.seen_colors import SIDE, seen_colors
from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.answers import AnswerStore
from llava_aurora.evaluation.benchmarks.registry import Wording
from llava_aurora.evaluation.run import SCENES
from llava_aurora.evaluation.statistics import bootstrap_mean
from llava_aurora.files import atomic_file, write_json
from llava_aurora.found_files import find_files
from llava_aurora.generation.predictor import Predictor
from llava_aurora.progress import tracked
from llava_aurora.report.plots import save_panels
from llava_aurora.tasks.pixels import facts_of_cell, stated_color
from llava_aurora.tasks.registry import family_of, task_named
from llava_aurora.tokens.kind import TokenKind

IMAGES = 100  # asked about by default, as in the paper
RESULTS = "pixels.json"
BLURS = (8, 32)
PICTURES = 4
PUBLISHED = {
    "stage 1": 20.27,
    "stage 2, tower trained": 6.65,
    "stage 3": 6.59,
}  # RE in percent; which reading is not said
_PLAIN_TOKENS = 16  # of an answer in plain text
_QUESTIONS = 1024  # at once


@dataclass(frozen=True)
class Probed:
    """One image.

    Args:
        seen: uint8 (side, side, 3), the colours that the model says; black where it says none.
        said: bool (side, side), where it says a colour.
        true: int16 (side, side, 3), -1 beside the image.
        token_passes: tokens that the language model read.
    """

    seen: np.ndarray
    said: np.ndarray
    true: np.ndarray
    token_passes: int = 0

    @property
    def error(self) -> float:
        """RE in percent, a channel."""
        return error_of(self.seen, self.true)

    @property
    def unreadable(self) -> float:
        """Share of the cells of the image for which it says no colour."""
        return float(1 - self.said[self.true[..., 0] >= 0].mean())


def error_of(seen: np.ndarray, true: np.ndarray) -> float:
    """RE in percent, a channel, over the cells that the image fills. Args: uint8 or int16 (side, side, 3) both."""
    inside = true[..., 0] >= 0
    return float(np.abs(seen[inside].astype(float) - true[inside]).mean() * 100 / 255)


def yardsticks(image: Image.Image, true: np.ndarray, *, aspect_ratio: str) -> dict[str, np.ndarray]:
    """What could be said from less: by name, uint8 (side, side, 3) of the mean colour and of blurs."""
    side = len(true)
    mean = true[true[..., 0] >= 0].mean(axis=0).round().astype(np.uint8)
    found = {"mean colour": np.broadcast_to(mean, (side, side, 3))}
    for cells in BLURS:
        small = image.resize((cells, cells), Image.Resampling.BOX)
        blurred = small.resize(image.size, Image.Resampling.BILINEAR)
        colors = seen_colors(blurred, aspect_ratio=aspect_ratio, side=side)
        found[f"{cells} × {cells} blur"] = colors.clip(0).astype(np.uint8)
    return found


def probe(predictor: Predictor, image: Image.Image, *, side: int = SIDE) -> Probed:
    """Asks for every cell, in colour tokens if the model has them and otherwise in the paper's plain text.

    Args: image: RGB; side: of the grid.
    """
    true = seen_colors(image, aspect_ratio=predictor.aspect_ratio, side=side)
    kind = _color_kind(predictor)
    cells = [(int(column), int(row)) for row, column in np.argwhere(true[..., 0] >= 0)]
    seen, said, passes = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), bool), 0
    for start in range(0, len(cells), _QUESTIONS):
        asked = cells[start : start + _QUESTIONS]
        questions, how = pixel_questions(predictor, true, asked)
        results = predictor.write([image] * len(asked), questions, decoding="packed", **how)
        assert results[0].timings is not None
        passes += results[0].timings.token_passes or 0
        for (column, row), result in zip(asked, results, strict=True):
            color = stated_color(result.text) if kind is None else _first_color(predictor, kind, result.ids)
            if color is not None:
                seen[row, column], said[row, column] = color, True
    return Probed(seen, said, true, passes)


def pixel_questions(
    predictor: Predictor, true: np.ndarray, cells: Sequence[tuple[int, int]]
) -> tuple[list[str], dict[str, Any]]:
    """The question about each cell (column, row), and how `Predictor.write` asks them.

    Args: true: the colours of the grid, int16 (side, side, 3).
    """
    kind = _color_kind(predictor)
    task = task_named("pixel_value_plain" if kind is None else "pixel_value")
    wording = Wording.of(predictor.perception, image_size=predictor.image_size)
    family, families = family_of(task), {each.kind: each for each in wording.families}
    fields = (
        family.values(facts_of_cell(true, cell, frame=wording.frame), wording.writer.coordinates, families)
        for cell in cells
    )
    questions = [task.wording.questions[0].format(**each) for each in fields]
    if kind is None:
        return questions, {"max_new_tokens": _PLAIN_TOKENS}
    return questions, {"answer_start": kind.family.start, "max_new_tokens": kind.family.lengths[0]}


def _color_kind(predictor: Predictor) -> TokenKind | None:
    perception = predictor.perception
    return perception.kinds.get("color") if perception is not None else None


def _first_color(predictor: Predictor, kind: TokenKind, ids: Sequence[int]) -> tuple[int, ...] | None:
    """Of the ids of an answer, END may be missing; None if it has no colour."""
    assert predictor.perception is not None
    codes = [code for each in ids if (code := predictor.perception.ids.code(kind.family, each)) is not None]
    return tuple(codes[:3]) if len(codes) >= 3 else None


def evaluate_pixels(
    predictor: Predictor, folder: Path | None, *, out: Path, count: int = IMAGES, side: int = SIDE, seed: int = 0
) -> dict[str, Any]:
    """RE over images, beside the yardsticks of the same images. Resumes: what is seen of each image is kept in `out`.

    Args:
        folder: of images, whose names are unique; None for ray-cast scenes, which are made. count: the first so many.
        seed: of scenes.
    Returns: what is written to pixels.json; RE in percent with intervals over images.
    Raises AuroraError naming an image that cannot be read, or if `out` holds an evaluation of another model or folder.
    """
    data = str(folder.resolve()) if folder is not None else f"scenes of seed {seed}"
    AnswerStore(out).claim({**predictor.identity, "pixels": side, "data": data})
    if folder is None:
        folder = out / SCENES / "images"
        write_scenes(out=out / SCENES, count=count, seed=seed, config=SceneConfig(frame=predictor.image_size))
    paths = find_files(folder, SUFFIXES).paths[:count]
    errors: dict[str, list[float]] = {}
    unreadable, means = [], []
    panels: list[tuple[Path, Probed, dict[str, np.ndarray]]] = []
    for path, probed, image in tracked(_probed(predictor, paths, out=out, side=side), "Asking", total=len(paths)):
        shown = yardsticks(image, probed.true, aspect_ratio=predictor.aspect_ratio)
        for name, colors in {"model": probed.seen, **shown}.items():
            errors.setdefault(name, []).append(error_of(colors, probed.true))
        unreadable.append(probed.unreadable)
        means.append((probed.true[probed.true[..., 0] >= 0].mean(axis=0), probed.true))
        if len(panels) < PICTURES:
            panels.append((path, probed, shown))
    everywhere = np.mean([mean for mean, _ in means], axis=0)
    errors["one colour for all images"] = [error_of(np.broadcast_to(everywhere, true.shape), true) for _, true in means]
    for path, probed, shown in panels:
        save_reconstruction(out / f"{path.stem}.png", probed, shown)
    results = {
        "images": len(paths),
        "side": side,
        "unreadable": float(np.mean(unreadable)),
        "channel": {name: bootstrap_mean(values).to_json() for name, values in errors.items()},
        "sum_of_channels": {
            name: bootstrap_mean([3 * value for value in values]).to_json() for name, values in errors.items()
        },
        "published, theirs": PUBLISHED,
    }
    write_json(out / RESULTS, results)
    return results


def _probed(
    predictor: Predictor, paths: Sequence[Path], *, out: Path, side: int
) -> Iterator[tuple[Path, Probed, Image.Image]]:
    """Each image with what is seen of it, from the folder `seen` where that is there."""
    if repeated := {path.stem for path in paths if sum(path.stem == other.stem for other in paths) > 1}:
        raise AuroraError(f"{sorted(repeated)[0]}: several images have this name; rename them")
    (out / "seen").mkdir(parents=True, exist_ok=True)
    for path in paths:
        image = open_image(path)
        kept = out / "seen" / f"{path.stem}.png"
        if kept.is_file():
            known = np.asarray(open_seen(kept, side=side))
            true = seen_colors(image, aspect_ratio=predictor.aspect_ratio, side=side)
            yield path, Probed(known[..., :3], known[..., 3] > 0, true), image
            continue
        probed = probe(predictor, image, side=side)
        save_seen(kept, probed)
        yield path, probed, image


def save_seen(path: Path, probed: Probed) -> None:
    """What the model sees as a PNG of a pixel a cell, transparent where it says no colour."""
    alpha = np.uint8(255) * probed.said[..., None].astype(np.uint8)
    with atomic_file(path) as temporary:
        Image.fromarray(np.concatenate([probed.seen, alpha], axis=-1)).save(temporary, format="PNG")


def open_seen(path: Path, *, side: int) -> Image.Image:
    """Raises AuroraError for a picture that `save_seen` did not write for this grid."""
    with Image.open(path, formats=["PNG"]) as image:
        image.load()
    if image.mode != "RGBA" or image.size != (side, side):
        raise AuroraError(f"{path}: no picture of {side} × {side} cells with transparency; remove it")
    return image


def save_reconstruction(path: Path, probed: Probed, shown: Mapping[str, np.ndarray], *, question: str = "") -> None:
    """Original, yardsticks and what the model saw in one PNG, with their errors."""
    pictures = {"original": probed.true.clip(0).astype(np.uint8), **shown, "the model": probed.seen}
    panels = [
        (
            name if name == "original" else f"{name}\nRE {error_of(colors, probed.true):.1f} %",
            Image.fromarray(np.ascontiguousarray(colors)).resize((256, 256), Image.Resampling.NEAREST),
        )
        for name, colors in pictures.items()
    ]
    save_panels(
        path,
        panels,
        question=question or f"the colour of each of {len(probed.true)} × {len(probed.true)} cells",
        answer=f"{100 * probed.unreadable:.0f} % of the answers state no colour",
        truth="the original",
    )


def summary(results: Mapping[str, Any]) -> str:
    """The main figures in a line each."""
    lines = []
    for reading, title in (("channel", "a channel"), ("sum_of_channels", "sum of three channels")):
        each = results[reading]
        lines += [
            f"RE {title}, {name}: {found['value']:.2f} % [{found['low']:.2f}, {found['high']:.2f}]"
            for name, found in each.items()
        ]
    lines.append(f"{100 * results['unreadable']:.1f} % of the answers state no colour; {results['images']} images")
    lines.append(f"published, theirs: {json.dumps(results['published, theirs'])}")
    return "\n".join(lines)
