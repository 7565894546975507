"""Training records of real size for the benchmarks: maps of 100 codes, questions about four points."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def generate(path: Path, *, generations: int, images: int) -> None:
    """Writes depth generation records, and a chain and a direct question about each of `images` marked images."""
    from llava_aurora.data.prompts import Prompts
    from llava_aurora.data.records import RecordWriter, letter_points
    from llava_aurora.tokens.vocabulary import depth_family, pixel_family

    writer = RecordWriter(prompts=Prompts(), depth=depth_family(), pixels=pixel_family())
    rng = np.random.default_rng(0)

    def records() -> Iterator[dict[str, Any]]:
        for number in range(generations):
            about = {"name": f"ADE_train_{number:08}", "image": f"ADE_train_{number:08}.jpg", "rng": rng}
            yield writer.depth_generation(codes=rng.integers(0, 128, 100).tolist(), **about)
        for number in range(images):
            about = {"name": f"marked_{number:08}", "image": f"marked/{number:08}.png", "rng": rng}
            places = [(int(x), int(y)) for x, y in rng.integers(0, 336, (4, 2))]
            points = letter_points(places, rng.permutation(256)[:4].tolist(), rng)
            yield writer.depth_chain(codes=rng.integers(0, 128, 100).tolist(), points=points, **about)
            yield writer.depth_direct(points=points, **about)

    write_list(path, records())


def write_list(path: Path, records: Iterator[dict[str, Any]]) -> None:
    """Writes records as LLaVA's JSON, one after the other."""
    with path.open("w") as file:
        for number, record in enumerate(records):
            file.write(("," if number else "[") + json.dumps(record))
        file.write("]")
