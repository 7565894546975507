"""Images a second: LLaVA's own dataset, ours, and ours with its cache of decoded and resized images.

    python benchmarks/loader.py                          # some minutes on two cores
    python benchmarks/loader.py --aspect square --workers 0 2

Photographs that come with scikit-image are cut to JPEG files of a usual size, with maps, chains and answers asked about
them. Each dataset goes through the same DataLoader with each number of workers; starting them counts, as it does in
every epoch. Before that, all tensors of some records are compared.
"""

import argparse
import os
import tempfile
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from harness import Parser, interleaved, rate, report, times_as_fast
from llava import conversation
from llava.train import train as upstream
from PIL import Image
from torch.utils.data import DataLoader
from transformers import CLIPImageProcessor

from llava_aurora.data.dataset import AuroraCollator, AuroraDataset
from llava_aurora.demo.tiny_llava import train_tokenizer
from llava_aurora.gpu.layer_stack import FAMILIES, words_of, write_records
from llava_aurora.tokens.vocabulary import PerceptionVocabulary

PHOTOGRAPHS = ("motorcycle_left.png", "coffee.png", "chelsea.png", "astronaut.png", "rocket.jpg")
UPSTREAM, OURS, CACHED = "LLaVA", "ours", "ours, cached"


def main() -> None:
    parser = Parser(__doc__, rounds=7)
    parser.number("--images", 256, "a round")
    parser.number("--width", 640, "of the JPEG files")
    parser.number("--height", 480, "of the JPEG files")
    parser.number("--frame", 336, "side of the square that the vision tower reads")
    parser.number("--batch", 16, "images a batch")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the DataLoader")
    parser.add_argument("--aspect", choices=("pad", "square"), default="pad", help="LLaVA's --image_aspect_ratio")
    options = parser.options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLAVA_AURORA_CACHE"] = str(Path(folder) / "records")
        datasets = make_datasets(Path(folder), options)
        check_same(datasets)
        rows = [row for workers in options.workers for row in measure(datasets, options, workers=workers)]
    report("loader", rows, options)


def make_datasets(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The three datasets over the same files; a third each of maps, chains and direct questions."""
    conversation.default_conversation = conversation.conv_templates["v1"]
    path, images = folder / "train.json", -(-options.images // 3)
    records = write_records(path, generations=images, images=images)
    write_images(folder, sorted({record["image"] for record in records}), size=(options.width, options.height))
    tokenizer = train_tokenizer(words_of(records), folder=folder, vocabulary=420, max_length=2048)
    tokenizer.pad_token = tokenizer.unk_token
    PerceptionVocabulary(FAMILIES).add_to(tokenizer)
    side = options.frame
    settings = {
        "image_folder": str(folder),
        "image_processor": CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        "image_aspect_ratio": options.aspect,
        "is_multimodal": True,
        "mm_use_im_start_end": False,
        "image_cache_gb": 50.0,
        "image_orientation": "stored",
    }
    plain = SimpleNamespace(**settings, image_cache="")
    cached = SimpleNamespace(**settings, image_cache=str(folder / "image_cache"))
    return {
        UPSTREAM: upstream.LazySupervisedDataset(str(path), tokenizer, plain),
        OURS: AuroraDataset(str(path), tokenizer, plain),
        CACHED: AuroraDataset(str(path), tokenizer, cached),
    }


def write_images(folder: Path, names: list[str], *, size: tuple[int, int]) -> None:
    """Writes JPEG files cut at random from photographs."""
    sources = []
    for name in PHOTOGRAPHS:
        with resources.files("skimage").joinpath("data", name).open("rb") as file, Image.open(file) as image:
            sources.append(image.convert("RGB").resize((size[0] * 5 // 4, size[1] * 5 // 4)))
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        source = sources[number % len(sources)]
        left, top = (int(rng.integers(0, side // 5)) for side in source.size)
        source.crop((left, top, left + size[0], top + size[1])).save(folder / name, quality=92)


def check_same(datasets: dict[str, Any]) -> None:
    """Compares all tensors of some records, in the cache once as they are written and once as they are read."""
    for index in range(min(9, len(datasets[UPSTREAM]))):
        expected = datasets[UPSTREAM][index]
        for name in (OURS, CACHED, CACHED):
            item = datasets[name][index]
            if not all(torch.equal(item[key], value) for key, value in expected.items()):
                raise SystemExit(f"{name}: record {index} is another than LLaVA's")


def measure(datasets: dict[str, Any], options: argparse.Namespace, *, workers: int) -> list[dict[str, Any]]:
    """A row for each dataset."""
    tokenizer, count = datasets[UPSTREAM].tokenizer, len(datasets[UPSTREAM])
    collators = {name: AuroraCollator(tokenizer=tokenizer) for name in datasets}
    collators[UPSTREAM] = upstream.DataCollatorForSupervisedDataset(tokenizer=tokenizer)

    def epoch(name: str) -> None:
        loaded = DataLoader(datasets[name], batch_size=options.batch, num_workers=workers, collate_fn=collators[name])
        for _ in loaded:
            pass

    # The first round, which is not counted, fills the cache.
    seconds = interleaved({name: lambda name=name: epoch(name) for name in datasets}, rounds=options.rounds)
    return [
        {
            "way": name,
            "workers": workers,
            "images_a_second": rate(seconds[name], count),
            **(times_as_fast(seconds, name, UPSTREAM) if name != UPSTREAM else {}),
        }
        for name in datasets
    ]


if __name__ == "__main__":
    main()
