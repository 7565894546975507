"""`llava-aurora data convert` writes what training reads, and says what it cannot."""

import json
import sys

import pytest
from typer.testing import CliRunner

from llava_aurora.cli.__main__ import app
from llava_aurora.data.store.record_file import read_records
from llava_aurora.errors import AuroraError


def invoke(*arguments):
    return CliRunner().invoke(app, ["data", "convert", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_records_are_written_and_counted(workshop, tmp_path, suffix):
    out = tmp_path / f"train.{suffix}"
    done = invoke(workshop.records, out)
    assert done.exit_code == 0, done.output
    assert f"{out}: 64 records" in done.output.replace("\n", "")
    assert read_records(out) == json.loads(workshop.records.read_text())


def test_help_has_examples_and_loads_no_torch(start):
    code = "import sys; sys.argv[1:] = ['data', 'convert', '--help']\nimport llava_aurora.cli.__main__ as c\n"
    run = start(sys.executable, "-c", code + "try:\n    c.main()\nfinally:\n    print('torch' in sys.modules)")
    assert run.output.strip().endswith("False")
    assert "train.json train.parquet" in " ".join(run.output.split())


def test_what_cannot_be_converted_is_an_error_of_one_line(workshop, tmp_path):
    with pytest.raises(AuroraError, match=r"out.txt: the suffix says what is written"):
        invoke(workshop.records, tmp_path / "out.txt")
