"""MLPerf's single-stream scenario: how many queries a percentile needs, and that its estimate is conservative."""

from __future__ import annotations

import math

import numpy as np
import pytest

from framecast.bench.single_stream import estimate, needed, single_stream, slowest
from framecast.bench.steps import called
from framecast.errors import OptionError
from framecast.testing import ManualClock


@pytest.mark.parametrize(("percentile", "queries"), [(50, 11), (90, 64), (95, 130), (99, 662), (99.9, 6636)])
def test_the_minimum_number_of_queries_matches_loadgen(percentile: float, queries: int) -> None:
    assert needed(percentile) == queries  # LoadGen's own values: 64 for 90, 662 for 99
    assert slowest(queries, percentile) == 1
    assert slowest(queries - 1, percentile) == 0


@pytest.mark.parametrize("percentile", [50, 90, 97])
def test_the_number_of_slowest_samples_follows_the_binomial_distribution(percentile: float) -> None:
    p = percentile / 100
    for n in (1, 2, 10, 100, 333, 800):
        chances = np.cumsum([math.comb(n, k) * (1 - p) ** k * p ** (n - k) for k in range(n + 1)])
        assert slowest(n, percentile) == max(0, int((chances < 0.01).sum()) - 1)


@pytest.mark.parametrize("percentile", [90, 99])
def test_the_estimate_is_at_least_the_percentile_in_99_of_100_runs(percentile: float) -> None:
    rng = np.random.default_rng(0)
    runs = rng.exponential(1.0, (1000, 1500))
    t = slowest(1500, percentile)
    estimates = np.sort(runs, axis=1)[:, -t]
    share = float((estimates >= -math.log(1 - percentile / 100)).mean())
    assert share >= 0.985
    assert estimate(runs[0].tolist(), percentile).estimate == estimates[0]


def test_the_estimate_and_the_observed_percentile() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1.0, 1001)).tolist()
    found = estimate(values, 90)
    assert found.seen == 901  # LoadGen takes the sample at n·p, counted from 0
    assert found.estimate == 1001 - slowest(1000, 90)
    assert found.estimate > found.seen
    assert estimate(values[:100], 99).estimate is None


def test_queries_run_back_to_back_until_there_are_enough() -> None:
    clock = ManualClock()

    def query() -> None:
        clock.time += 0.02

    found = single_stream(called("x", query), warmup=0.1, min_duration=0, clock=clock)
    assert (found.queries, found.valid, found.short) == (64, True, True)
    assert found.series.starts == pytest.approx([0.02 * i for i in range(64)])
    assert [one.needed for one in found.estimates] == [64, 662]
    assert found.estimates[0].estimate == pytest.approx(20)
    assert found.estimates[1].estimate is None
    long = single_stream(called("x", query), min_duration=600, clock=clock)
    assert long.queries == pytest.approx(30_001, abs=1)
    assert not long.short
    assert long.estimates[1].estimate == pytest.approx(20)


def test_a_run_with_too_few_queries_is_invalid_and_says_why() -> None:
    clock = ManualClock()

    def query() -> None:
        clock.time += 0.5

    found = single_stream(called("x", query), min_duration=1, min_queries=10, clock=clock)
    assert (found.queries, found.valid) == (10, False)
    assert found.reasons == ["10 queries, but the 90 % estimate needs 64"]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(OptionError, match="min_queries at least 1"):
        single_stream(called("x", lambda: None), min_queries=0)
    with pytest.raises(OptionError, match="between 0 and 100"):
        needed(100)
    with pytest.raises(OptionError, match="nothing was measured"):
        estimate([], 90)
