"""Plots of latencies: a histogram, a timeline, and a breakdown into parts."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from framecast.drawing import COLOURS, INK, STYLE, to_svg

BINS = 60
COLUMNS = 130  # width of the text below a picture
CUT = 99.5  # percentile of all samples at which a histogram's axis ends; the last bin counts the samples beyond it
WIDE = 8  # the axis is logarithmic if it reaches beyond this many times the fastest sample's latency
# Colours for the parts of a step, from dark to light. They differ in brightness, so colour-blind readers can tell them
# apart, also in print. The cases use other colours.
# Nuñez, Anderton and Renslow, "Optimizing colormaps with consideration for color vision deficiency", 2018.
PARTS = "cividis"


@dataclass(frozen=True)
class Trace:
    """Samples to draw.

    Attributes:
        name: name in the legend.
        starts: start of each sample, in seconds.
        milliseconds: latency of each sample.
        parts: milliseconds of each part by its name, one value per sample. The plot shows their means.
    """

    name: str
    starts: Sequence[float]
    milliseconds: Sequence[float]
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)


Draw = Callable[[Axes, Sequence[Trace]], None]


def svgs(traces: Sequence[Trace]) -> list[str]:
    """Return one ``<svg>`` element per plot, in the text colour of the surrounding page."""
    drawn = []
    with mpl.rc_context(STYLE):
        for draw in _draws(traces):
            figure = Figure(figsize=(6, _height(draw, traces)), layout="constrained")
            draw(figure.subplots(), traces)
            drawn.append(to_svg(figure))
    return drawn


def png(title: str, traces: Sequence[Trace], text: Sequence[str]) -> bytes:
    """Return all plots in one picture, with lines of text below them."""
    draws = _draws(traces)
    text = [part for line in text for part in textwrap.wrap(line, COLUMNS, subsequent_indent=10 * " ")]
    heights = [_height(draw, traces) for draw in draws]
    foot = 0.2 * len(text) + 0.1
    figure = Figure(figsize=(10, sum(heights) + foot + 0.4), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(sum(heights) + 0.4, foot))
    above, below = halves
    above.suptitle(title, x=0.01, ha="left", fontweight="bold")
    rows = above.subplots(len(draws), 1, height_ratios=heights, squeeze=False)
    for draw, axes in zip(draws, rows[:, 0], strict=True):
        draw(axes, traces)
        axes.spines[["top", "right"]].set_visible(False)
    below.text(0.01, 0.98, "\n".join(text), va="top", fontsize=8, family="monospace", parse_math=False)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=130)
    return written.getvalue()


def histogram(axes: Axes, traces: Sequence[Trace]) -> None:
    """Draw the share of samples by latency, with a dashed line at each median."""
    every = np.concatenate([np.asarray(trace.milliseconds, np.float64) for trace in traces])
    low, high = float(every.min()), float(np.percentile(every, CUT))
    if not high > low:
        high = low + max(1e-3, abs(low) * 1e-3)
    edges = np.linspace(low, high, BINS + 1)
    if low > 0 and high > WIDE * low:
        edges = np.geomspace(low, high, BINS + 1)
        axes.set_xscale("log")
    for trace, colour in _coloured(traces):
        values = np.minimum(trace.milliseconds, high)
        weights = np.full(len(values), 100 / len(values))
        axes.hist(
            values, edges.tolist(), weights=weights, color=colour, alpha=0.5, label=f"{trace.name} (n={len(values)})"
        )
        axes.axvline(float(np.median(trace.milliseconds)), color=colour, linestyle="--", linewidth=1)
    beyond = int((every > high).sum())
    _titled(axes, "Histogram", "ms" + (f" ({beyond} above are in the last bar)" if beyond else ""), "% of samples")
    axes.legend(loc="upper right", frameon=False, fontsize=8)  # latency has its long tail there


def timeline(axes: Axes, traces: Sequence[Trace]) -> None:
    """Draw every sample at its start time."""
    for trace, colour in _coloured(traces):
        # Rasterized, because thousands of vector points would be larger than the rest of the page.
        axes.plot(trace.starts, trace.milliseconds, ".", markersize=3, color=colour, label=trace.name, rasterized=True)
    axes.set_ylim(bottom=0)
    _titled(axes, "Timeline", "seconds since the measurement began", "ms")


def breakdown(axes: Axes, traces: Sequence[Trace]) -> None:
    """Draw where the time goes: a bar of each part's mean, end to end."""
    shown = [trace for trace in traces if trace.parts]
    names = list(dict.fromkeys(name for trace in shown for name in trace.parts))
    ends = [0.0] * len(shown)
    for name, colour in zip(names, shades(len(names)), strict=True):
        means = [float(np.mean(trace.parts[name])) if len(trace.parts.get(name, ())) else 0.0 for trace in shown]
        labels = [trace.name for trace in shown]
        axes.barh(labels, means, left=ends, color=colour, edgecolor=INK, linewidth=0.4, label=name)
        ends = [end + mean for end, mean in zip(ends, means, strict=True)]
    axes.invert_yaxis()
    _titled(axes, "Where the time goes", "ms, means", "")
    axes.legend(frameon=False, fontsize=8, ncols=min(4, len(names)), loc="upper left", bbox_to_anchor=(0, -0.35))


def shades(count: int) -> list[str]:
    """Return ``count`` colours of :data:`PARTS`, as far apart as possible."""
    return [to_hex(colour) for colour in mpl.colormaps[PARTS](np.linspace(0.1, 0.95, count))]


def _draws(traces: Sequence[Trace]) -> list[Draw]:
    return [histogram, timeline, *([breakdown] if any(trace.parts for trace in traces) else [])]


def _height(draw: Draw, traces: Sequence[Trace]) -> float:
    """Return a plot's height in inches: it grows by one bar per trace in a breakdown, and is fixed otherwise."""
    return 1.6 + 0.3 * len(traces) if draw is breakdown else 3.4


def _coloured(traces: Sequence[Trace]) -> list[tuple[Trace, str]]:
    return [(trace, COLOURS[(4 + number) % len(COLOURS)]) for number, trace in enumerate(traces)]


def _titled(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.15)
