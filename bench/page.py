"""A benchmark's report as one file: a page or a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from framecast.bench.machine import Machine, lines
from framecast.bench.plots import Trace, png, svgs
from framecast.html import document
from framecast.tables import Table, to_html


def html(
    title: str, machine: Machine, tables: Sequence[Table], series: Sequence[Trace], notes: Sequence[str] = ()
) -> str:
    """A report as one HTML document, which loads nothing: tables, a histogram, a timeline, the parts of every series.

    Args:
        title: of it.
        machine: what was measured on.
        tables: of text.
        series: what is drawn; none makes a page without drawings.
        notes: what must be said beside the figures, a line each.
    """
    heads = "".join(f"<p>{escape(line)}</p>" for line in notes)
    drawings = f"<div class='plots'>{''.join(svgs(series))}</div>" if series else ""
    foot = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in lines(machine))
    return document(
        title,
        title,
        f"{heads}\n{''.join(map(to_html, tables))}\n<h2>Every sample</h2>{drawings}\n"
        f"<h2>Measured on</h2><dl>{foot}</dl>\n",
    )


def picture(title: str, machine: Machine, series: Sequence[Trace], notes: Sequence[str] = ()) -> bytes:
    """A report as a PNG file: the drawings of :func:`html`, without its tables."""
    return png(title, series, [*notes, *(f"{label:9s} {value}" for label, value in lines(machine))])
