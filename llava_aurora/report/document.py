"""Documents of sections, tables and pictures, written as Markdown and as one HTML file that loads nothing."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from llava_aurora.errors import AuroraError
from llava_aurora.files import write_text

NONE = "–"  # a cell without a number


@dataclass(frozen=True)
class Table:
    """Args: title; header; rows: of as many cells, each text; published: numbers of rows not measured here;
    links: for each row, of pictures of the document, a text and the picture each; shown in a column `cases`.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    published: frozenset[int] = field(default_factory=frozenset)
    links: Sequence[Sequence[tuple[str, str]]] = ()


@dataclass(frozen=True)
class Section:
    """A part of a document: paragraphs, tables, and pictures (path relative to the document, caption)."""

    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)


def write_markdown(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Writes a document as Markdown. Raises AuroraError if it cannot be written."""
    template = Path(__file__).with_name("document.md.jinja")
    write_text(path, render(template, title=title, sections=sections, cell=_markdown_cell))


def write_html(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Writes a document as one HTML file with its pictures in it.

    Raises AuroraError if a picture is missing, or the file cannot be written.
    """

    def inline(picture: str) -> str:
        try:
            return data_uri((path.parent / picture).read_bytes(), kind="png")
        except OSError as error:
            raise AuroraError(f"{path.parent / picture}: a picture of {path.name} is missing; make it again") from error

    template = Path(__file__).with_name("document.html.jinja")
    write_text(path, render(template, title=title, sections=sections, inline=inline))


def render(template: Path, **values: Any) -> str:
    """A template filled in; in HTML every value is escaped. A name that is missing is an error."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)


def data_uri(content: bytes, *, kind: str) -> str:
    """An image file as an address that holds it; kind: png or jpeg."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _markdown_cell(text: str, *, published: bool = False) -> str:
    text = text.replace("|", "\\|").replace("\n", " ")
    return f"*{text}*" if published and text else text


# --- cells ------------------------------------------------------------------------------------------------------------


def percent(share: float | Mapping[str, Any] | None) -> str:
    """A share, or the mean of one with its interval, in percent with one digit."""
    value = share["value"] if isinstance(share, Mapping) else share
    return NONE if value is None else f"{100 * value:.1f}"


def interval(share: Mapping[str, Any] | None) -> str:
    """A mean share in percent, with the ends of its interval."""
    if share is None or share["value"] is None:
        return NONE
    return f"{100 * share['value']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def number(mean: Mapping[str, Any] | None, *, digits: int = 3) -> str:
    """A mean without its interval."""
    return NONE if mean is None or mean["value"] is None else f"{mean['value']:.{digits}f}"
