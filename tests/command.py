"""A command as a user types it, run in this process."""

from typing import Any

from typer.testing import CliRunner, Result

from llava_aurora.cli.__main__ import app


def llava_aurora(*arguments: object, **options: Any) -> Result:
    """What `llava-aurora ARGUMENTS` prints, ends with and raises. Args: options: of `CliRunner.invoke`."""
    return CliRunner().invoke(app, list(map(str, arguments)), **options)
