"""The style of framecast's plots, and their export as SVG for a page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.figure import Figure

INK = "#010203"  # placeholder for the page's text colour, light or dark
COLOURS = ("#8a8f98", "#c79a00", "#2f9e6b", "#e0533d", "#4a80e8", "#a35bd1", "#1aa0b8", "#b3693a")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "framecast",
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}


def to_svg(figure: Figure) -> str:
    """Return one ``<svg>`` element that inherits the page's text colour. Draw the figure with :data:`STYLE`."""
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, dpi=150, metadata={"Date": None})
    svg = written.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
