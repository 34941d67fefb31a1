"""Each warning appears when it should, and only then."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from framecast.runtime.caveats import JUDGED, out, trusted, warnings
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.score import Score
from framecast.runtime.telemetry import Histogram, Shown, Snapshot

NOW = Lookahead(now=True, most=0.5)


def late(milliseconds: float) -> Histogram:
    histogram = Histogram()
    histogram.add(milliseconds)
    return histogram


def score(n: int, gain: float = 1.0) -> Score:
    return Score(n, n * (30 + gain), n * 30.0)


GOOD = Snapshot(interval=0.04, ahead=0.08, wanted=0.08, frames=1000, latency=late(30), score=score(900))
GOOD_NOW = dataclasses.replace(GOOD, shown=Shown(0.001, 0.01, 0.08, 0.0, 1000))


@pytest.mark.parametrize(
    ("change", "of", "message"),
    [
        ({"dropped": 250}, Lookahead(), "20% of the frames are dropped: a step takes longer than the camera's inter"),
        ({"latency": late(100)}, Lookahead(), r"predictions arrive 100 ms after their frame but look only 80 ms ahead"),
        ({"score": score(49)}, Lookahead(), "only 49 of 1000 predictions are scored"),
        ({"score": score(199)}, Lookahead(), "only 199 of 1000 predictions are scored"),
        ({"score": score(0)}, Lookahead(), "only 0 of 1000"),
        ({"score": score(900, -0.2)}, Lookahead(), "predictions are 0.2 dB below copying the last picture"),
        (
            {"wanted": 0.6},
            NOW,
            "cannot show the present: the picture is 600 ms late, but the lookahead is limited to 500 ms",
        ),
        ({"shown": Shown(0.0, 0.01, 0.1, 0.021, 9)}, NOW, "frames arrive up to 21 ms early or late"),
        (
            {"shown": Shown(0.0, 0.05, 0.1, 0.0, 9)},
            NOW,
            r"the moment shown is off by up to 50 ms \(p95\), more than a frame",
        ),
    ],
)
def test_each_warning_comes_alone(change: dict[str, Any], of: Lookahead, message: str) -> None:
    base = GOOD_NOW if of.now else GOOD
    assert warnings(base, of) == []
    (line,) = warnings(dataclasses.replace(base, **change), of)
    assert re.search(message, line), line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("change", "of"),
    [
        ({"dropped": 100}, Lookahead()),  # one in eleven
        ({"latency": late(79)}, Lookahead()),
        ({"latency": late(400)}, NOW),  # the lookahead grows with the latency
        ({"score": score(200)}, Lookahead()),
        ({"score": score(900, -0.05)}, Lookahead()),
        ({"wanted": 0.49}, NOW),
        ({"shown": Shown(0.0, 0.039, 0.1, 0.019, 9)}, NOW),
    ],
)
def test_no_warning_comes_within_its_limit(change: dict[str, Any], of: Lookahead) -> None:
    assert warnings(dataclasses.replace(GOOD_NOW if of.now else GOOD, **change), of) == []


def test_no_warning_comes_too_early() -> None:
    bad = Snapshot(interval=0.04, ahead=0.04, wanted=2.0, frames=7, dropped=JUDGED - 8, latency=late(900), seconds=9.9)
    assert warnings(bad, Lookahead()) == []
    # Dropped frames count too, so a slow machine also gets the warning.
    for change in ({"dropped": JUDGED - 7}, {"seconds": 10.0}, {"ended": "max frames"}):
        assert len(warnings(dataclasses.replace(bad, **change), Lookahead())) == 3
        assert len(warnings(dataclasses.replace(bad, **change), NOW)) == 3
    assert warnings(dataclasses.replace(bad, frames=0, ended="interrupted"), Lookahead()) == []


def test_a_gain_is_trusted_by_number_and_share_of_frames() -> None:
    assert not trusted(Snapshot(interval=0.04))
    assert not trusted(dataclasses.replace(GOOD, frames=10, score=score(10)))
    assert trusted(dataclasses.replace(GOOD, frames=50, score=score(50)))
    assert not trusted(dataclasses.replace(GOOD, frames=2000, score=score(399)))


def test_what_is_out_is_said() -> None:
    assert out(None, None) == []
    assert out("lost cam: 401", "no server") == ["the camera is out: lost cam: 401", "no server"]
