"""Summary of a list of latencies, and the ratio of two alternating measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from framecast.errors import OptionError

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
UNSTEADY = 0.025  # coefficient of variation above which the median comes with a warning
TAIL = 10  # minimum samples above a percentile to trust it


@dataclass(frozen=True)
class Summary:
    """Summary of ``n`` latencies, in milliseconds.

    Attributes:
        n: number of samples.
        min: the smallest sample; likewise ``max``, ``mean`` and ``median``.
        cv: coefficient of variation: standard deviation divided by mean. trtexec also warns if it is high.
        percentiles: by number, interpolated linearly between samples as in numpy.
    """

    n: int
    min: float
    mean: float
    median: float
    max: float
    cv: float
    percentiles: dict[float, float]

    @property
    def doubtful(self) -> tuple[float, ...]:
        """Percentiles with fewer than ``TAIL`` samples above them: they are not reliable."""
        return tuple(p for p in self.percentiles if self.n * (100 - p) < 100 * TAIL)


@dataclass(frozen=True)
class Ratio:
    """The ratio of two cases' latencies, from alternating rounds.

    Attributes:
        median: median over rounds of the ratio of the two cases' medians.
        low: lower end of a 95 % interval of that median, by bootstrap over rounds; ``high``: the upper end.
        rounds: number of rounds.
    """

    median: float
    low: float
    high: float
    rounds: int


def summarize(milliseconds: Sequence[float], percentiles: Sequence[float] = PERCENTILES) -> Summary:
    """Summarize latencies.

    Raises:
        OptionError: there is no latency, or a percentile is not between 0 and 100.
    """
    if wrong := [p for p in percentiles if not 0 < p < 100]:
        raise OptionError(f"a percentile must be between 0 and 100, not {wrong[0]:g}")
    if not len(milliseconds):
        raise OptionError("nothing was measured: allow more time or iterations")
    values = np.asarray(milliseconds, np.float64)
    mean = float(values.mean())
    return Summary(
        n=len(values),
        min=float(values.min()),
        mean=mean,
        median=float(np.median(values)),
        max=float(values.max()),
        cv=float(values.std()) / mean if mean else 0.0,
        percentiles={float(p): float(v) for p, v in zip(percentiles, np.percentile(values, percentiles), strict=True)},
    )


def ratio(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]], seed: int = 0) -> Ratio:
    """Compare two lists of rounds, each a list of latencies.

    Each round is compared with the same round of the other list, because the machine's slow and fast phases last longer
    than a round.

    Raises:
        OptionError: the numbers of rounds differ, or there is no round.
    """
    if len(one) != len(other) or not len(one):
        raise OptionError("cannot compute a ratio: both cases need the same number of rounds, at least one")
    pairs = np.array([np.median(a) / np.median(b) for a, b in zip(one, other, strict=True)])
    drawn = np.random.default_rng(seed).choice(pairs, (2000, len(pairs)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return Ratio(float(np.median(pairs)), float(low), float(high), len(pairs))
