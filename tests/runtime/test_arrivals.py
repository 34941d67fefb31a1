"""The estimated due times of frames, compared with the ground truth for known delays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framecast.runtime.arrivals import GAP, Arrivals

Times = np.ndarray
DELAY = 0.15  # seconds, the mean


def captures(count: int, interval: float = 0.04, start: float = 100.0) -> Times:
    return start + interval * np.arange(count)


def arriving(captured: Times, delays: Times | float) -> Times:
    """Arrival times. First in, first out: no frame overtakes another."""
    arrived: Times = np.maximum.accumulate(captured + delays) + 1e-9 * np.arange(len(captured))
    return arrived


def jitter(rng: np.random.Generator, count: int, most: float) -> Times:
    return DELAY + rng.uniform(-most, most, count)


def seen(arrived: Times, nominal: float | None = None) -> tuple[Times, Times]:
    """The estimated time and interval after each arrival."""
    arrivals = Arrivals(nominal)
    found = [(arrivals.see(float(one)), arrivals.interval or 0.0) for one in arrived]
    times, intervals = np.array(found).T
    assert (np.diff(times) > 0).all()
    return times, intervals


def error(times: Times, captured: Times, after: float) -> float:
    """95th percentile of the absolute error in milliseconds, without the first ``after`` seconds."""
    late = captured >= captured[0] + after
    return float(1e3 * np.percentile(np.abs(times - captured - DELAY)[late], 95))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("nominal", [None, 0.04, 1 / 24, 1 / 30, 1 / 1000, 10.0])
def test_jitter_of_a_whole_interval_is_averaged_out(nominal: float | None, seed: int) -> None:
    """A wrong or absurd nominal rate does no harm."""
    captured = captures(1500)
    arrived = arriving(captured, jitter(np.random.default_rng(seed), 1500, 0.04))
    times, intervals = seen(arrived, nominal)
    assert error(times, captured, 10) < 10
    assert np.abs(intervals[250:] / 0.04 - 1).max() < 0.005


@pytest.mark.parametrize("seed", range(6))
def test_a_slowly_wandering_delay_does_not_change_the_interval(seed: int) -> None:
    rng, captured = np.random.default_rng(seed), captures(2500)
    wander = 0.04 * np.sin(2 * np.pi * (captured / 10 + rng.random())) + rng.uniform(-0.003, 0.003, 2500)
    times, intervals = seen(arriving(captured, DELAY + wander), 0.04)
    assert error(times, captured, 20) < 12
    assert np.abs(intervals[500:] / 0.04 - 1).max() < 0.005


@pytest.mark.parametrize("share", [0.001, -0.001])
def test_a_nominal_rate_is_corrected(share: float) -> None:
    """30 frames a second are often 29.97, and clocks drift."""
    captured = captures(2000, 0.04 * (1 + share))
    times, intervals = seen(arriving(captured, jitter(np.random.default_rng(3), 2000, 0.02)), 0.04)
    assert error(times, captured, 10) < 10
    assert intervals[-1] == pytest.approx(0.04 * (1 + share), rel=3e-4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("nominal", [None, 0.04])
def test_lost_frames_shift_the_others_by_whole_intervals(nominal: float | None, seed: int) -> None:
    rng, captured = np.random.default_rng(seed), captures(1500)
    there = rng.random(1500) > 0.05
    arrived = arriving(captured, jitter(rng, 1500, 0.005))[there]
    times, intervals = seen(arrived, nominal)
    assert error(times, captured[there], 10) < 10
    assert np.abs(intervals[250:] / 0.04 - 1).max() < 0.005


def test_lost_frames_under_jitter_are_found_by_the_mean() -> None:
    rng, captured = np.random.default_rng(4), captures(1000)
    there = ~np.isin(np.arange(1000), (400, 600, 601))
    arrived = arriving(captured, jitter(rng, 1000, 0.02))[there]
    times, _ = seen(arrived, 0.04)
    off = np.abs(times - captured[there] - DELAY)
    assert off[450:].max() > 0.02  # not at once
    assert off[900:].max() < 0.01


@pytest.mark.parametrize(("before", "after"), [(25, 15), (15, 25), (30, 15), (25, 60)])
def test_a_new_frame_rate_is_found(before: int, after: int) -> None:
    first = captures(500, 1 / before)
    captured = np.concatenate([first, captures(500, 1 / after, first[-1] + 1 / after)])
    times, intervals = seen(arriving(captured, jitter(np.random.default_rng(1), 1000, 0.003)), 1 / before)
    assert np.abs(intervals[600:] * after - 1).max() < 0.02
    assert np.abs(times - captured - DELAY)[620:].max() < 0.005


@pytest.mark.parametrize("outage", [GAP + 0.1, 7.013, 3600.0])
def test_an_outage_restarts_the_estimate_but_keeps_the_interval(outage: float) -> None:
    first = captures(500)
    captured = np.concatenate([first, captures(500, 0.04, first[-1] + outage)])
    times, intervals = seen(arriving(captured, jitter(np.random.default_rng(1), 1000, 0.005)), 0.04)
    assert np.abs(times - captured - DELAY)[500:].max() < 0.01
    assert np.abs(intervals[500:] / 0.04 - 1).max() < 0.05
    assert np.abs(intervals[560:] / 0.04 - 1).max() < 0.005


@pytest.mark.parametrize("lost", [1, 2, 3, 4, 15])
def test_a_cameras_own_stamp_shows_lost_frames_at_once(lost: int) -> None:
    captured = np.delete(captures(100), range(40, 40 + lost)) + np.random.default_rng(2).uniform(0, 0.004, 100 - lost)
    arrivals = Arrivals(0.04)
    times = np.array([arrivals.see(float(one), stamped=True) for one in captured])
    assert np.abs(times - captured).max() < 0.01


def test_a_stall_that_ends_in_a_burst_counts_no_lost_frames() -> None:
    captured = captures(1000)
    delays = jitter(np.random.default_rng(1), 1000, 0.002)
    delays[500:512] = DELAY + 0.5 - (captured[500:512] - captured[500])
    times, _ = seen(arriving(captured, delays), 0.04)
    off = np.abs(times - captured - DELAY)
    assert off[500:520].max() < 0.06  # not 0.5
    assert off[520:].max() < 0.02


@pytest.mark.parametrize("nominal", [None, 0.04])
def test_frames_that_arrive_in_pairs_are_spread_evenly(nominal: float | None) -> None:
    captured = captures(1000)
    arrived = captured.copy()
    arrived[::2] = captured[1::2]
    arrived = arriving(arrived, jitter(np.random.default_rng(1), 1000, 0.002))
    times, intervals = seen(arrived, nominal)
    assert np.abs(intervals[250:] / 0.04 - 1).max() < 0.005
    assert np.diff(times)[250:] == pytest.approx(0.04, abs=0.002)


def test_a_delay_that_stays_longer_is_followed() -> None:
    captured = captures(2500)
    delays = jitter(np.random.default_rng(1), 2500, 0.005) + 0.3 * (np.arange(2500) >= 500)
    times, _ = seen(arriving(captured, delays), 0.04)
    assert np.abs(times - captured - DELAY - 0.3)[600:].max() < 0.03


def test_steady_times_are_not_changed() -> None:
    captured = captures(300)
    times, intervals = seen(captured, 0.04)
    assert times == pytest.approx(captured, abs=1e-6)
    assert intervals == pytest.approx(0.04, abs=1e-6)
    arrivals = Arrivals()
    assert arrivals.interval is None
    assert arrivals.see(5.0) == 5.0
    assert arrivals.interval is None
    assert arrivals.see(5.1) == pytest.approx(5.1)
    assert arrivals.interval == pytest.approx(0.1)


GAPS = st.floats(0, 3600) | st.floats(0, 0.2) | st.sampled_from([0.0, 0.04, 1e-9, 1.0])


@given(st.lists(GAPS, max_size=120), st.none() | st.floats(1e-6, 1e6))
def test_times_always_increase(gaps: list[float], nominal: float | None) -> None:
    arrivals = Arrivals(nominal)
    moments = np.cumsum([0.0, *gaps])
    found = [arrivals.see(float(moment)) for moment in moments]
    assert np.isfinite(found).all()
    assert all(before < after for before, after in pairwise(found))
    assert arrivals.interval is None or 0 < arrivals.interval < np.inf


@pytest.mark.parametrize("period", [2, 5, 10])
def test_a_quickly_wandering_delay_counts_no_lost_frames(period: float) -> None:
    captured = captures(3000, 1 / 30)
    rng = np.random.default_rng(5)
    wander = 0.04 * np.sin(2 * np.pi * captured / period) + rng.normal(0, 0.004, 3000)
    times, intervals = seen(arriving(captured, DELAY + wander), 1 / 30)
    assert error(times, captured, 20) < 11
    assert np.abs(intervals[600:] * 30 - 1).max() < 0.005


@pytest.mark.parametrize("nominal", [None, 0.04])
def test_bursts_hardly_change_the_interval(nominal: float | None) -> None:
    """Five frames arrive together every 200 ms, as over a poor radio link: the estimated interval is only rough."""
    captured = captures(1000)
    arrived = captured[4::5].repeat(5) + DELAY + 0.001 * np.tile(np.arange(5), 200)
    _, intervals = seen(arrived, nominal)
    assert np.abs(intervals[200:] / 0.04 - 1).max() < 0.5


def test_frames_that_were_buffered_do_not_set_the_interval() -> None:
    """After a reconnection, frames that had waited come at the speed of the network."""
    before = Arrivals()
    for one in captures(40):
        before.see(float(one))
    assert before.learned == pytest.approx(0.04)
    for waited in (2, 12, 30):
        arrivals = Arrivals(expected=before.learned)
        arrived = [*(200 + 0.01 * k for k in range(waited)), *captures(30, start=200 + 0.01 * waited + 0.02)]
        times, intervals = zip(*[(arrivals.see(one), arrivals.interval) for one in map(float, arrived)], strict=True)
        assert intervals[0] is None  # as of a fresh run
        assert intervals[1:] == pytest.approx([0.04] * (len(arrived) - 1), rel=1e-3)
        assert times[:waited] == tuple(arrived[:waited])  # none of them can be from a later moment
        assert arrivals.learned == pytest.approx(0.04, rel=1e-3)


@pytest.mark.parametrize("interval", [0.01, 0.025, 0.1])
def test_a_new_connection_may_have_another_interval(interval: float) -> None:
    arrivals = Arrivals(expected=0.04)
    for one in captures(80, interval):
        arrivals.see(float(one))
    assert arrivals.interval == pytest.approx(interval, rel=1e-3)


def test_an_interval_that_is_not_certain_is_not_handed_on() -> None:
    arrivals = Arrivals()
    for one in captures(8):
        arrivals.see(float(one))
    assert arrivals.learned is None
