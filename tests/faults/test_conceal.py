"""Predictions in place of frames that are late or lost, at the camera's cadence. On a virtual clock."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from framecast.camera import Frame, Image
from framecast.camera.reconnect import Reconnecting
from framecast.camera.source import Times
from framecast.errors import EngineError, OptionError, SourceError
from framecast.runtime.conceal import Concealment
from framecast.runtime.engines import Engine, State
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.run import run
from framecast.runtime.sinks import picture
from framecast.runtime.sinks.encoder import Times as RecordingTimes
from framecast.runtime.sinks.feed import _moment
from framecast.runtime.sinks.out import OutSink
from framecast.runtime.sinks.page.pictures import Newest
from framecast.runtime.sinks.page.scores import Scores
from framecast.runtime.sinks.picture import now_and_late, scored_moment
from framecast.runtime.sinks.sink import Result
from framecast.runtime.sinks.video import VideoSink
from framecast.terminal import summary
from framecast.testing import FadeEngine, ListSource, PacedEngine, VirtualClock

from ..calls import watched  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

STEP = 0.04


class Gappy(ListSource):
    """A camera at 25 frames a second that leaves out some: a grey that grows by 2 levels a frame.

    Args:
        missing: numbers of the frames that never come.
        count: frames in all.
        clock: the run's clock.
        late: by how many intervals a frame comes late, by number.
        times: what the frames' times say.
    """

    def __init__(
        self, missing: set[int], count: int, clock: VirtualClock, late: dict[int, float], times: Times
    ) -> None:
        begun, self._times = clock.now() + STEP, times
        due = {k: begun + STEP * (k + late.get(k, 0.0)) for k in range(count) if k not in missing}
        self._due = [*due.values()]
        known = {k: begun + STEP * k for k in due} if times == "capture" else due
        frames = [Frame(np.full((24, 32, 3), 2 * k, np.uint8), time, k) for k, time in known.items()]
        super().__init__(frames, live=True, fps=1 / STEP, clock=clock)

    @property
    def times(self) -> Times:
        return self._times

    def read(self) -> Frame | None:
        if self._due:
            self._clock.wait_until(self._due.pop(0))
        return super().read()


def played(
    missing: set[int],
    limit: float | None,
    count: int = 40,
    *,
    late: dict[int, float] | None = None,
    times: Times = "capture",
    clock: VirtualClock | None = None,
    engine: Engine | None = None,
    lookahead: Lookahead | None = None,
    refresh: float | None = None,
) -> Pipeline:
    clock = clock or VirtualClock()
    return Pipeline(
        Gappy(missing, count, clock, late or {}, times),
        Predictor(engine or FadeEngine(1.0), watch=False),
        lookahead=lookahead,
        refresh=refresh,
        rival=False,
        conceal=limit,
        clock=clock,
    )


def shown(missing: set[int], limit: float | None, count: int = 40) -> list[Result]:
    return list(played(missing, limit, count))


def numbers(results: list[Result]) -> list[int]:
    """Which frame of the camera each result stands for."""
    begun = results[0].frame.time
    return [round((result.frame.time - begun) / STEP) for result in results]


def test_missing_frames_are_concealed_at_the_cameras_cadence() -> None:
    results = shown({20, 21, 22}, limit=1.0)
    concealed = [result for result in results if result.concealed]
    assert len(results) == 40
    assert numbers(results) == list(range(40))
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
    assert len(results) == 11  # 0.4 s, and the last real frame
    assert [result.last for result in results] == [False] * 10 + [True]
    levels = [float(result.prediction.image.mean()) for result in results]
    assert levels[1] == 2 * 22  # a quarter of the limit: a prediction
    assert levels[6] > levels[7] > levels[8] > levels[9] > levels[10] == 2 * 19  # the last real frame


def test_without_a_whole_number_of_frames_it_also_ends_with_the_last_one() -> None:
    results = [result for result in shown(set(range(20, 60)), limit=0.15, count=80) if result.concealed]
    assert [round(float(result.prediction.image.mean())) for result in results][-1] == 2 * 19
    assert numbers(results) == [0, 1, 2, 3]


@pytest.mark.parametrize("late", [{k: 0.4 * (k % 2) for k in range(40)}, {20: 0.45}, {20: -0.3, 21: 0.4}])
def test_jitter_is_not_concealed(late: dict[int, float]) -> None:
    assert not any(result.concealed for result in played(set(), 1.0, late=late, times="arrival"))


def test_a_late_frame_is_shown_when_it_comes() -> None:
    clock = VirtualClock()
    pipeline = played(set(), 1.0, late={20: 0.8}, times="arrival", clock=clock)
    results = [(result, clock.now()) for result in pipeline]
    begun = results[0][1]
    assert [result.frame.index for result, _ in results if not result.concealed] == list(range(40))
    ((concealed, at),) = [one for one in results if one[0].concealed]
    assert (at - begun) / STEP == pytest.approx(20.5, abs=0.01)
    assert concealed.frame.index == 19
    after, at = results[21]
    assert after.frame.index == 20
    assert (at - begun) / STEP == pytest.approx(20.8, abs=0.01)


def test_scores_are_those_of_a_run_that_conceals_nothing() -> None:
    with_it, without = ([r for r in shown({20, 21, 30}, limit) if not r.concealed] for limit in (1.0, None))
    assert [(r.frame.index, r.psnr, r.psnr_copy) for r in with_it] == [
        (r.frame.index, r.psnr, r.psnr_copy) for r in without
    ]
    assert sum(r.psnr is not None for r in with_it) > 20


def test_concealed_pictures_are_not_counted_as_frames() -> None:
    pipeline = played({20, 21, 22}, 1.0)
    list(pipeline)
    report = pipeline.report()
    assert report["frames"] == 37
    assert report["events"]["concealed"] == 3


def test_the_frame_of_now_stays_of_now() -> None:
    clock = VirtualClock()
    lookahead = Lookahead(now=True, camera_delay=0.1, most=0.25)
    for result in played(set(range(20, 30)), 1.0, clock=clock, lookahead=lookahead):
        wanted = clock.now() - result.stamps.due + 0.1
        assert result.prediction.ahead == pytest.approx(min(wanted, 0.25), abs=0.002)


def test_a_fast_display_sees_no_step_back_and_no_unmarked_picture() -> None:
    results = list(played(set(range(20, 60)), 0.4, 80, refresh=90))
    first = next(k for k, result in enumerate(results) if result.concealed)
    back = next(k for k, result in enumerate(results) if result.frame.index > 19)
    gap = results[first:back]
    assert all(result.concealed for result in gap)
    assert sum(result.between for result in gap) >= 15
    moments = [result.prediction.time for result in results[first - 3 : back]]
    assert moments == sorted(moments)
    levels = [float(result.prediction.image.mean()) for result in gap]
    top = levels.index(max(levels))
    assert all(after >= before for before, after in pairwise(levels[:top]))
    assert all(after <= before + 1 for before, after in pairwise(levels[top:]))  # it is rounded twice
    assert levels[-1] == 2 * 19


def test_a_network_stops_before_a_real_frame_must_wait_for_it() -> None:
    clock = VirtualClock()
    engine = PacedEngine(clock, lambda n: 0.3 * STEP)
    results = list(played(set(range(20, 60)), 2.0, 80, clock=clock, engine=engine))
    concealed = [result for result in results if result.concealed]
    assert 2 <= len(concealed) <= 5  # a step more for each
    assert np.array_equal(concealed[-1].prediction.image, concealed[-1].input)
    assert [result.frame.index for result in results if not result.concealed][:20] == list(range(20))
    assert results[-1].frame.index == 79


def test_a_model_that_fails_far_ahead_does_not_end_the_run() -> None:
    class Short(FadeEngine):
        def render_at(self, state: State, ahead: Sequence[float]) -> list[list[Image]]:
            if max(ahead) > 3.5 * STEP:
                raise EngineError("too far")
            return super().render_at(state, ahead)

    results = list(played(set(range(20, 30)), 1.0, engine=Short(1.0)))
    concealed = [result for result in results if result.concealed]
    assert len(concealed) == 4
    assert concealed[-1].prediction.image.mean() == 2 * 19
    assert results[-1].frame.index == 39


@pytest.mark.parametrize("every", [False, True])
def test_a_file_with_missing_frames_is_concealed_as_a_camera_is(every: bool) -> None:
    clock = VirtualClock()
    frames = [Frame(np.full((24, 32, 3), 2 * k, np.uint8), STEP * k, k) for k in range(40) if k not in (20, 21)]
    predictor = Predictor(FadeEngine(1.0), watch=False)
    source = ListSource(frames, fps=1 / STEP, clock=clock)
    pipeline = Pipeline(source, predictor, realtime=True, every=every, rival=False, conceal=1.0, frames=30, clock=clock)
    results = list(pipeline)
    assert numbers(results) == list(range(32))  # 30 frames, and two that were concealed
    assert [number for number, result in enumerate(results) if result.concealed] == [20, 21]


def test_an_outage_is_concealed_until_the_limit_and_a_new_connection_begins_anew() -> None:
    clock = VirtualClock()
    opened: list[Gappy] = []

    def again() -> Gappy:
        if len(opened) == 1 and clock.now() < back:
            raise SourceError("not yet")
        opened.append(Gappy(set(), 20, clock, {}, "capture"))
        return opened[-1]

    back = clock.now() + 3.0
    source = Reconnecting("cam", again, again(), clock=clock, seed=0)
    pipeline = Pipeline(source, Predictor(FadeEngine(1.0)), rival=False, conceal=0.4, clock=clock, frames=40)
    results = list(pipeline)
    assert [(result.frame.epoch, result.concealed) for result in results] == [
        *[(0, False)] * 20,
        *[(0, True)] * 11,
        *[(1, False)] * 20,
    ]
    assert all(result.frame.time < results[19].frame.time + 0.5 for result in results[20:31])
    assert results[31].frame.time > back
    assert results[31].psnr is None
    assert pipeline.report()["events"]["reconnects"] == 1


def test_frames_that_come_in_a_burst_at_first_are_no_cadence() -> None:
    burst = {k: -0.98 * k for k in range(6)}  # as a decoder gives them
    results = list(played(set(range(10, 15)), 1.0, late=burst, times="arrival"))
    assert not any(result.concealed for result in results)


def test_a_clip_at_full_speed_cannot_be_concealed() -> None:
    with pytest.raises(OptionError, match="cannot conceal in a file at full speed"):
        Pipeline(ListSource([]), Predictor(FadeEngine()), conceal=1.0)


def test_the_limit_is_checked_before_a_camera_is_waited_for() -> None:
    with pytest.raises(OptionError, match="conceal must be above 0 and at most 10 s, not 36000 s"):
        run("rtsp://192.0.2.1/cam", conceal=36000)


def test_a_recording_keeps_its_time() -> None:
    times = RecordingTimes(25.0)
    at = [times.at(0.04 * k) for k in range(3)]
    at += [times.at(0.04 * k, concealed=True) for k in (3, 4, 5)]
    assert not times.taken
    late = times.at(0.121)  # frame 3, after all
    assert times.taken
    assert late == at[-1]
    following = times.at(0.24)
    assert not times.taken
    assert [*at, following] == pytest.approx([0.04 * k for k in range(7)])


@pytest.mark.parametrize("ending", [".avi", ".mkv"])
def test_a_late_frame_makes_a_video_no_longer(ending: str, tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / f"run{ending}", 1 / STEP)
    results = list(played(set(), 1.0, late={20: 0.8, 25: 0.8, 30: 0.8}))
    assert sum(result.concealed for result in results) == 3
    for result in results:
        sink.show(result)
    sink.close()
    with av.open(tmp_path / f"run{ending}") as video:
        times = [float(packet.pts * packet.time_base) for packet in video.demux(video=0) if packet.pts is not None]
    whole = [time for k, time in enumerate(times) if k == 0 or time > times[k - 1] + STEP / 2]
    assert whole == pytest.approx([STEP * k for k in range(40)], abs=0.011)


def test_standard_output_gets_one_picture_for_each_frame() -> None:
    read, write = os.pipe()
    sink = OutSink("udp://127.0.0.1:9", 1 / STEP)
    sink._pipe = write  # as with "-", which would take the process's standard output for good
    for result in played({25, 26}, 1.0, late={20: 0.8}):
        sink.show(result)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read().count(b"FRAME\n") == 40


def test_the_page_marks_a_concealed_picture_and_does_not_count_it() -> None:
    real, concealed = next(pair for pair in pairwise(shown({20, 21}, limit=1.0)) if pair[1].concealed)
    assert _moment(Newest.after(None, real))["concealed"] is False
    assert _moment(Newest.after(Newest.after(None, real), concealed))["concealed"] is True
    assert _moment(Newest.after(None, replace(concealed, last=True)))["concealed"] == "last"
    scores = Scores()
    scores.add(real)
    scores.add(concealed)
    assert scores.since(0)[1] == 1


def test_the_summary_counts_them(capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = played({20, 21}, 1.0)
    list(pipeline)
    summary(pipeline.report(), {})
    assert "2 concealed frames" in capsys.readouterr().out


def test_a_concealed_moment_is_marked_in_a_recording() -> None:
    concealed = next(result for result in shown({20, 21}, limit=1.0) if result.concealed)
    moment = scored_moment(concealed)
    height = moment.shape[0] // 2
    assert moment[:height].max() > 30
    assert moment[height + 40 :].max() < 30  # there is no real frame, and no error


def test_captions_count_from_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera's own times count from the start of the machine."""
    said: list[str] = []
    monkeypatch.setattr(picture, "caption", watched(picture.caption, lambda width, text: said.append(text)))
    clock = VirtualClock()
    clock.wait_until(clock.now() + 12_345)
    for result in played(set(range(20, 60)), 0.1, 21, clock=clock):
        scored_moment(result)
        now_and_late(result)
    assert [text for text in said if "real frame" in text][:2] == ["real frame, 0.00 s", "real frame, 0.04 s"]
    assert "late: the newest frame, 0.76 s" in said


@pytest.mark.parametrize("limit", [0.0, -1.0, 11.0, float("nan")])
def test_a_limit_that_cannot_be(limit: float) -> None:
    with pytest.raises(OptionError, match="conceal must be above 0 and at most 10 s"):
        Concealment(limit)
