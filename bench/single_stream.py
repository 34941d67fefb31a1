"""MLPerf's single-stream scenario: one query after the other, and a percentile of their latencies.

The percentile is estimated as LoadGen does it (``early_stopping.cc`` and ``PerformanceSummary::EarlyStopping`` of
https://github.com/mlcommons/inference/tree/master/loadgen): of ``n`` queries the ``t`` slowest are looked at, with the
largest ``t`` for which as few as ``t`` of ``n`` above the true p-th percentile would be seen with less than 1 % chance,

    P[X <= t] < 1 - c,  X ~ Binomial(n, 1 - p),  c = 0.99, tolerance 0,

and the ``t``-th slowest is the estimate: with 99 % confidence no less than the percentile. LoadGen asks for ``t >= 1``,
so for 64 queries at the 90th percentile and for 662 at the 99th. (It writes the left side as the regularised incomplete
beta function of p, n - t and t + 1, which is the same.)

This is the scenario and the arithmetic, not a submission: no LoadGen, no accuracy run, no audit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from framecast.bench.steps import Case, Series, warm_up
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError

CONFIDENCE = 0.99
TARGET = 90.0  # the percentile that a single-stream result is
MLPERF_DURATION = 600.0  # seconds at least: mlperf.conf's *.SingleStream.min_duration
MLPERF_QUERIES = 100  # at least: the default of LoadGen's TestSettings::min_query_count


@dataclass(frozen=True)
class Estimate:
    """A percentile, as seen and as it is vouched for.

    Attributes:
        percentile: which, such as 99.
        seen: milliseconds, of the queries as they are (LoadGen's: the sample at n·p of those in order).
        estimate: milliseconds, no less than the percentile with 99 % confidence; None where ``needed`` were not made.
        needed: queries from which on there is an estimate.
    """

    percentile: float
    seen: float
    estimate: float | None
    needed: int


@dataclass(frozen=True)
class SingleStream:
    """What a single stream came to.

    Attributes:
        queries: how many were made.
        duration: seconds from the first one's start to the last one's.
        estimates: of the percentile that counts, then of the others.
        reasons: why it is not valid; none where it is.
        series: all queries, in one round.
    """

    queries: int
    duration: float
    estimates: Sequence[Estimate]
    reasons: Sequence[str]
    series: Series

    @property
    def valid(self) -> bool:
        """By the settings of this run; see ``short`` for MLPerf's own."""
        return not self.reasons

    @property
    def short(self) -> bool:
        """Shorter than MLPerf itself asks for."""
        return self.duration < MLPERF_DURATION or self.queries < MLPERF_QUERIES


def slowest(n: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """How many of the slowest of ``n`` queries lie at or above the estimate; 0 where ``n`` are too few for one."""
    p, total = percentile / 100, 0.0
    for t in range(n + 1):
        odds = math.lgamma(n + 1) - math.lgamma(t + 1) - math.lgamma(n - t + 1)
        total += math.exp(odds + t * math.log1p(-p) + (n - t) * math.log(p))
        if total >= 1 - confidence:
            return max(t - 1, 0)
    return n


def needed(percentile: float, confidence: float = CONFIDENCE) -> int:
    """The fewest queries for which there is an estimate: 64 for the 90th percentile, 662 for the 99th.

    Raises:
        OptionError: the percentile is not between 0 and 100.
    """
    if not 0 < percentile < 100:
        raise OptionError(f"a percentile lies between 0 and 100, {percentile:g} does not")
    high = 2
    while not slowest(high, percentile, confidence):
        high *= 2
    low = high // 2  # too few, or 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if slowest(middle, percentile, confidence) else (middle, high)
    return high


def estimate(milliseconds: Sequence[float], percentile: float) -> Estimate:
    """A percentile of latencies with its early-stopping estimate.

    Raises:
        OptionError: there is no latency, or the percentile is not between 0 and 100.
    """
    least = needed(percentile)
    if not milliseconds:
        raise OptionError("nothing was measured: allow more time or queries")
    ordered = np.sort(np.asarray(milliseconds, np.float64))
    n = len(ordered)
    t = slowest(n, percentile)
    seen = ordered[min(int(n * percentile / 100), n - 1)]
    return Estimate(percentile, float(seen), float(ordered[n - t]) if t else None, least)


def single_stream(
    case: Case,
    *,
    percentiles: Sequence[float] = (TARGET, 99.0),
    warmup: float = 0.2,
    min_duration: float = 3.0,
    min_queries: int | None = None,
    clock: Clock = SYSTEM,
    advance: Callable[[float], None] | None = None,
) -> SingleStream:
    """Make one query after the other until there have been enough for long enough.

    Args:
        case: an iteration is a query.
        percentiles: the first is the result; it must be had for the run to be valid.
        warmup: seconds before the first query; LoadGen has the system warm itself up likewise.
        min_duration: seconds from the first query's start to the last one's; MLPerf asks for ``MLPERF_DURATION``.
        min_queries: as many as the result needs where none is given; MLPerf asks for ``MLPERF_QUERIES``.
        clock: the time in seconds.
        advance: told now and then what share, 0 … 1, is done.

    Raises:
        OptionError: a number is out of its range.
        FramecastError: what the case raises.
    """
    least = needed(percentiles[0])
    queries = least if min_queries is None else min_queries
    if warmup < 0 or min_duration < 0 or queries < 1:
        raise OptionError("a stream takes a warm-up and a duration of 0 or more, and 1 query or more")
    warm_up(case, warmup, clock)
    series = Series(case.name)
    zero = clock.now()
    while len(series.starts) < queries or series.starts[-1] < min_duration:
        series.take(case, 0, zero, clock)
        if advance is not None and len(series.starts) % 10 == 0:
            share = series.starts[-1] / min_duration if min_duration else 1.0
            advance(min(len(series.starts) / queries, share, 1.0))
    made = len(series.starts)
    reasons = []
    if made < least:
        reasons.append(f"{made} queries, and the {percentiles[0]:g} % estimate needs {least}")
    estimates = [estimate(series.milliseconds, percentile) for percentile in percentiles]
    return SingleStream(made, series.starts[-1], estimates, reasons, series)
