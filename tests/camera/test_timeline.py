"""Times that always run forward."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from framecast.camera import Timeline

STAMPS = st.lists(st.one_of(st.floats(0, 2), st.floats(-1e9, 1e9)), min_size=1, max_size=30)


def times(*stamps: float, interval: float = 0.04) -> tuple[list[float | None], int]:
    faults: Counter[str] = Counter()
    timeline = Timeline(faults)
    found = [timeline.see(stamp, interval) for stamp in stamps]
    return [None if time is None else round(time, 6) for time in found], faults["times_mended"]


def test_stamps_that_increase_stay_as_they_are() -> None:
    assert times(5.0, 5.04, 5.05, 700.0) == ([5.0, 5.04, 5.05, 700.0], 0)


def test_pairs_of_equal_stamps() -> None:
    assert times(0.0, 0.0, 0.08, 0.08, 0.16) == ([0.0, 0.04, 0.08, 0.12, 0.16], 2)


def test_stamps_that_run_back_a_little_are_caught_up_with() -> None:
    assert times(0.0, 0.04, 0.02, 0.1, 0.14, 0.18) == ([0.0, 0.04, 0.08, 0.12, 0.14, 0.18], 1)


def test_a_clock_that_was_set_back_begins_anew() -> None:
    assert times(100.0, 100.04, 3.0, 3.04) == ([100.0, 100.04, None, 3.04], 0)


def test_a_slow_stream_may_run_back_by_two_intervals() -> None:
    assert times(0.0, 30.0, 25.0, interval=30.0) == ([0.0, 30.0, 60.0], 1)


@given(STAMPS)
def test_times_increase_within_an_epoch(stamps: list[float]) -> None:
    timeline, before = Timeline(Counter()), float("-inf")
    for stamp in stamps:
        time = timeline.see(stamp, 0.04)
        assert time is None or time > before
        before = stamp if time is None else time
