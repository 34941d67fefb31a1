"""The pace learns from the differences between pictures whether motion follows time or the number of pictures."""

from __future__ import annotations

import pytest

from framecast.runtime.events.pace import Pace


@pytest.mark.parametrize("power", [0.6, 1.0])
def test_motion_by_time(power: float) -> None:
    pace = Pace()
    for k in range(40):
        span = (1, 1, 1, 2)[k % 4] * 0.04
        assert pace.see(span, 0.04, 5 * (span / 0.04) ** power) == pytest.approx(span)
    assert pace.motion(0.12, 2) == pytest.approx(0.12)


def test_motion_by_picture() -> None:
    pace = Pace()
    for k in range(40):
        elapsed = pace.see((1, 1, 1, 2)[k % 4] * 0.04, 0.04, 5 + k % 3)
    assert elapsed == pytest.approx(0.05)
    assert pace.motion(0.12, 2) == pytest.approx(0.1)


def test_times_near_whole_intervals_are_whole() -> None:
    pace = Pace()
    assert pace.see(0.046, 0.04, 5) == pytest.approx(0.04)
    assert pace.see(0.056, 0.04, 7) == pytest.approx(0.056)
    assert pace.see(0.075, 0.04, 10) == pytest.approx(0.08)
