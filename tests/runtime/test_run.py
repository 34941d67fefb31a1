"""``framecast.run``: one call that runs a source through a model into sinks."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest

import framecast
from framecast.camera import Frame
from framecast.errors import EngineError, OptionError, SinkError, SourceError
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.report import Report
from framecast.runtime.sinks.thread import SinkThread
from framecast.testing import DriftEngine, ListSource, VirtualClock, shades

CLIP = "synthetic://?size=160x120&frames=30"


class Kept(framecast.Sink):
    def __init__(self) -> None:
        self.indices: list[int] = []
        self.closed = 0

    def show(self, result: framecast.Result) -> None:
        self.indices.append(result.frame.index)

    def close(self) -> None:
        self.closed += 1


def test_every_callable_and_every_sink_gets_every_result(tmp_path: Path) -> None:
    called: list[float] = []
    kept, reports = Kept(), list[Report]()
    report = framecast.run(
        CLIP,
        horizon=2,
        record=[tmp_path / "run.mp4", tmp_path / "run.png"],
        sinks=[lambda result: called.append(result.prediction.ahead), kept],
        observe=reports.append,
    )
    assert kept.indices == list(range(30))
    assert called[1:] == pytest.approx([2 / 30] * 29)
    assert kept.closed == 1
    assert report == reports[-1]
    assert (report["frames"], report["ended"]) == (30, "end of source")
    assert {path.name for path in tmp_path.iterdir() if path.stat().st_size} == {"run.mp4", "run.png"}


def test_an_opened_source_is_used_and_closed() -> None:
    source = ListSource(shades(12, size=(120, 160)))
    assert framecast.run(source, frames=5)["ended"] == "max frames"
    assert source.closed


def test_a_callers_stop_event_ends_the_run() -> None:
    stop = threading.Event()
    report = framecast.run("demo", loop=True, stop=stop, sinks=[lambda result: stop.set()])
    assert report["ended"] == "interrupted"
    assert report["frames"] <= 4  # includes frames that were already in progress


def test_a_failing_sink_ends_the_run_and_the_others_are_closed() -> None:
    def fail(result: framecast.Result) -> None:
        if result.frame.index == 7:
            raise SinkError("cannot write x: it is full (make room)")

    kept, reports = Kept(), list[Report]()
    with pytest.raises(SinkError, match="it is full"):
        framecast.run(CLIP, sinks=[kept, fail], observe=reports.append)
    assert kept.closed == 1
    assert reports[-1]["ended"] == "error: cannot write x: it is full (make room)"


def test_bad_input_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"unknown suffix; use \.mp4"):
        framecast.run("rtsp://nobody.invalid/", record=[tmp_path / "run.gif"])
    reports = list[Report]()
    with pytest.raises(SourceError, match="no such file"):
        framecast.run(str(tmp_path / "none.mp4"), observe=reports.append)
    assert reports == []


def test_the_given_source_and_sinks_are_closed_on_any_error() -> None:
    for options in ({"model": "nonesuch"}, {"record": "run.gif"}, {"engine": "nonesuch"}):
        source, sink = ListSource(shades(3)), Kept()
        with pytest.raises(framecast.FramecastError):
            framecast.run(source, sinks=[sink], **options)  # type: ignore[arg-type]  # of several types
        assert source.closed
        assert sink.closed == 1


def test_one_recording_and_a_sink_of_any_class(tmp_path: Path) -> None:
    class Duck:
        shown = closed = 0

        def show(self, _: framecast.Result) -> None:
            self.shown += 1

        def close(self) -> None:
            self.closed += 1

    duck: Any = Duck()
    framecast.run(CLIP, record=tmp_path / "run.mp4", sinks=[duck])
    assert (duck.shown, duck.closed) == (30, 1)
    assert (tmp_path / "run.mp4").stat().st_size > 0


def test_a_run_in_virtual_time_records_and_ends() -> None:
    """Capture, sinks and loop wait on the given clock: a wait on another one would stop virtual time."""
    clock = VirtualClock()
    source = ListSource(shades(40, size=(48, 64)), live=True, gap=60.0, clock=clock)
    shown: list[int] = []

    class Slow(framecast.Sink):
        def show(self, result: framecast.Result) -> None:
            clock.wait_until(clock.now() + 90)
            shown.append(result.frame.index)

        def close(self) -> None:
            pass

    begun = clock.now()
    report = framecast.run(source, frames=20, sinks=[SinkThread(Slow(), clock)], clock=clock)
    assert report["frames"] == 20
    assert len(shown) == 20
    assert clock.now() - begun >= 20 * 90
    with pytest.raises(OptionError, match="run in real time"):
        framecast.run(CLIP, serve="127.0.0.1:0", clock=clock)


def test_resets_are_counted_for_each_run() -> None:
    engine = DriftEngine()
    predictor = Predictor(engine, watch=False)
    engine.poison = lambda count: count == 5
    first = Pipeline(ListSource(shades(12)), predictor)
    list(first)
    engine.poison = lambda count: False
    second = Pipeline(ListSource(shades(12)), predictor)
    list(second)
    assert (first.report()["resets"], second.report()["resets"]) == (2, 0)
    engine.poison = lambda count: True
    third = Pipeline(ListSource(shades(12)), predictor)
    with pytest.raises(EngineError):
        list(third)
    assert third.report()["resets"] == 1
    with pytest.raises(OptionError, match="runs once"):
        list(third)


def test_a_source_that_fails_after_stop_is_no_error() -> None:
    held, stopped = threading.Event(), threading.Event()

    class Failing(ListSource):
        def read(self) -> Frame | None:
            frame = super().read()
            if frame is not None and frame.index == 2:
                held.set()
                stopped.wait(60)
                raise SourceError("lost while stopping")
            return frame

    pipeline = Pipeline(Failing(shades(6)), Predictor(DriftEngine(), watch=False))
    for result in pipeline:
        if result.frame.index == 1:
            assert held.wait(60)
            pipeline.stop()
            stopped.set()
    assert pipeline.report()["ended"] == "interrupted"


def test_a_silent_source_is_noticed() -> None:
    """The loop wakes for a frame or at a deadline, so it notices a camera that stalls."""
    clock = VirtualClock()

    class Stalling(ListSource):
        def read(self) -> Frame | None:
            frame = super().read()
            if frame is not None and frame.index == 3:
                self._clock.wait_until(self._clock.now() + 2.0)
            return None if frame is None else dataclasses.replace(frame, time=self._clock.now())

    source = Stalling(shades(6), live=True, gap=0.04, clock=clock)
    pipeline = Pipeline(source, Predictor(DriftEngine(), clock=clock, watch=False), clock=clock)
    silences: list[float] = []
    shown: list[int] = []
    for result in pipeline.results(0.25):
        if result is None:
            silences.append(pipeline.report()["silent_s"])
        else:
            shown.append(result.frame.index)
            assert pipeline.report()["silent_s"] == 0
    assert shown == list(range(6))
    assert silences == pytest.approx([0.2, 0.5, 0.8, 1.0, 1.2, 1.5, 1.8, 2.0], abs=0.051)


def test_a_prediction_has_a_short_repr_and_is_a_picture_in_a_notebook() -> None:
    predictor = framecast.load()
    predictor.step(shades(1, size=(120, 160))[0].image, 2.0)
    prediction = predictor.at(2.0414)
    assert repr(prediction) == "Prediction(160x120, 41 ms ahead, time 2.041 s)"
    assert prediction._repr_png_().startswith(b"\x89PNG")
