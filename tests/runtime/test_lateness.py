"""Runs in virtual time with exactly known delays: dropped frames, now, and pictures between two frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from framecast.camera import Frame
from framecast.runtime.engines import State
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.testing import ListSource, TrendEngine, VirtualClock

from ..clips import moving_pictures  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

PICTURES = moving_pictures((28, 20), 64)


def pictures(count: int) -> list[Frame]:
    """A picture that slides back and forth, at 25 frames a second."""
    there_and_back = [*PICTURES, *PICTURES[-2:0:-1]]
    return [Frame(there_and_back[i % len(there_and_back)], i / 25, i) for i in range(count)]


class Camera(ListSource):
    """A camera whose n-th frame is taken at ``begun + n * interval`` and arrives ``delay(n)`` seconds later.

    Like a network camera, it stamps a frame with the time of its arrival.
    """

    def __init__(
        self,
        count: int,
        clock: VirtualClock,
        delay: Callable[[int], float] = lambda n: 0.0,
        interval: float = 0.04,
        fps: float | None = 25.0,
    ) -> None:
        super().__init__(pictures(count), live=True, fps=fps, clock=clock)
        self.begun, self.interval = clock.now() + 1.0, interval
        self._delay = delay

    def taken(self, index: int) -> float:
        return self.begun + index * self.interval

    def read(self) -> Frame | None:
        frame = super().read()
        if frame is None:
            return None
        self._clock.wait_until(self.taken(frame.index) + self._delay(frame.index))
        return dataclasses.replace(frame, time=self._clock.now())


class SlowEngine(TrendEngine):
    """An engine that takes ``seconds(n)`` for its n-th step, and no time to look ahead."""

    def __init__(self, clock: VirtualClock, seconds: Callable[[int], float]) -> None:
        super().__init__(0.4)
        self._clock, self._seconds, self._count = clock, seconds, 0

    def run(self, state_in: State, state_out: State) -> None:
        self._clock.wait_until(self._clock.now() + self._seconds(self._count))
        self._count += 1
        super().run(state_in, state_out)


def predictor(clock: VirtualClock, seconds: Callable[[int], float]) -> Predictor:
    return Predictor(SlowEngine(clock, seconds), watch=False, clock=clock)


@pytest.mark.parametrize("fps", [25.0, None])
@pytest.mark.parametrize("slow", [0.03, 0.6])
def test_dropped_frames_do_not_change_the_lookahead(slow: float, fps: float | None) -> None:
    """With an RTSP camera, ``--horizon 11`` once looked 16 s ahead instead of 440 ms."""
    clock = VirtualClock()
    pipeline = Pipeline(
        Camera(400, clock, fps=fps),
        predictor(clock, lambda n: slow),
        lookahead=Lookahead(frames=11),
        rival=False,
        clock=clock,
    )
    aheads = [result.prediction.ahead for result in pipeline]
    assert aheads[2:] == pytest.approx([0.44] * len(aheads[2:]), rel=1e-3)
    report = pipeline.report()
    assert report["frames"] + report["dropped"] == 400
    assert (report["dropped"] > 300) == (slow > 0.04)
    assert (report["ahead_ms"], report["interval_ms"]) == (440.0, 40.0)


def test_dropped_frames_score_predictions_too() -> None:
    clock = VirtualClock()
    pipeline = Pipeline(
        Camera(600, clock), predictor(clock, lambda n: 0.1), lookahead=Lookahead(frames=4), rival=False, clock=clock
    )
    results = list(pipeline)
    report = pipeline.report()
    assert report["dropped"] > 300
    assert report["psnr_db"]["n"] > 0.9 * len(results)
    assert sum(result.psnr is not None for result in results) < 0.7 * len(results)
    assert [score["ahead_ms"] for score in report["psnr_db_by_ahead"]] == [pytest.approx(160, abs=0.1)]
    (warning,) = report["warnings"]
    assert "% of the frames are dropped" in warning


def test_late_predictions_are_not_scored_and_give_warnings() -> None:
    clock = VirtualClock()
    pipeline = Pipeline(Camera(600, clock), predictor(clock, lambda n: 0.1), rival=False, clock=clock)
    list(pipeline)
    report = pipeline.report()
    assert (report["psnr_db"]["n"], report["psnr_db"]["trusted"]) == (0, False)  # the frames came before them
    dropped, late, few = report["warnings"]
    assert "of the frames are dropped" in dropped
    assert "they come too late" in late
    assert "only 0 of" in few


def jittered(n: int) -> float:
    return 0.15 + float(np.random.default_rng(n).uniform(-0.04, 0.04))


@pytest.mark.parametrize("refresh", [None, 60.0])
@pytest.mark.parametrize("seconds", [lambda n: 0.02, lambda n: 0.05 + 0.01 * (n % 2)])
@pytest.mark.parametrize(
    ("delay", "settled"),
    [(jittered, 250), (lambda n: 0.15 + 0.04 * float(np.sin(n / 25 * 2 * np.pi / 5)), 500), (lambda n: 0.15, 20)],
)
def test_the_frame_of_now_is_shown(
    delay: Callable[[int], float], settled: int, seconds: Callable[[int], float], refresh: float | None
) -> None:
    """The delay is 150 ms and varies by 40 ms: the moment shown is within 10 ms (p95) of the true one."""
    clock = VirtualClock()
    camera = Camera(900, clock, delay)
    pipeline = Pipeline(
        camera,
        predictor(clock, seconds),
        lookahead=Lookahead(now=True, camera_delay=0.15),
        refresh=refresh,
        rival=False,
        clock=clock,
    )
    errors = [
        camera.taken(result.frame.index) + result.prediction.ahead - clock.now()
        for result in pipeline
        if result.frame.index >= settled
    ]
    assert len(errors) > 100
    assert np.percentile(np.abs(errors), 95) < 0.01
    report = pipeline.report()
    now = report["now"]
    assert now is not None
    assert now["spread"] < 10
    assert now["late"] > 150
    assert not [warning for warning in report["warnings"] if "the present" in warning or "too late" in warning]


def test_now_stays_within_max_ahead_and_warns() -> None:
    clock = VirtualClock()
    pipeline = Pipeline(
        Camera(200, clock, lambda n: 0.5),
        predictor(clock, lambda n: 0.02),
        lookahead=Lookahead(now=True, camera_delay=0.5, most=0.3),
        rival=False,
        clock=clock,
    )
    assert {round(result.prediction.ahead, 6) for result in pipeline} == {0.3}
    report = pipeline.report()
    assert report["ahead_ms"] == 300
    (warning,) = [one for one in report["warnings"] if "the present" in one]
    assert "the picture is 520 ms late, but the lookahead is limited to 300 ms" in warning
    assert report["now"] is not None
    assert report["now"]["error"] == pytest.approx(-220, abs=2)


def test_a_steady_display_gets_moments_between_two_frames() -> None:
    clock = VirtualClock()
    camera = Camera(30, clock, interval=0.1, fps=10.0)
    pipeline = Pipeline(
        camera, predictor(clock, lambda n: 0.01), lookahead=Lookahead(seconds=0.1), refresh=50, rival=False, clock=clock
    )
    shown = [(result.between, result.frame.index, result.prediction.time, clock.now(), result) for result in pipeline]
    assert sum(not between for between, *_ in shown) == pipeline.report()["frames"] == 30
    inner = [one for one in shown if 5 <= one[1] < 29]
    assert sum(between for between, *_ in inner) == 4 * 24
    late = {round(1e3 * (time - handed), 3) for _, _, time, handed, _ in inner}
    assert len(late) == 1  # the moment shown advances with time
    assert np.diff([handed for _, _, _, handed, _ in inner]) == pytest.approx(0.02)
    for between, *_, result in inner:
        assert result.between == between
        assert not between or (result.due, result.late, result.psnr, result.psnr_copy) == (None,) * 4


def test_a_display_stops_when_the_camera_stalls() -> None:
    clock = VirtualClock()
    camera = Camera(10, clock, lambda n: 60.0 if n >= 8 else 0.0)
    pipeline = Pipeline(
        camera,
        predictor(clock, lambda n: 0.01),
        lookahead=Lookahead(now=True, most=0.5),
        refresh=50,
        rival=False,
        clock=clock,
    )
    stale = [result for result in pipeline if result.between and result.frame.index == 7]
    assert 20 <= len(stale) <= 26  # half a second of lookahead at 50 pictures a second
    assert max(result.prediction.ahead for result in stale) <= 0.5


def test_a_file_in_real_time_behaves_like_a_camera() -> None:
    clock = VirtualClock()
    pipeline = Pipeline(
        ListSource(pictures(100)), predictor(clock, lambda n: 0.1), realtime=True, rival=False, clock=clock
    )
    results = list(pipeline)
    report = pipeline.report()
    assert 35 <= report["frames"] <= 45
    assert report["frames"] + report["dropped"] == 100
    p90 = report["latency_ms"]["p90"]
    assert p90 is not None
    assert p90 <= 150  # no queue: a frame waits only for the current step, and then takes one step
    assert [r.prediction.ahead for r in results[3:]] == pytest.approx([0.04] * len(results[3:]))


def test_every_frame_of_a_file_is_taken_on_request() -> None:
    clock = VirtualClock()
    pipeline = Pipeline(
        ListSource(pictures(100)), predictor(clock, lambda n: 0.1), realtime=True, every=True, rival=False, clock=clock
    )
    assert [result.frame.index for result in pipeline] == list(range(100))
    assert (pipeline.report()["frames"], pipeline.report()["dropped"]) == (100, 0)


def test_now_on_a_file_in_real_time() -> None:
    """A frame of a file counts as taken at its play time."""
    clock = VirtualClock()
    pipeline = Pipeline(
        ListSource(pictures(200)),
        predictor(clock, lambda n: 0.07),
        lookahead=Lookahead(now=True),
        realtime=True,
        clock=clock,
    )
    begun = None
    errors = []
    for result in pipeline:
        begun = clock.now() - result.frame.time - 0.07 if begun is None else begun
        errors.append(result.prediction.time - (clock.now() - begun))
    assert np.abs(errors[10:]).max() < 0.005
