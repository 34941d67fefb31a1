"""Telemetry: bounded memory, percentiles of known precision, and snapshots that any thread may take at any time."""

from __future__ import annotations

import math
import sys
import threading

import numpy as np
import pytest

from framecast.runtime.lookahead import Lookahead
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.score import Scored
from framecast.runtime.telemetry import LATELY, LOOKAHEADS, WINDOW, Histogram, Stamps, Telemetry
from framecast.testing import DriftEngine, ListSource, shades


def stamps(due: float, milliseconds: float) -> Stamps:
    return Stamps(due, due, due, due + 1e-3 * milliseconds, due + 1e-3 * milliseconds, 0.0, 0.0)


def scored(ahead: float, prediction: float, copy_last: float, rival: float | None = None) -> Scored:
    black = np.zeros((12, 16, 3), np.uint8)
    return Scored(ahead, black, black, prediction, copy_last, rival)


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


def test_impossible_durations_are_clipped() -> None:
    histogram = Histogram()
    assert math.isnan(histogram.percentile(50))
    for value in (-3.0, 0.0, 1e300, math.inf):
        histogram.add(value)
    assert histogram.n == 4
    assert 0 < histogram.percentile(50) < 1
    assert histogram.percentile(100) <= 1.01e8


def test_latencies_are_over_the_last_windows_in_bounded_memory() -> None:
    telemetry = Telemetry()
    size = sys.getsizeof(telemetry._windows[0]._counts)
    for i in range(3 * WINDOW + 5):
        late = 100.0 if i < 2 * WINDOW else 10.0
        telemetry.record(stamps(i / 25, late), interval=0.04, resets=0, dropped=0, ahead=0.04, wanted=0.04, events={})
        assert WINDOW >= telemetry._windows[1].n > 0
    now = telemetry.snapshot()
    assert now.frames == 3 * WINDOW + 5
    assert now.latency.n == WINDOW + 5  # the slow frames have left the window
    assert now.latency.max == pytest.approx(10)
    assert sys.getsizeof(telemetry._windows[0]._counts) == size


def test_a_snapshot_does_not_change() -> None:
    telemetry = Telemetry()
    telemetry.record(stamps(0, 5), interval=0.05, resets=1, dropped=2, ahead=0.05, wanted=0.05, events={"cuts": 1})
    telemetry.score(scored(0.05, 30.0, 25.0), 0.05)
    before = telemetry.snapshot()
    telemetry.record(stamps(1, 50), interval=0.06, resets=2, dropped=4, ahead=0.07, wanted=0.09, events={"cuts": 3})
    telemetry.score(scored(0.05, 40.0, 25.0), 0.05)
    telemetry.end("end of source")
    assert (before.frames, before.resets, before.dropped, before.interval, before.ended) == (1, 1, 2, 0.05, None)
    assert (before.latency.n, before.score.n, before.scores[50.0].n) == (1, 1, 1)
    assert (before.ahead, before.wanted, before.events) == (0.05, 0.05, {"cuts": 1})
    after = telemetry.snapshot()
    assert (after.frames, after.scores[50.0].prediction, after.ended) == (2, 35.0, "end of source")
    assert [after.ahead, after.wanted] == pytest.approx([0.06, 0.07])  # medians
    assert after.seconds == pytest.approx(1.05)


def test_reports_may_be_taken_during_the_run() -> None:
    """A page and a status line read while the loop writes. This once ended a run with a BufferError."""
    pipeline = Pipeline(ListSource(shades(2000)), Predictor(DriftEngine(), watch=False), lookahead=Lookahead(frames=2))
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


def test_scores_are_grouped_by_whole_intervals_in_milliseconds() -> None:
    telemetry = Telemetry()
    for ahead, interval in ((0.040, 0.04), (0.041, 0.0402), (0.0801, 0.0399), (0.012, 0.04), (0.44, 0.04)):
        telemetry.score(scored(ahead, 30.0, 25.0), interval)
    now = telemetry.snapshot()
    assert {round(ahead): score.n for ahead, score in now.scores.items()} == {40: 3, 80: 1, 440: 1}
    assert now.score.n == 5
    for k in range(1, 100):  # a lookahead that varies widely does not cost more memory
        telemetry.score(scored(0.04 * k, 30.0, 25.0), 0.04)
    now = telemetry.snapshot()
    assert len(now.scores) == LOOKAHEADS
    assert sum(score.n for score in now.scores.values()) == now.score.n == 104


def test_a_rival_is_compared_on_the_frames_that_it_was_computed_for() -> None:
    telemetry = Telemetry()
    telemetry.score(scored(0.04, 30.0, 20.0), 0.04)
    telemetry.score(scored(0.04, 40.0, 25.0, 35.0), 0.04)
    now = telemetry.snapshot()
    assert (now.score.n, now.score.prediction) == (2, 35.0)
    assert (now.rival.n, now.rival.prediction, now.rival.copy_last, now.rival.rival) == (1, 40.0, 25.0, 35.0)


def test_figures_of_shown_moments_cover_the_last_ones() -> None:
    telemetry = Telemetry()
    assert telemetry.snapshot().shown is None
    assert telemetry.snapshot().sharpness is None
    for i in range(3 * LATELY):
        late = i < 2 * LATELY
        telemetry.show(0.3 if late else (-0.001 if i % 10 else 0.02), 0.9 if late else 0.15)
        telemetry.sharpness(0.2 if late else 0.8, 1.0)
    shown = telemetry.snapshot().shown
    assert shown is not None
    assert (shown.error, shown.spread, shown.late) == (-0.001, 0.02, 0.15)
    assert shown.n == LATELY
    assert telemetry.snapshot().sharpness == pytest.approx((0.8, 1.0))
