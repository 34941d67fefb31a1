"""MLPerf's single-stream scenario: queries run one after the other, and the result is a percentile of their latencies.

The percentile is estimated as in LoadGen (``early_stopping.cc`` and ``PerformanceSummary::EarlyStopping`` of
https://github.com/mlcommons/inference/tree/master/loadgen). The estimate is the ``t``-th slowest of ``n`` queries. Let
X be the number of queries above the true p-th percentile. ``t`` is the largest number for which X is at most ``t`` with
a probability below 1 %:

    P[X <= t] < 1 - c,  X ~ Binomial(n, 1 - p),  c = 0.99, tolerance 0

With 99 % confidence the estimate is not below the true percentile. LoadGen requires ``t >= 1``, which takes 64 queries
at the 90th percentile and 662 at the 99th. (LoadGen writes the left side as the regularised incomplete beta function
of p, n - t and t + 1, which is equal.)

This module implements the scenario and its arithmetic. It is not a submission: no LoadGen, no accuracy run, no audit.
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
TARGET = 90.0  # percentile that a single-stream result reports
MLPERF_DURATION = 600.0  # minimum seconds: mlperf.conf's *.SingleStream.min_duration
MLPERF_QUERIES = 100  # minimum queries: the default of LoadGen's TestSettings::min_query_count


@dataclass(frozen=True)
class Estimate:
    """A percentile of latencies: as measured, and with 99 % confidence.

    Attributes:
        percentile: the percentile, such as 99.
        seen: measured percentile in milliseconds (as in LoadGen: the sample at index n·p of the sorted samples).
        estimate: upper estimate in milliseconds: with 99 % confidence not below the true percentile; None if there
            were fewer than ``needed`` queries.
        needed: minimum number of queries for an estimate.
    """

    percentile: float
    seen: float
    estimate: float | None
    needed: int


@dataclass(frozen=True)
class SingleStream:
    """The result of a single stream.

    Attributes:
        queries: number of queries.
        duration: seconds from the start of the first query to the start of the last.
        estimates: the percentile that decides the result, then the others.
        reasons: why the result is not valid; empty if it is valid.
        series: all queries, in one round.
    """

    queries: int
    duration: float
    estimates: Sequence[Estimate]
    reasons: Sequence[str]
    series: Series

    @property
    def valid(self) -> bool:
        """Whether the result is valid under this run's settings; see ``short`` for MLPerf's own settings."""
        return not self.reasons

    @property
    def short(self) -> bool:
        """Whether the run is shorter than MLPerf requires."""
        return self.duration < MLPERF_DURATION or self.queries < MLPERF_QUERIES


def slowest(n: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return how many of ``n`` queries lie at or above the estimate; 0 if ``n`` is too small for an estimate."""
    p, total = percentile / 100, 0.0
    for t in range(n + 1):
        odds = math.lgamma(n + 1) - math.lgamma(t + 1) - math.lgamma(n - t + 1)
        total += math.exp(odds + t * math.log1p(-p) + (n - t) * math.log(p))
        if total >= 1 - confidence:
            return max(t - 1, 0)
    return n


def needed(percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return the minimum number of queries for an estimate: 64 for the 90th percentile, 662 for the 99th.

    Raises:
        OptionError: the percentile is not between 0 and 100.
    """
    if not 0 < percentile < 100:
        raise OptionError(f"a percentile must be between 0 and 100, not {percentile:g}")
    high = 2
    while not slowest(high, percentile, confidence):
        high *= 2
    low = high // 2  # too small, or 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if slowest(middle, percentile, confidence) else (middle, high)
    return high


def estimate(milliseconds: Sequence[float], percentile: float) -> Estimate:
    """Return a percentile of latencies with its early-stopping estimate.

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
    """Run queries one after the other until both minimums are reached.

    Args:
        case: the case to measure; one iteration is one query.
        percentiles: the first is the result; the run is valid only if it has an estimate.
        warmup: seconds before the first query; under LoadGen a system warms itself up too.
        min_duration: minimum seconds from the start of the first query to that of the last; MLPerf requires
            ``MLPERF_DURATION``.
        min_queries: minimum queries (default: as many as the result needs); MLPerf requires ``MLPERF_QUERIES``.
        clock: measures the time in seconds.
        advance: called every ten queries with the progress, 0 to 1.

    Raises:
        OptionError: a number is out of range.
        FramecastError: the case raised it.
    """
    least = needed(percentiles[0])
    queries = least if min_queries is None else min_queries
    if warmup < 0 or min_duration < 0 or queries < 1:
        raise OptionError("warmup and min_duration must be 0 or more, and min_queries at least 1")
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
        reasons.append(f"{made} queries, but the {percentiles[0]:g} % estimate needs {least}")
    estimates = [estimate(series.milliseconds, percentile) for percentile in percentiles]
    return SingleStream(made, series.starts[-1], estimates, reasons, series)
