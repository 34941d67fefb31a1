"""Predictions in place of frames that are late or lost, at the camera's cadence. On a virtual clock."""

from __future__ import annotations

import numpy as np
import pytest

from framecast.camera import Frame
from framecast.errors import OptionError
from framecast.runtime.conceal import Concealment
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.sinks.picture import scored_moment
from framecast.runtime.sinks.sink import Result
from framecast.testing import FadeEngine, ListSource, VirtualClock

STEP = 0.04


class Gappy(ListSource):
    """A camera at 25 frames a second that leaves out some: a grey that grows by 2 levels a frame."""

    def __init__(self, missing: set[int], count: int, clock: VirtualClock) -> None:
        begun = clock.now()
        frames = [
            Frame(np.full((24, 32, 3), 2 * k, np.uint8), begun + STEP * k, k) for k in range(count) if k not in missing
        ]
        self._due = [frame.time for frame in frames]
        super().__init__(frames, live=True, fps=1 / STEP, clock=clock)

    def read(self) -> Frame | None:
        if self._due:
            self._clock.wait_until(self._due.pop(0))
        return super().read()


def shown(missing: set[int], limit: float | None, count: int = 40, lookahead: Lookahead | None = None) -> list[Result]:
    clock = VirtualClock()
    source, predictor = Gappy(missing, count, clock), Predictor(FadeEngine(1.0), watch=False)
    return list(Pipeline(source, predictor, lookahead=lookahead, rival=False, conceal=limit, clock=clock))


def numbers(results: list[Result]) -> list[int]:
    """Which frame of the camera each result stands for."""
    begun = results[0].frame.time
    return [round((result.frame.time - begun) / STEP) for result in results]


def test_missing_frames_are_concealed_at_the_cameras_cadence() -> None:
    results = shown({20, 21, 22}, limit=1.0)
    concealed = [result for result in results if result.concealed]
    assert len(results) == 40
    assert numbers(results)[:23] == list(range(23))
    assert concealed == results[20:23]
    for number, result in zip((20, 21, 22), concealed, strict=True):
        assert result.frame.index == 19
        assert result.psnr is None
        assert result.prediction.image.mean() == pytest.approx(2 * (number + 1), abs=2)  # one frame ahead


def test_without_it_nothing_comes() -> None:
    results = shown({20, 21, 22}, limit=None)
    assert len(results) == 37
    assert not any(result.concealed for result in results)


def test_predictions_fade_to_the_last_frame_and_end() -> None:
    results = [result for result in shown(set(range(20, 60)), limit=0.4, count=80) if result.concealed]
    assert len(results) == 10  # 0.4 s
    levels = [float(result.prediction.image.mean()) for result in results]
    assert levels[4] == pytest.approx(2 * 25, abs=2)  # half of the limit: a prediction
    assert levels[-1] == pytest.approx(2 * 19, abs=1)  # the last real frame
    assert levels[4] > levels[6] > levels[8] > levels[9]


def test_jitter_is_not_concealed() -> None:
    assert not any(result.concealed for result in shown(set(), limit=1.0))


def test_a_clip_at_full_speed_has_no_cadence() -> None:
    source = ListSource([Frame(np.zeros((24, 32, 3), np.uint8), 0.04 * k, k) for k in range(5)])
    results = list(Pipeline(source, Predictor(FadeEngine()), conceal=1.0, rival=False))
    assert not any(result.concealed for result in results)


def test_a_concealed_moment_is_marked_in_a_recording() -> None:
    concealed = next(result for result in shown({20, 21}, limit=1.0) if result.concealed)
    picture = scored_moment(concealed)
    height = picture.shape[0] // 2
    assert picture[:height].max() > 30
    assert picture[height + 40 :].max() < 30  # there is no real frame, and no error


@pytest.mark.parametrize("limit", [0.0, -1.0, 11.0, float("nan")])
def test_a_limit_that_cannot_be(limit: float) -> None:
    with pytest.raises(OptionError, match="conceal must be above 0 and at most 10 s"):
        Concealment(limit)
