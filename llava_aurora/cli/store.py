"""`llava-aurora data convert`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from llava_aurora.cli.data import app
from llava_aurora.cli.output import tell


@app.command(
    epilog="Examples: llava-aurora data convert train.json train.parquet  |  "
    "llava-aurora data convert parts/ train.json  |  llava-aurora data convert train.parquet train.jsonl  |  "
    "llava-aurora data convert --from aurora --once train_depth_annealing_data.json train.json"
)
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help=".json, .jsonl or .parquet; or a folder of .jsonl or .parquet parts.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .json, .jsonl or .parquet.")],
    origin: Annotated[
        Literal["aurora"] | None,
        typer.Option("--from", help="aurora: label the records of AURORA's own files with task and ground truth."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="With --from: each record once, of a file with all epochs in it.")
    ] = False,
) -> None:
    """Convert training records to another format; --data_path takes all three. Every record is checked."""
    if once and origin is None:
        raise typer.BadParameter("--once needs --from")
    from llava_aurora.data.store.record_conversion import convert_records

    if origin is None:
        count = convert_records(source, out)
    else:
        from llava_aurora.data.sources.aurora_records import AuroraRecords

        named = AuroraRecords(source, once=once)
        count = convert_records(source, out, change=named)
        tell(tasks=named.tasks, repeated=named.repeated, unknown=list(map(str, named.unknown)))
        print(f"tasks: {', '.join(f'{task} {number:,}' for task, number in named.tasks.most_common())}")
        print(f"repeated: {named.repeated:,}{', left out' if once else ''}")
        for unknown in named.unknown:
            print(f"not recognised: {unknown}", file=sys.stderr)
    tell(out=out, records=count, bytes=out.stat().st_size)
    print(f"{out}: {count} records, {out.stat().st_size / 1e6:.1f} MB")
