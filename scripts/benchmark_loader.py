"""Images a second: LLaVA's own dataset, ours, and ours with its cache of decoded and resized images.

Photographs that come with scikit-image are cut to JPEG files of a usual size, with depth maps, chains and answers asked
about them. Each dataset goes through the same DataLoader; all three take turns in every round, so that whatever else
the machine does falls on all of them, and their ratios are taken round by round. With --profile it is shown where the
time of one image goes.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

PHOTOGRAPHS = ("motorcycle_left.png", "coffee.png", "chelsea.png", "astronaut.png", "rocket.jpg")
UPSTREAM, OURS, CACHED = "LLaVA", "ours", "ours, cached"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python scripts/benchmark_loader.py --images 64 --rounds 5 --workers 0 2 --profile",
    )
    parser.add_argument("--images", type=int, default=256, help="images a round; each is asked about once")
    parser.add_argument("--rounds", type=int, default=7, help="of which medians are taken")
    parser.add_argument("--width", type=int, default=640, help="of the JPEG files")
    parser.add_argument("--height", type=int, default=480, help="of the JPEG files")
    parser.add_argument("--frame", type=int, default=336, help="side of the square that the vision tower reads")
    parser.add_argument("--batch", type=int, default=16, help="images a batch")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the DataLoader; one table row each")
    parser.add_argument("--aspect", choices=("pad", "square"), default="pad", help="LLaVA's --image_aspect_ratio")
    parser.add_argument("--profile", action="store_true", help="show where the time of one image goes")
    arguments = parser.parse_args()
    if min(arguments.images, arguments.rounds, arguments.width, arguments.height, arguments.frame) < 1:
        parser.error("sizes and numbers are at least 1")
    return arguments


# --- what is loaded ---------------------------------------------------------------------------------------------------


def write_images(folder: Path, *, count: int, width: int, height: int) -> list[str]:
    """Writes JPEG files cut at random from photographs; their names."""
    from PIL import Image

    sources = []
    for name in PHOTOGRAPHS:
        with resources.files("skimage").joinpath("data", name).open("rb") as file, Image.open(file) as image:
            sources.append(image.convert("RGB").resize((width * 5 // 4, height * 5 // 4)))
    rng, names = np.random.default_rng(0), []
    for number in range(count):
        source = sources[number % len(sources)]
        left, top = (int(rng.integers(0, size // 5)) for size in source.size)
        names.append(f"{number:06}.jpg")
        source.crop((left, top, left + width, top + height)).save(folder / names[-1], quality=92)
    return names


def make_records(names: list[str]) -> list[dict[str, Any]]:
    """A third each of depth maps, depth chains and direct questions, with maps of 100 tokens."""
    from llava_aurora.data.prompts import Prompts
    from llava_aurora.data.records import RecordWriter, letter_points
    from llava_aurora.tokens.vocabulary import depth_family, pixel_family

    writer = RecordWriter(prompts=Prompts(), depth=depth_family(), pixels=pixel_family())
    rng, records = np.random.default_rng(0), []
    for number, name in enumerate(names):
        about = {"name": str(number), "image": name, "rng": rng}
        codes = rng.integers(0, 128, 100).tolist()
        places = [(int(x), int(y)) for x, y in rng.integers(0, 336, (4, 2))]
        points = letter_points(places, rng.permutation(256)[:4].tolist(), rng)
        if number % 3 == 0:
            records.append(writer.depth_generation(codes=codes, **about))
        elif number % 3 == 1:
            records.append(writer.depth_chain(codes=codes, points=points, **about))
        else:
            records.append(writer.depth_direct(points=points, **about))
    return records


def make_datasets(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The three datasets over the same files, with the tokenizer that the records need."""
    from llava import conversation
    from llava.train import train as upstream
    from transformers import CLIPImageProcessor

    from llava_aurora.data.dataset import AuroraDataset
    from llava_aurora.demo.tiny_llava import train_tokenizer
    from llava_aurora.tokens.vocabulary import PerceptionVocabulary, depth_family, pixel_family

    conversation.default_conversation = conversation.conv_templates["v1"]
    names = write_images(folder, count=arguments.images, width=arguments.width, height=arguments.height)
    records = make_records(names)
    path = folder / "train.json"
    path.write_text(json.dumps(records))
    vocabulary = PerceptionVocabulary((depth_family(), pixel_family()))
    texts = [vocabulary.remove_from(turn["value"]) for record in records for turn in record["conversations"]]
    tokenizer = train_tokenizer(texts, folder=folder, vocabulary=420, max_length=2048)
    tokenizer.pad_token = tokenizer.unk_token
    vocabulary.add_to(tokenizer)
    side = arguments.frame
    flags = SimpleNamespace(
        image_folder=str(folder),
        image_processor=CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        image_aspect_ratio=arguments.aspect,
        is_multimodal=True,
        mm_use_im_start_end=False,
        image_cache="",
        image_cache_gb=50.0,
        image_orientation="stored",
    )
    cached = SimpleNamespace(**{**vars(flags), "image_cache": str(folder / "image_cache")})
    return {
        UPSTREAM: upstream.LazySupervisedDataset(str(path), tokenizer, flags),
        OURS: AuroraDataset(str(path), tokenizer, flags),
        CACHED: AuroraDataset(str(path), tokenizer, cached),
    }


def check_same(datasets: dict[str, Any]) -> None:
    """What is compared has to be the same: all tensors of some records, which also fills a part of the cache."""
    import torch

    for index in range(min(9, len(datasets[UPSTREAM]))):
        expected = datasets[UPSTREAM][index]
        for name in (OURS, CACHED, CACHED):
            item = datasets[name][index]
            assert all(torch.equal(item[key], value) for key, value in expected.items()), (name, index)


# --- measuring --------------------------------------------------------------------------------------------------------


def images_a_second(dataset: Any, collator: Any, *, batch: int, workers: int) -> float:
    """One epoch in order through a DataLoader; starting its workers counts, as it does in every epoch of training."""
    from torch.utils.data import DataLoader

    start = time.perf_counter()
    seen = 0
    for each in DataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=collator):
        seen += len(each["images"])
    return seen / (time.perf_counter() - start)


def measure(datasets: dict[str, Any], arguments: argparse.Namespace, *, workers: int) -> dict[str, Any]:
    from llava.train.train import DataCollatorForSupervisedDataset

    from llava_aurora.data.dataset import AuroraCollator

    tokenizer = datasets[UPSTREAM].tokenizer
    collators = {name: AuroraCollator(tokenizer=tokenizer) for name in datasets}
    collators[UPSTREAM] = DataCollatorForSupervisedDataset(tokenizer=tokenizer)
    rates: dict[str, list[float]] = {name: [] for name in datasets}
    for turn in range(arguments.rounds):
        names = list(datasets)
        for name in names[turn % 3 :] + names[: turn % 3]:
            rate = images_a_second(datasets[name], collators[name], batch=arguments.batch, workers=workers)
            rates[name].append(rate)
    row: dict[str, Any] = {"workers": workers}
    for name, each in rates.items():
        ratios = [rate / upstream for rate, upstream in zip(each, rates[UPSTREAM], strict=True)]
        row[name] = round(statistics.median(each), 1)
        row[f"{name}, ratio"] = round(statistics.median(ratios), 2)
        row[f"{name}, ratio least"] = round(min(ratios), 2)
    return row


def profile(datasets: dict[str, Any], rounds: int) -> dict[str, float]:
    """Milliseconds of each step of an image and its text, medians over rounds of the mean over all records."""
    from llava.mm_utils import expand2square
    from llava.train import train as upstream

    from llava_aurora.data.images.image_files import path_inside
    from llava_aurora.data.images.image_reader import open_image

    dataset = datasets[OURS]
    cached, flags, processor = datasets[CACHED].images, dataset.data_args, dataset.images.processor
    records = list(dataset.list_data_dict)
    paths = [path_inside(dataset.images.folder, record["image"]) for record in records]
    opened = [open_image(path) for path in paths[:64]]
    squares = [expand2square(image, (122, 116, 104)) for image in opened]
    frames = [dataset.images.frame(record["image"]) for record in records[:64]]

    def tokens(index: int) -> None:
        turns = [[dict(turn) for turn in records[index]["conversations"]]]
        upstream.preprocess(upstream.preprocess_multimodal(turns, flags), dataset.tokenizer, has_image=True)

    resized = {"do_rescale": False, "do_normalize": False}
    steps: dict[str, Callable[[int], Any]] = {
        "LLaVA: the whole item": lambda index: datasets[UPSTREAM][index],
        "LLaVA: the processor": lambda index: processor.preprocess(squares[index], return_tensors="pt"),
        "both: decode": lambda index: open_image(paths[index]),
        "both: tokenize": tokens,
        "ours: the whole item": lambda index: dataset[index],
        "ours: resize, crop": lambda index: processor.preprocess(squares[index], **resized, return_tensors="np"),
        "ours: look values up": lambda index: dataset.images.values(frames[index]),
        "ours, cached: the whole item": lambda index: datasets[CACHED][index],
        "ours, cached: read, verify": lambda index: cached.frame(records[index]["image"]),
    }
    count = len(opened)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for index in range(count):
                step(index)
            times[name].append(1000 * (time.perf_counter() - start) / count)
    return {name: round(statistics.median(each), 2) for name, each in times.items()}


def main() -> None:
    arguments = parse_arguments()

    import torch
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(1)
    console, report = Console(width=120), {**vars(arguments)}
    with tempfile.TemporaryDirectory() as name:
        os.environ["LLAVA_AURORA_CACHE"] = str(Path(name) / "records")
        datasets = make_datasets(Path(name), arguments)
        check_same(datasets)
        start = time.perf_counter()
        for index in range(arguments.images):
            datasets[CACHED].images.frame(datasets[CACHED].list_data_dict[index]["image"])
        report["fill_images_a_second"] = round(arguments.images / (time.perf_counter() - start), 1)
        entries = list(Path(name).joinpath("image_cache").rglob("*.img"))
        report["cache_kb_an_image"] = round(sum(entry.stat().st_size for entry in entries) / len(entries) / 1000, 1)
        report["rows"] = [measure(datasets, arguments, workers=workers) for workers in arguments.workers]
        report["milliseconds"] = profile(datasets, arguments.rounds) if arguments.profile else None
    table = Table(title=f"images a second, median of {arguments.rounds} rounds (ratio to LLaVA: median, least)")
    for heading in ("workers", *datasets):
        table.add_column(heading, justify="right")
    for row in report["rows"]:
        cells = [f"{row[each]} ({row[f'{each}, ratio']} ×, {row[f'{each}, ratio least']} ×)" for each in datasets]
        table.add_row(str(row["workers"]), *cells)
    console.print(table)
    if report["milliseconds"]:
        steps = Table("step", "ms an image", title="where the time goes, one process")
        for step, milliseconds in report["milliseconds"].items():
            steps.add_row(step, f"{milliseconds:.2f}")
        console.print(steps)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
