"""Curves of quality against steps ahead, as SVG that takes its ink from the page around it."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from framecast.evaluation.metrics import METRICS
from framecast.evaluation.results import Results
from framecast.evaluation.tables import titles

INK = "#010203"  # stands for the page's own, light or dark
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


def curves(results: Results, metric: str) -> str:
    """One ``<svg>`` element: the mean of every method by steps ahead."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        steps = range(1, results.horizon + 1)
        models = {contender.name for contender in results.contenders}
        for number, (method, title) in enumerate(zip(results.methods, titles(results), strict=True)):
            style = {"linewidth": 2.4, "marker": "o"} if method in models else {"linewidth": 1.4, "marker": "."}
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(steps, results.of(results.mean, method, metric), label=title, color=colour, **style)  # type: ignore[arg-type]
        axes.set_title(METRICS[metric].title.rstrip(" ↑↓"), loc="left", fontsize=11)
        axes.set_xlabel("steps ahead")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.15)
        # Quality falls with steps ahead, so that corner is free; "best" searches, and warns where that takes a second.
        axes.legend(loc="upper right", frameon=False, fontsize=9)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = written.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
