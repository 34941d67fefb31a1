"""Benchmark plots: a colour has one meaning."""

from __future__ import annotations

from itertools import pairwise

import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from framecast.bench.plots import Trace, breakdown, shades, timeline
from framecast.drawing import COLOURS

STAGES = ("capture late", "mailbox", "picture in", "step", "picture out", "score, hand-over")


@pytest.mark.parametrize("count", [1, 3, 6, 9])
def test_parts_can_be_told_apart_by_brightness_alone(count: int) -> None:
    brightness = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in map(to_rgb, shades(count))]
    steps = [light - dark for dark, light in pairwise(brightness)]
    assert len(brightness) == count
    assert min(steps, default=1) > 0.05


def test_no_part_has_the_colour_of_a_case() -> None:
    parts = {name: [1.0] for name in STAGES}
    traces = [Trace(f"case {number}", [0.0], [6.0], parts) for number in range(len(COLOURS))]
    above, below = Figure().subplots(2)
    timeline(above, traces)
    breakdown(below, traces)
    cases = {to_hex(line.get_color()) for line in above.lines}
    bars = {to_hex(bar.get_facecolor()) for bar in below.patches}
    assert (len(cases), len(bars)) == (len(COLOURS), len(STAGES))
    assert not cases & bars
