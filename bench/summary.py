"""What is said of a list of latencies, and of two that were measured in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from framecast.errors import OptionError

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
UNSTEADY = 0.025  # coefficient of variation above which a median is said with a warning
TAIL = 10  # samples that should lie above a percentile before it is believed


@dataclass(frozen=True)
class Summary:
    """Of ``n`` latencies, in milliseconds.

    Attributes:
        n: how many samples.
        min: the smallest; likewise ``max``, ``mean`` and ``median``.
        cv: coefficient of variation, standard deviation over mean; trtexec warns of it likewise.
        percentiles: by their number, linearly between samples, as numpy does.
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
        """Percentiles above which fewer than ``TAIL`` samples lie: they say little."""
        return tuple(p for p in self.percentiles if self.n * (100 - p) < 100 * TAIL)


@dataclass(frozen=True)
class Ratio:
    """How many times as long one took as another, in rounds that took turns.

    Attributes:
        median: over rounds, of one's median over the other's.
        low: of a 95 % interval of that median, by bootstrap over rounds; likewise ``high``.
        rounds: how many.
    """

    median: float
    low: float
    high: float
    rounds: int


def summarize(milliseconds: Sequence[float], percentiles: Sequence[float] = PERCENTILES) -> Summary:
    """Sum up latencies.

    Raises:
        OptionError: there is none, or a percentile is not between 0 and 100.
    """
    if wrong := [p for p in percentiles if not 0 < p < 100]:
        raise OptionError(f"a percentile lies between 0 and 100, {wrong[0]:g} does not")
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
    """Compare two lists of rounds, each a list of latencies: round by round, since the machine's moods last longer.

    Raises:
        OptionError: they have not as many rounds, or there is none.
    """
    if len(one) != len(other) or not len(one):
        raise OptionError("a ratio is taken between as many rounds of each, one at least")
    pairs = np.array([np.median(a) / np.median(b) for a, b in zip(one, other, strict=True)])
    drawn = np.random.default_rng(seed).choice(pairs, (2000, len(pairs)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return Ratio(float(np.median(pairs)), float(low), float(high), len(pairs))
