"""A benchmark's report as one file that needs nothing else: a page, or a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from framecast.bench.machine import Machine, lines
from framecast.bench.plots import Trace, png, svgs
from framecast.errors import OptionError
from framecast.files import write
from framecast.html import document
from framecast.tables import Table, to_html

SUFFIXES = (".html", ".png")


def write_report(
    path: Path,
    title: str,
    machine: Machine,
    tables: Sequence[Table],
    series: Sequence[Trace],
    notes: Sequence[str] = (),
) -> None:
    """Write a histogram, a timeline and the parts of every series, the tables, and what was measured on.

    Args:
        path: an ``.html`` page, or a ``.png`` picture, which has no tables.
        title: of it.
        machine: what was measured on.
        tables: of text.
        series: what is drawn; none makes a page without drawings.
        notes: what must be said beside the figures, a line each.

    Raises:
        OptionError: another suffix; or a picture of nothing.
        SinkError: the file cannot be written.
    """
    check(path)
    if path.suffix.lower() == ".html":
        write(path, html(title, machine, tables, series, notes).encode())
        return
    if not series:
        raise OptionError(f"{path}: nothing to draw; choose .html")
    text = [*notes, *(f"{label:9s} {value}" for label, value in lines(machine))]
    write(path, png(title, series, text))


def check(path: Path) -> None:
    """A report goes by its suffix.

    Raises:
        OptionError: it is none of ``SUFFIXES``.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"{path}: a report ends in {' or '.join(SUFFIXES)}")


def html(
    title: str, machine: Machine, tables: Sequence[Table], series: Sequence[Trace], notes: Sequence[str] = ()
) -> str:
    """The whole HTML document; it loads nothing from anywhere."""
    heads = "".join(f"<p>{escape(line)}</p>" for line in notes)
    drawings = f"<div class='plots'>{''.join(svgs(series))}</div>" if series else ""
    foot = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in lines(machine))
    return document(
        title,
        title,
        f"{heads}\n{''.join(map(to_html, tables))}\n<h2>Every sample</h2>{drawings}\n"
        f"<h2>Measured on</h2><dl>{foot}</dl>\n",
    )
