"""`llava-aurora data convert`."""

from pathlib import Path
from typing import Annotated

import typer

from llava_aurora.cli.data import app


@app.command(
    epilog="Examples: llava-aurora data convert train.json train.parquet  |  "
    "llava-aurora data convert parts/ train.json  |  llava-aurora data convert train.parquet train.jsonl"
)
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help=".json, .jsonl or .parquet; or a folder of .jsonl or .parquet parts.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .json, .jsonl or .parquet.")],
) -> None:
    """Write training records in another format; all three are good for --data_path. Every record is checked."""
    from llava_aurora.data.store.record_conversion import convert_records

    count = convert_records(source, out)
    print(f"{out}: {count} records, {out.stat().st_size / 1e6:.1f} MB")
