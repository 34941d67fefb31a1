"""The lookahead: which options are valid, and how it compensates for lateness."""

from __future__ import annotations

import math
from typing import Any

import pytest

from framecast.errors import OptionError
from framecast.runtime.lookahead import LONGEST, Horizon, Lookahead


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"frames": 1, "seconds": 0.1}, "now, ahead and horizon exclude each other: give one of them"),
        ({"frames": 1, "now": True}, "give one of them"),
        ({"seconds": 0.1, "now": True}, "give one of them"),
        ({"frames": 0}, "the horizon must be at least 1, not 0"),
        ({"seconds": 0.0}, "ahead must be above 0 and at most 10 s, not 0 s"),
        ({"seconds": LONGEST + 1}, "at most 10 s, not 11 s"),
        ({"seconds": math.nan}, "not nan s"),
        ({"now": True, "camera_delay": -0.1}, "the camera delay must be 0 to 10 s"),
        ({"now": True, "display_delay": math.inf}, "the display delay must be 0 to 10 s"),
        ({"camera_delay": 0.1}, "the camera delay has no effect without 'now': add 'now'"),
        ({"frames": 2, "display_delay": 0.1}, "the display delay has no effect without 'now': add 'now'"),
        ({"now": True, "most": 0.0}, "the longest lookahead must be above 0"),
        ({"most": math.nan}, "the longest lookahead must be above 0"),
    ],
)
def test_contradictory_and_invalid_options_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Lookahead(**asked)


def test_a_fixed_lookahead_does_not_depend_on_the_age() -> None:
    for age in (None, 0.0, 0.7):
        assert Horizon(Lookahead()).ahead(age, 0.04) == 0.04
        assert Horizon(Lookahead(frames=11)).ahead(age, 0.04) == pytest.approx(0.44)
        horizon = Horizon(Lookahead(seconds=0.12))
        assert horizon.ahead(age, 0.04) == horizon.wanted == 0.12


def test_now_compensates_for_the_whole_lateness() -> None:
    horizon = Horizon(Lookahead(now=True, camera_delay=0.15, display_delay=0.02))
    assert horizon.ahead(0.01, 0.04) == pytest.approx(0.18)
    horizon.took(0.03)  # the first duration counts in full
    assert horizon.ahead(0.01, 0.04) == pytest.approx(0.21)
    for _ in range(100):
        horizon.took(0.05)
    assert horizon.ahead(0.01, 0.04) == pytest.approx(0.23, abs=1e-5)
    horizon.took(0.5)  # a single slow step counts little
    assert horizon.ahead(0.01, 0.04) == pytest.approx(0.275, abs=1e-5)


def test_now_ends_at_max_ahead() -> None:
    horizon = Horizon(Lookahead(now=True, camera_delay=0.5, most=0.4))
    assert horizon.ahead(0.1, 0.04) == 0.4
    assert horizon.wanted == pytest.approx(0.6)
    assert horizon.late(0.2) == pytest.approx(0.7)
    assert horizon.error(0.4, 0.2) == pytest.approx(-0.3)  # the moment shown is 0.3 s too early


def test_an_early_frame_is_never_predicted_backwards() -> None:
    """After removal of jitter, the frame's time is in the future, so its age is negative."""
    horizon = Horizon(Lookahead(now=True))
    assert horizon.ahead(-0.03, 0.04) == 0
    assert horizon.ahead(0.02, 0.04) == 0.02
