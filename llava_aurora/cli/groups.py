"""Groups of commands whose modules are imported when one of their commands is asked for, and not before."""

from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from llava_aurora.cli.output import Commands


def group_of(modules: Sequence[str], *, help: str) -> Commands:
    """A group for `Typer.add_typer`. Args: modules: of llava_aurora.cli; the first has the `app` of them all."""

    class Group(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            del self.commands  # what Typer sets here would hide the property

        @cached_property
        def commands(self) -> Any:  # type: ignore[override]
            app, *_ = [import_module(f"llava_aurora.cli.{module}") for module in modules]
            return typer.main.get_group(app.app).commands

    return Commands(cls=Group, no_args_is_help=True, help=help)
