"""What each rank holds of a curriculum's records: one long JSON list, or a shared store and a sampler.

Real-size records (maps of 100 tokens) are generated into a temporary folder. As many processes as there are ranks then
load them at the same time, read their part of an epoch, and look up what they hold in /proc/self/smaps_rollup:

- PSS: memory held, shared pages divided by the processes that share them;
- private: pages that no other process has mapped at that moment;
- anonymous: what is not mapped from a file. The rest of PSS is page cache, which the kernel can take back.

The research code of AURORA bakes all epochs into one JSON file that every rank loads. Its file is made here from the
same curriculum that the sampler follows.
"""

import argparse
import gc
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from generated_records import generate, write_list

MEGABYTE = 1e6


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python scripts/benchmark_curriculum_memory.py --records 2000 --ranks 2 --epochs 4",
    )
    parser.add_argument("--records", type=int, default=200_000, help="records of the baked file, and of the big store")
    parser.add_argument("--epochs", type=int, default=10, help="epochs baked into that file")
    parser.add_argument("--ranks", type=int, default=8, help="processes that load at the same time")
    arguments = parser.parse_args()
    if min(vars(arguments).values()) < 1 or arguments.records < 100 * arguments.epochs:
        parser.error("--ranks and --epochs are at least 1, and --records at least 100 an epoch")
    return arguments


# --- generated records ------------------------------------------------------------------------------------------------


def bake(path: Path, unique: Path, *, epochs: int) -> None:
    """Writes the records of all epochs one after the other, as the research code does."""
    store, curriculum = _curriculum(unique)
    orders = (curriculum.order(epoch, epochs=epochs, seed=0) for epoch in range(epochs))
    write_list(path, (store[int(index)] for order in orders for index in order))


def _curriculum(path: Path) -> tuple[Any, Any]:
    from llava_aurora.data.curriculum.sampler import Curriculum
    from llava_aurora.data.curriculum.schedule import LinearSchedule
    from llava_aurora.data.store.record_store import RecordStore

    store = RecordStore.open(path)
    return store, Curriculum(store, LinearSchedule())


# --- one rank ---------------------------------------------------------------------------------------------------------


def load_baked(path: Path, rank: int, ranks: int, epochs: int) -> Any:
    with path.open() as file:
        return json.load(file)


def load_store(path: Path, rank: int, ranks: int, epochs: int) -> Any:
    """Opens the store and reads this rank's part of the last epoch, so that pages of it are mapped as in training."""
    from llava_aurora.data.curriculum.sampler import CurriculumSampler

    store, curriculum = _curriculum(path)
    sampler = CurriculumSampler(curriculum, epochs=epochs, seed=0)
    for epoch in (0, epochs - 1):
        sampler.set_epoch(epoch)
        for position, index in enumerate(sampler):
            if position % ranks == rank:
                store[index]
    return store, sampler


def memory() -> dict[str, float]:
    """What this process holds, in MB."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    held = {"pss": kilobytes["Pss"], "private": private, "anonymous": kilobytes["Anonymous"]}
    return {name: value * 1024 / MEGABYTE for name, value in held.items()}


def rank_main(load: Callable[..., Any], path: Path, rank: int, ranks: int, epochs: int, meeting: Any, out: Any) -> None:
    # Libraries are the same for both, and not what is measured.
    import llava_aurora.data.curriculum.sampler
    import llava_aurora.data.store.record_store  # noqa: F401

    meeting.wait()
    before = memory()
    meeting.wait()
    held = load(path, rank, ranks, epochs)
    meeting.wait()
    after = memory()
    meeting.wait()
    del held
    out.put({name: after[name] - before[name] for name in after})


def measure(load: Callable[..., Any], path: Path, *, ranks: int, epochs: int) -> dict[str, float]:
    """MB that a rank holds more after loading than before, the mean of all ranks."""
    context = multiprocessing.get_context("spawn")
    meeting, out = context.Barrier(ranks, timeout=1200), context.Queue()
    processes = [
        context.Process(target=rank_main, args=(load, path, rank, ranks, epochs, meeting, out)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    held = [out.get(timeout=1200) for _ in processes]
    for process in processes:
        process.join()
    return {name: sum(each[name] for each in held) / ranks for name in held[0]}


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    arguments = parse_arguments()
    an_epoch = arguments.records // arguments.epochs
    sizes = {"ranks": arguments.ranks, "epochs": arguments.epochs}
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LLAVA_AURORA_CACHE"] = str(folder / "cache")
        paths = {part: folder / f"{part}.json" for part in ("baked", "unique", "large")}
        generate(paths["unique"], generations=an_epoch, images=an_epoch // 40)
        bake(paths["baked"], paths["unique"], epochs=arguments.epochs)
        generate(paths["large"], generations=arguments.records * 95 // 100, images=arguments.records * 5 // 200)
        _curriculum(paths["large"])
        for title, load, part in (
            ("json.load of all epochs", load_baked, "baked"),
            ("store of the unique records, and sampler", load_store, "unique"),
            ("store of as many unique records, and sampler", load_store, "large"),
        ):
            held = measure(load, paths[part], **sizes)
            held |= {"json_mb": paths[part].stat().st_size / MEGABYTE}
            results.append({"what": title, **{name: round(value, 1) for name, value in held.items()}})
    table = Table(title=f"MB that each of {arguments.ranks} ranks holds (in brackets: of the first row)")
    kinds = ("pss", "private", "anonymous")
    for heading in ("", "JSON file", *kinds):
        table.add_column(heading, justify="right" if heading else "left")
    for row in results:
        cells = [f"{row[kind]:.1f} (1/{results[0][kind] / max(row[kind], 0.1):.0f})" for kind in kinds]
        table.add_row(row["what"], f"{row['json_mb']:.0f}", *cells)
    Console(width=120).print(table)
    print(json.dumps({**vars(arguments), "rows": results}))


if __name__ == "__main__":
    main()
