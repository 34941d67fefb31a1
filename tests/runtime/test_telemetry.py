"""Telemetry: bounded memory, percentiles as exact as they say, and snapshots that any thread may take at any time."""

from __future__ import annotations

import math
import sys
import threading

import numpy as np
import pytest

from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.telemetry import WINDOW, Histogram, Stamps, Telemetry
from framecast.testing import DriftEngine, ListSource, shades


def stamps(due: float, milliseconds: float) -> Stamps:
    return Stamps(due, due, due, due + 1e-3 * milliseconds, due + 1e-3 * milliseconds, 0.0, 0.0)


@pytest.mark.parametrize("scale", [0.02, 8.0, 90_000.0])
def test_percentiles_are_within_a_quarter_of_a_percent(scale: float) -> None:
    values = np.random.default_rng(3).lognormal(math.log(scale), 0.7, 20_000)
    histogram = Histogram()
    for value in values:
        histogram.add(float(value))
    assert histogram.n == 20_000
    assert histogram.max == values.max()
    for p in (1, 50, 90, 99):
        exact = np.percentile(values, p, method="inverted_cdf")
        assert histogram.percentile(p) == pytest.approx(exact, rel=0.0026)
    assert histogram.percentile(100) == pytest.approx(values.max(), rel=0.0026)


def test_what_cannot_be_a_duration_is_bounded() -> None:
    histogram = Histogram()
    assert math.isnan(histogram.percentile(50))
    for value in (-3.0, 0.0, 1e300, math.inf):
        histogram.add(value)
    assert histogram.n == 4
    assert 0 < histogram.percentile(50) < 1
    assert histogram.percentile(100) <= 1.01e8


def test_latencies_are_over_the_last_windows_in_bounded_memory() -> None:
    telemetry = Telemetry(0.04)
    size = sys.getsizeof(telemetry._windows[0]._counts)
    for i in range(3 * WINDOW + 5):
        late = 100.0 if i < 2 * WINDOW else 10.0
        telemetry.record(stamps(i / 25, late), interval=0.04, resets=0, dropped=0)
        assert WINDOW >= telemetry._windows[1].n > 0
    now = telemetry.snapshot()
    assert now.frames == 3 * WINDOW + 5
    assert now.latency.n == WINDOW + 5  # the slow ones are forgotten
    assert now.latency.max == pytest.approx(10)
    assert sys.getsizeof(telemetry._windows[0]._counts) == size


def test_a_snapshot_does_not_change() -> None:
    telemetry = Telemetry(0.04)
    telemetry.record(stamps(0, 5), interval=0.05, resets=1, dropped=2)
    telemetry.score(1, 30.0, 25.0)
    before = telemetry.snapshot()
    telemetry.record(stamps(1, 50), interval=0.06, resets=2, dropped=4)
    telemetry.score(1, 40.0, 25.0)
    telemetry.end("end of source")
    assert (before.frames, before.resets, before.dropped, before.interval, before.ended) == (1, 1, 2, 0.05, None)
    assert (before.latency.n, before.scores[1].n) == (1, 1)
    after = telemetry.snapshot()
    assert (after.frames, after.scores[1].prediction, after.ended) == (2, 35.0, "end of source")
    assert after.seconds == pytest.approx(1.05)


def test_reports_may_be_taken_all_the_time() -> None:
    """A page and a status line ask while the loop writes; once that ended the run with a BufferError."""
    pipeline = Pipeline(ListSource(shades(2000)), Predictor(DriftEngine()), horizon=2)
    ended, failures, taken = threading.Event(), list[Exception](), [0, 0]

    def ask(which: int) -> None:
        try:
            while not ended.is_set():
                report = pipeline.report()
                assert report["latency_ms"]["n"] == min(report["frames"], 2 * WINDOW)
                taken[which] += 1
        except Exception as error:  # noqa: BLE001 (raised below)
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=ask, args=(which,)) for which in range(2)]
    try:
        for thread in threads:
            thread.start()
        assert sum(1 for _ in pipeline) == 2000
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert failures == []
    assert min(taken) > 0
    assert pipeline.report()["frames"] == 2000
