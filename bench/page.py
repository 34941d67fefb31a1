"""A benchmark's report as one file: an HTML page or a PNG picture."""

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
    """Return a report as one self-contained HTML document.

    It shows tables, a histogram, a timeline, and the parts of every series. It loads nothing from elsewhere.

    Args:
        title: heading of the page.
        machine: the machine that ran the benchmark.
        tables: tables of text.
        series: samples to draw; empty for a page without plots.
        notes: remarks that readers of the figures need, one a line.
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
    """Return a report as a PNG file: the plots of :func:`html`, but no tables."""
    return png(title, series, [*notes, *(f"{label:9s} {value}" for label, value in lines(machine))])
