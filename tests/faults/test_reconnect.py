"""A lost camera is opened again: the waits, the epochs, and the messages. Only waiting takes time on these clocks."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

import framecast
from framecast.backoff import LEAST, MOST, REFUSED
from framecast.camera import Frame, Source
from framecast.camera.reconnect import Reconnecting, reconnecting
from framecast.clock import Clock
from framecast.errors import SourceError, SourceRefusedError, SourceUnavailableError
from framecast.notice import Notice
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.sinks.health import Pulse
from framecast.runtime.sinks.sink import Result
from framecast.terminal import summary
from framecast.testing import ListSource, ManualClock, TrendEngine, VirtualClock, shades

LOST = SourceError("lost cam: it ended or broke off (check the camera and the network)")
AWAY = SourceUnavailableError("no stream from cam after 0.0 s (connection refused)")


def camera(
    *answers: Source | Exception | Callable[[], Source], clock: Clock
) -> tuple[Callable[[], Source], list[float]]:
    """An opener that gives these answers in turn, and the times at which it was asked."""
    asked: list[float] = []
    rest = iter(answers)

    def open_camera() -> Source:
        asked.append(clock.now())
        answer = next(rest)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Source) else answer()

    return open_camera, asked


def connection(count: int, clock: ManualClock, end: Exception | None = LOST, fps: float = 25.0) -> ListSource:
    frames = [Frame(shade.image, clock.now() + shade.time, shade.index) for shade in shades(count)]
    return ListSource([*frames, *([end] if end else [])], live=True, name="cam", fps=fps)


def test_frames_go_on_in_a_new_epoch() -> None:
    clock = ManualClock()
    first, second = connection(3, clock), connection(2, clock, end=None, fps=30.0)
    open_camera, _ = camera(first, AWAY, AWAY, second, clock=clock)
    source = reconnecting("cam", open_camera, clock=clock)
    frames = [source.read() for _ in range(5)]
    assert [(frame.index, frame.epoch) for frame in frames if frame] == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)]
    assert first.closed
    assert not second.closed
    assert source.fps == 30.0
    assert source.faults == {"reconnects": 1}
    source.close()
    assert second.closed
    assert source.read() is None


def test_a_host_that_does_not_answer_is_not_opened() -> None:
    clock = ManualClock()
    open_camera, asked = camera(connection(1, clock), connection(1, clock, end=None), clock=clock)
    heard = iter([False, False, True])
    source = reconnecting("cam", open_camera, answers=lambda: next(heard), clock=clock)
    assert [source.read(), source.read()] != [None, None]
    assert next(heard, None) is None
    assert len(asked) == 2
    assert asked[1] > 0.05  # the two waits


def test_a_refused_password_is_seldom_tried_again() -> None:
    """Cameras lock an account after a few attempts."""
    clock = ManualClock()
    refused = SourceRefusedError("no stream from cam: 401 unauthorized")
    open_camera, asked = camera(connection(1, clock), *[refused] * 3, connection(1, clock, end=None), clock=clock)
    source = reconnecting("cam", open_camera, clock=clock)
    assert [source.read(), source.read()] != [None, None]
    assert np.diff(asked[1:]).min() >= REFUSED


def test_a_camera_that_is_there_for_the_first_time_is_no_reconnection() -> None:
    clock = ManualClock()
    open_camera, _ = camera(AWAY, AWAY, connection(1, clock, end=None), clock=clock)
    source = reconnecting("cam", open_camera, clock=clock)
    frame = source.read()
    assert frame is not None
    assert (frame.epoch, source.faults) == (0, {})


def test_the_waits_grow_with_the_outage() -> None:
    clock = ManualClock()
    open_camera, asked = camera(connection(1, clock), *[AWAY] * 400, connection(1, clock), clock=clock)
    source = Reconnecting("cam", open_camera, open_camera(), clock=clock, seed=1)
    for _ in range(2):
        assert source.read() is not None
    waits = np.diff(asked[1:])
    assert asked[1] == asked[0]  # the first attempt is made at once
    assert 0.05 <= waits[0] <= 0.1
    early = waits[np.cumsum(waits) < 60]
    assert early.max() <= LEAST
    assert early[5:].min() >= LEAST / 2
    late = waits[np.cumsum(waits) > 700]
    assert MOST / 2 <= late.min() <= late.max() <= MOST
    assert len(set(np.round(late, 3))) > 20  # cameras of a site do not come back together


def test_a_camera_that_is_lost_at_once_again_is_still_in_the_same_outage() -> None:
    clock = ManualClock()
    short = [connection(1, clock) for _ in range(12)]
    open_camera, asked = camera(*short, connection(1, clock, end=None), clock=clock)
    source = Reconnecting("cam", open_camera, open_camera(), clock=clock, seed=1)
    for _ in range(13):
        assert source.read() is not None
    assert np.diff(asked)[-3:].min() >= LEAST / 2


def test_outages_are_counted_and_measured() -> None:
    clock = ManualClock()
    answers = (AWAY, lambda: connection(1, clock), AWAY, AWAY, lambda: connection(1, clock), AWAY)
    open_camera, _ = camera(*answers, clock=clock)
    source = reconnecting("cam", open_camera, clock=clock)
    begun = clock.now()
    clock.wait_until(begun + 5)
    assert (source.outages.count, source.outages.total) == (1, 5)  # it goes on
    assert source.read()
    first, after = source.outages, clock.now()
    assert (first.count, first.total, first.longest) == (1, after - begun, after - begun)
    clock.wait_until(after + 100)
    assert source.outages == first  # it is there
    assert source.read()
    second = source.outages
    lasted = clock.now() - after - 100
    assert lasted > 0.1  # three waits
    assert (second.count, second.longest) == (2, first.longest)
    assert second.total == pytest.approx(first.total + lasted)


def test_a_camera_that_never_answered_has_no_interval(capsys: pytest.CaptureFixture[str]) -> None:
    clock = VirtualClock()
    source = Reconnecting("cam", camera(clock=clock)[0], "no stream from cam", answers=lambda: False, clock=clock)
    pipeline = Pipeline(source, Predictor(TrendEngine(0.5, size=(24, 32))), rival=False, clock=clock)
    results = pipeline.results(0.25)
    for _ in range(8):
        assert next(results) is None
    report = pipeline.report()
    assert (report["interval_ms"], report["outages"]["count"]) == (None, 1)
    assert report["outages"]["total_s"] == report["outages"]["longest_s"] == pytest.approx(2.0, abs=0.3)
    results.close()
    summary(report, {})
    said = capsys.readouterr().out
    assert "cam, frames at an unknown rate" in said
    assert re.search(r"outages\s+│ 1, \d\.\d s in all", said)


def test_what_goes_wrong_is_said_while_it_lasts() -> None:
    clock = ManualClock()
    open_camera, _ = camera(AWAY, connection(1, clock), connection(1, clock, end=None), clock=clock)
    source = reconnecting("cam", open_camera, clock=clock)
    assert source.trouble == str(AWAY)  # a camera that starts later than we do
    assert source.live
    assert source.read() is not None
    assert source.trouble is None


def test_a_wrong_password_is_not_tried_again() -> None:
    open_camera, asked = camera(SourceError("401 unauthorized"), clock=ManualClock())
    with pytest.raises(SourceError, match="401"):
        reconnecting("cam", open_camera)
    assert len(asked) == 1


def test_a_clip_is_left_alone() -> None:
    clip = ListSource(shades(3))
    assert reconnecting("clip", lambda: clip) is clip


def test_closing_ends_the_waiting() -> None:
    clock = ManualClock()

    def never() -> Source:
        if clock.now() > 100:
            source.close()
        raise AWAY

    source = Reconnecting("cam", never, "it is off", clock=clock)
    assert source.read() is None


def test_faults_of_lost_connections_are_kept() -> None:
    clock = ManualClock()
    first, second = connection(1, clock), connection(1, clock, end=None)
    first.faults, second.faults = Counter(damaged=2), Counter(damaged=3)
    open_camera, _ = camera(first, second, clock=clock)
    source = reconnecting("cam", open_camera, clock=clock)
    for _ in range(2):
        source.read()
    assert source.faults == {"damaged": 5, "reconnects": 1}


class Moving(ListSource):
    """Moving pictures at 25 frames a second on a clock, then an error if there is one."""

    def __init__(self, count: int, clock: Clock, *, turned: bool = False, end: Exception | None = None) -> None:
        picture = np.random.default_rng(3).integers(0, 256, (24, 32 + count, 3), dtype=np.uint8)
        picture = picture[:: -1 if turned else 1]
        frames = [Frame(picture[:, k : k + 32].copy(), clock.now() + k / 25, k) for k in range(count)]
        super().__init__([*frames, *([end] if end else [])], live=True, name="cam", gap=0.04, clock=clock)


def results(source: Source, count: int, clock: Clock) -> list[Result]:
    predictor = Predictor(TrendEngine(1.0, size=(24, 32)))
    return list(Pipeline(source, predictor, frames=count, rival=False, clock=clock))


def test_after_an_outage_the_state_is_that_of_a_fresh_run() -> None:
    """The predictions are bit-equal, and the scores begin anew."""
    clock = VirtualClock()
    first = Moving(8, clock, end=LOST)
    open_camera, _ = camera(first, AWAY, AWAY, lambda: Moving(8, clock, turned=True), clock=clock)
    found = results(reconnecting("cam", open_camera, clock=clock), 16, clock)
    fresh = results(Moving(8, clock, turned=True), 8, clock)
    assert [result.frame.epoch for result in found] == [0] * 8 + [1] * 8
    assert found[8].psnr is None
    for ours, theirs in zip(found[8:], fresh, strict=True):
        assert np.array_equal(ours.prediction.image, theirs.prediction.image)


def test_times_of_a_new_connection_do_not_depend_on_the_one_before() -> None:
    clock = VirtualClock()
    begun = clock.now()

    def frames(*moments: float, epoch: int) -> list[Frame]:
        return [Frame(np.full((24, 32, 3), 5 * k, np.uint8), begun + at, k, epoch) for k, at in enumerate(moments)]

    before = [*(k / 25 for k in range(40)), 40 / 25 - 0.03]  # the last comes early, so its estimate is later
    after = [before[-1] + 0.005 + k / 25 for k in range(10)]
    source = ListSource([*frames(*before, epoch=0), *frames(*after, epoch=1)], live=True, gap=0.04, clock=clock)
    pipeline = Pipeline(source, Predictor(TrendEngine(1.0, size=(24, 32))), rival=False, clock=clock)
    first = next(result for result in [*pipeline] if result.frame.epoch == 1)
    assert first.frame.time == pytest.approx(begun + after[0], abs=1e-9)
    assert pipeline.report()["events"]["times_mended"] == 0


def test_a_run_says_that_the_camera_was_lost_and_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines: list[str] = []
    clock = VirtualClock()
    first = Moving(8, clock, end=LOST)
    open_camera, _ = camera(first, *[AWAY] * 8, lambda: Moving(20, clock), clock=clock)
    source = reconnecting("cam", open_camera, clock=clock)
    report = framecast.run(source, engine="opencv", frames=24, announce=lines.append, clock=clock)
    assert report["frames"] == 24
    assert report["epochs"] == 2
    assert report["events"]["reconnects"] == 1
    assert report["trouble"] is None
    assert lines[0] == f"{AWAY}: trying again"
    assert re.fullmatch(r"cam is back after \d\.\d s", lines[1])
    lost, back = (line for line in lines if isinstance(line, Notice))
    assert (lost.event, lost.level, lost.fields) == ("camera_lost", logging.WARNING, {"source": "cam", "reconnects": 0})
    assert (back.event, back.level) == ("camera_back", logging.INFO)
    assert back.fields["reconnects"] == 1
    logged = [record.msg for record in caplog.records if isinstance(record.msg, Notice)]
    assert [notice.event for notice in logged] == ["started", "ready", "ready", "stopped"]
    assert [notice.fields.get("epoch") for notice in logged] == [None, 0, 1, None]
    assert logged[-1].fields["frames"] == 24


def test_a_run_is_ready_only_while_the_camera_is_there() -> None:
    """Not in an outage that is shorter than the time without predictions after which a run is not ready."""
    clock = VirtualClock()
    pulse = Pulse(clock.now)
    first = Moving(8, clock, end=LOST)
    open_camera, _ = camera(first, *[AWAY] * 3, lambda: Moving(20, clock), clock=clock)
    source = reconnecting("cam", open_camera, clock=clock)
    pipeline = Pipeline(source, Predictor(TrendEngine(1.0, size=(24, 32))), frames=24, rival=False, clock=clock)
    there: list[bool] = []
    out: list[bool] = []
    for result in pipeline.results(0.02):
        if result is not None:
            pulse.see(result)
        report = pipeline.report()
        ready = pulse.failing(report) is None
        if report["trouble"] is not None:
            out.append(ready)
        elif result is not None:
            there.append(ready)
    assert len(out) > 5
    assert not any(out)
    assert len(there) >= 20
    assert all(there)
