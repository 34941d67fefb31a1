"""Curves of quality over the lookahead, as SVG in the text colour of the surrounding page."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from framecast.drawing import COLOURS, STYLE, to_svg
from framecast.evaluation.metrics import METRICS
from framecast.evaluation.results import Results
from framecast.evaluation.tables import titles


def curves(results: Results, metric: str) -> str:
    """Return one ``<svg>`` element with the mean of every method over the lookahead."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        models = {contender.name for contender in results.contenders}
        for number, (method, title) in enumerate(zip(results.methods, titles(results), strict=True)):
            style = {"linewidth": 2.4, "marker": "o"} if method in models else {"linewidth": 1.4, "marker": "."}
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(results.ahead.asked, results.of(results.mean, method, metric), label=title, color=colour, **style)  # type: ignore[arg-type]
        axes.set_title(METRICS[metric].title.rstrip(" ↑↓"), loc="left", fontsize=11)
        axes.set_xlabel(f"{results.ahead.unit} ahead")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.15)
        axes.legend(loc="upper right", frameon=False, fontsize=9)
        return to_svg(figure)
