"""A million training records: how long the first conversion takes, opening after that, and what a rank then holds.

Records of real size (maps of 100 tokens) are generated into one JSON list, and written from there as JSONL and Parquet
with `data convert`. Of each format a store is made once; then as many fresh processes as there are ranks open it at the
same time, as training does (dataset columns included), read random records, and look up what they hold:

- open: seconds for the store, task counts, lengths and image digests, libraries loaded before;
- read: records a second at random places;
- pss, private, anonymous: MB more than before, as in benchmark_curriculum_memory.py. PSS shares pages among the ranks.
"""

import argparse
import gc
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from generated_records import generate

MEGABYTE = 1e6
FORMATS = ("json", "jsonl", "parquet")
READS = 10_000


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python scripts/benchmark_record_store.py --records 1000 --ranks 2 --formats parquet",
    )
    parser.add_argument("--records", type=int, default=1_000_000, help="records of the file")
    parser.add_argument("--ranks", type=int, default=2, help="processes that open it at the same time")
    parser.add_argument("--rounds", type=int, default=5, help="of opening; medians are shown")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="one table row each")
    arguments = parser.parse_args()
    if min(arguments.records, arguments.ranks, arguments.rounds) < 1:
        parser.error("--records, --ranks and --rounds are at least 1")
    return arguments


def memory() -> dict[str, float]:
    """What this process holds, in MB."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    held = {"pss": kilobytes["Pss"], "private": private, "anonymous": kilobytes["Anonymous"]}
    return {name: value * 1024 / MEGABYTE for name, value in held.items()}


def rank_main(path: Path, rank: int, meeting: Any, out: Any) -> None:
    from llava_aurora.data.store.record_store import RecordStore

    meeting.wait()
    before = memory()
    meeting.wait()
    start = time.perf_counter()
    store = RecordStore.open(path)
    columns = store.task_counts(), store.tasks, store.lengths, store.images
    opened = time.perf_counter() - start
    places = np.random.default_rng(rank).integers(0, len(store), READS)
    start = time.perf_counter()
    for place in places.tolist():
        store[place]
    read = READS / (time.perf_counter() - start)
    meeting.wait()
    after = memory()
    meeting.wait()
    out.put({"open": opened, "read": read, **{name: after[name] - before[name] for name in after}})
    del columns


def open_together(path: Path, *, ranks: int) -> dict[str, float]:
    """The slowest opening and reading of all ranks, and the most that one holds."""
    context = multiprocessing.get_context("spawn")
    meeting, out = context.Barrier(ranks, timeout=600), context.Queue()
    processes = [context.Process(target=rank_main, args=(path, rank, meeting, out)) for rank in range(ranks)]
    for process in processes:
        process.start()
    held = [out.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    return {name: (min if name == "read" else max)(each[name] for each in held) for name in held[0]}


def seconds(function: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main() -> None:
    arguments = parse_arguments()

    import llava.constants  # noqa: F401  what conversion needs of it takes seconds to load, whatever the file
    from rich.console import Console
    from rich.table import Table

    from llava_aurora.data.store.record_conversion import convert_records
    from llava_aurora.data.store.record_store import RecordStore

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["LLAVA_AURORA_CACHE"] = str(Path(name) / "cache")
        source = Path(name) / "generated.json"
        generate(source, generations=arguments.records - 2 * (arguments.records // 3), images=arguments.records // 3)
        for suffix in arguments.formats:
            path = Path(name) / f"train.{suffix}"
            written = seconds(convert_records, source, path)
            row: dict[str, Any] = {"format": suffix, "file_mb": path.stat().st_size / MEGABYTE, "written_s": written}
            row["first_open_s"] = seconds(RecordStore.open, path)
            rounds = [open_together(path, ranks=arguments.ranks) for _ in range(arguments.rounds)]
            row |= {kind: statistics.median(each[kind] for each in rounds) for kind in rounds[0]}
            rows.append({name: value if isinstance(value, str) else round(value, 4) for name, value in row.items()})
            path.unlink()
    table = Table(title=f"{arguments.records:,} records, {arguments.ranks} ranks; MB and seconds of the slowest rank")
    headings = ("file MB", "convert s", "first open s", "open s", "reads/s", "pss", "private", "anonymous")
    for heading in ("format", *headings):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" for value in list(row.values())[1:]]
        table.add_row(row["format"], *cells)
    Console(width=120).print(table)
    print(json.dumps({**vars(arguments), "rows": rows}))


if __name__ == "__main__":
    main()
