"""The options --quiet and --json, which every command takes."""

import inspect
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from contextvars import ContextVar
from functools import wraps
from io import StringIO
from typing import Annotated, Any

import typer

from llava_aurora.progress import QUIET, silence_libraries

_told: dict[str, Any] = {}
_wanted = ContextVar("_wanted", default=False)


def tell(facts: Callable[[], dict[str, Any]] | None = None, **more: Any) -> None:
    """What the running command prints with --json, as one object: these, and what it told before.

    Args: facts: is called only where --json was given.
    """
    if _wanted.get():
        _told.update(**(facts() if facts else {}), **more)


class Commands(typer.Typer):
    """Commands with --quiet and --json, which both keep back what a command prints on stdout."""

    def __init__(self, **settings: Any) -> None:
        # Without Rich: to load what draws the panels of its help would take as long as all else.
        super().__init__(rich_markup_mode=None, **settings)

    def command(self, name: str | None = None, *, answers: bool = False, **settings: Any) -> Callable[..., Any]:
        """As Typer's. Args: answers: what the command prints is what was asked for, which --quiet leaves."""

        def register(function: Callable[..., None]) -> Callable[..., None]:
            super(Commands, self).command(name, **settings)(_with_output(function, answers=answers))
            return function

        return register


def _with_output(function: Callable[..., None], *, answers: bool) -> Callable[..., None]:
    @wraps(function)
    def called(*, quiet: bool, as_json: bool, **options: Any) -> None:
        silence_libraries()
        _told.clear()
        _wanted.set(as_json)
        if quiet:
            os.environ[QUIET] = "1"
        kept_back = redirect_stdout(StringIO()) if as_json or (quiet and not answers) else nullcontext()
        try:
            with kept_back:
                function(**options)
        finally:
            if as_json and (_told or not sys.exc_info()[0]):
                import json  # not at the top: --help needs none of it

                print(json.dumps(_told, ensure_ascii=False, default=str))

    added = {
        "quiet": Annotated[bool, typer.Option("--quiet", help="No progress bars and no summary.")],
        "as_json": Annotated[bool, typer.Option("--json", help="Print the result as JSON.")],
    }
    kind = inspect.Parameter.KEYWORD_ONLY
    new = [inspect.Parameter(name, kind, default=False, annotation=option) for name, option in added.items()]
    signature = inspect.signature(function)
    called.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *new])  # type: ignore[attr-defined]
    called.__annotations__ = {**function.__annotations__, **added}
    return called
