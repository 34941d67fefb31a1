"""The pipeline: every frame of a file, the newest frame of a camera, and clean ends."""

from __future__ import annotations

import json
import math
import threading
import time
from itertools import islice

import numpy as np
import pytest

import framecast
from framecast.camera import Frame
from framecast.errors import OptionError, SourceError
from framecast.runtime.engines.engine import State
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.report import _precision, to_json
from framecast.runtime.score import SETTLE, psnr
from framecast.testing import DriftEngine, EmptyEngine, ListSource, VirtualClock, manifest, shades

from ..conftest import RtspServer  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


def test_a_file_gives_every_frame_and_is_scored() -> None:
    source = ListSource(shades(30))
    pipeline = Pipeline(source, Predictor(DriftEngine(), watch=False))
    events = list(pipeline)
    assert [e.frame.index for e in events] == list(range(30))
    assert all(e.due is None for e in events[:SETTLE])
    assert all(e.due is not None for e in events[SETTLE:])
    last = events[-1]
    assert last.psnr == pytest.approx(psnr(events[-2].prediction.image, last.input))
    assert last.psnr_copy == pytest.approx(psnr(events[-2].input, last.input))
    report = pipeline.report()
    assert (report["frames"], report["dropped"], report["epochs"], report["ended"]) == (30, 0, 1, "end of source")
    assert report["psnr_db"]["n"] == 30 - SETTLE
    assert report["latency_ms"]["n"] == 30
    assert source.closed


def test_a_slow_model_drops_a_cameras_frames_and_counts_them() -> None:
    pipeline = Pipeline(ListSource(shades(60), live=True, gap=0.004), Predictor(DriftEngine(0.02), watch=False))
    events = list(pipeline)
    report = pipeline.report()
    assert report["dropped"] > 0
    assert report["dropped"] + report["frames"] == 60
    assert [e.frame.index for e in events] == sorted({e.frame.index for e in events})


def test_a_lookahead_of_three_frames_is_scored_three_frames_later() -> None:
    pipeline = Pipeline(ListSource(shades(30)), Predictor(DriftEngine(), watch=False), lookahead=Lookahead(frames=3))
    events = list(pipeline)
    assert [e.prediction.ahead for e in events] == pytest.approx([3 / 25] * 30)
    assert events[-1].prediction.time == pytest.approx(events[-1].frame.time + 3 / 25)
    assert events[-1].due is events[-4].prediction.image
    assert events[-1].late is events[-4].input
    assert events[-1].psnr_copy == pytest.approx(psnr(events[-4].input, events[-1].input))
    report = pipeline.report()
    assert (report["ahead_ms"], report["interval_ms"]) == (120.0, 40.0)
    assert [(q["ahead_ms"], q["n"]) for q in report["psnr_db_by_ahead"]] == [(120.0, 30 - SETTLE)]


def test_a_new_size_or_epoch_starts_a_new_stream() -> None:
    frames = shades(12) + shades(12, size=(24, 32), start=12) + shades(12, size=(24, 32), epoch=1, start=24)
    pipeline = Pipeline(ListSource(frames), Predictor(DriftEngine(), watch=False))
    events = list(pipeline)
    assert pipeline.report()["epochs"] == 3
    scored = [e.frame.index for e in events if e.due is not None]
    assert scored == [8, 9, 10, 11, 20, 21, 22, 23, 32, 33, 34, 35]


def test_a_lost_source_ends_the_run_with_the_reason() -> None:
    source = ListSource([*shades(5), SourceError("lost the camera: plug it in")])
    pipeline = Pipeline(source, Predictor(DriftEngine(), watch=False))
    with pytest.raises(SourceError, match="lost the camera"):
        list(pipeline)
    assert pipeline.report()["ended"] == "error: lost the camera: plug it in"
    assert source.closed


def test_stop_ends_cleanly_from_another_thread() -> None:
    class Endless(ListSource):
        def read(self) -> Frame:
            return Frame(np.zeros((12, 16, 3), np.uint8), time.monotonic(), 0)

    pipeline = Pipeline(Endless([]), Predictor(DriftEngine(), watch=False))
    threading.Timer(0.2, pipeline.stop).start()
    assert sum(1 for _ in pipeline) > 0
    assert pipeline.report()["ended"] == "interrupted"
    assert not [t for t in threading.enumerate() if t.name == "framecast-capture"]


def test_max_frames_and_options() -> None:
    pipeline = Pipeline(ListSource(shades(30)), Predictor(DriftEngine(), watch=False), frames=7)
    assert len(list(pipeline)) == 7
    assert pipeline.report()["ended"] == "max frames"
    with pytest.raises(OptionError, match="frames must be at least 1, not 0"):
        Pipeline(ListSource([]), Predictor(DriftEngine(), watch=False), frames=0)
    for rate in (0.0, 0.5, 1001.0, float("nan")):
        with pytest.raises(OptionError, match="the refresh rate must be 1 to 1000 a second"):
            Pipeline(ListSource([]), Predictor(DriftEngine(), watch=False), realtime=True, refresh=rate)
    with pytest.raises(OptionError, match="cannot use now with a file at full speed: set realtime"):
        Pipeline(ListSource([]), Predictor(DriftEngine(), watch=False), lookahead=Lookahead(now=True))


def test_reports_are_json_without_nan() -> None:
    pipeline = Pipeline(ListSource(shades(1)), Predictor(DriftEngine(), watch=False))
    before = pipeline.report()
    list(pipeline)
    for report in (before, pipeline.report()):
        json.dumps(report, allow_nan=False)
    assert before["psnr_db"] == {"prediction": None, "copy_last": None, "n": 0, "trusted": False, "dis": None}
    assert (before["ahead_ms"], before["now"], before["sharpness"], before["warnings"]) == (None, None, None, [])
    assert to_json({"a": [float("nan"), np.float32("inf"), 1.5]}) == '{"a": [null, null, 1.5]}'


def test_latency_counts_from_the_grab() -> None:
    frames = [Frame(np.zeros((12, 16, 3), np.uint8), time.monotonic() - 5 + i / 100, i) for i in range(4)]
    pipeline = Pipeline(ListSource(frames, live=True, gap=0.05), Predictor(DriftEngine(), watch=False))
    list(pipeline)
    p50 = pipeline.report()["latency_ms"]["p50"]
    assert p50 is not None
    assert p50 > 4900


def test_a_step_knows_when_the_next_frame_is_due() -> None:
    dues: list[float] = []

    class Noting(DriftEngine):
        def run(self, state_in: State, state_out: State) -> None:
            dues.append(self.due)
            super().run(state_in, state_out)

    source = ListSource(shades(20), live=True, gap=0.04)
    clock = VirtualClock()
    events = list(Pipeline(source, Predictor(Noting(), watch=False, clock=clock), clock=clock))
    waits = [due - event.stamps.grabbed for due, event in zip(dues, events, strict=True)]
    assert waits[8:] == pytest.approx([0.04] * 12, abs=1e-3)

    dues.clear()  # a clip at full speed: no frame is due
    list(Pipeline(ListSource(shades(5)), Predictor(Noting(), watch=False)))
    assert dues == [math.inf] * 5


def test_a_clip_at_its_own_pace_follows_its_time_stamps() -> None:
    """A variable frame rate: the moments at which frames are due are as far apart as their times."""
    clock, times = VirtualClock(), (0.0, 0.04, 0.08, 0.28, 0.32, 0.9)
    frames = [Frame(shade.image, time, k) for k, (shade, time) in enumerate(zip(shades(6), times, strict=True))]
    predictor = Predictor(DriftEngine(), watch=False)
    pipeline = Pipeline(ListSource(frames, fps=25.0), predictor, realtime=True, every=True, rival=False, clock=clock)
    due = [result.stamps.due for result in pipeline]
    assert [moment - due[0] for moment in due] == pytest.approx(times)


def test_a_timelapse_is_predicted_one_frame_ahead() -> None:
    """A frame every 30 s: from the first one on, since the clip says its rate."""
    frames = [Frame(shade.image, 30.0 * k, k) for k, shade in enumerate(shades(6))]
    pipeline = Pipeline(ListSource(frames, fps=1 / 30), Predictor(DriftEngine(), watch=False), rival=False)
    assert [result.prediction.ahead for result in pipeline] == pytest.approx([30.0] * 6)
    assert pipeline.report()["ended"] == "end of source"


def test_a_paced_clip_stops_at_once() -> None:
    pipeline = Pipeline(ListSource(shades(9), fps=0.01), Predictor(DriftEngine(), watch=False), realtime=True)
    events = iter(pipeline)
    next(events)
    pipeline.stop()
    assert not list(events)  # returns at once, not after 100 s
    assert pipeline.report()["ended"] == "interrupted"


def test_nonfinite_predictions_are_counted_and_scoring_restarts() -> None:
    engine = DriftEngine()
    engine.poison = lambda count: count == 15
    pipeline = Pipeline(ListSource(shades(40)), Predictor(engine, watch=False))
    events = list(pipeline)
    report = pipeline.report()
    assert report["resets"] >= 1
    assert report["frames"] == 40
    assert events[15].due is None  # the state is reset here, which discards pending predictions


def test_stream_is_iterated_and_closed() -> None:
    with framecast.open("synthetic://?size=160x120&frames=12", horizon=2) as stream:
        predictions = list(stream)
    assert len(predictions) == 12
    assert [p.ahead for p in predictions][1:] == pytest.approx([2 / 30] * 11)
    assert stream.report()["ended"] == "end of source"
    with framecast.open("demo") as left_early:
        for _ in left_early:
            break
    assert left_early.report()["ended"] == "interrupted"


def test_demo_is_predicted_better_than_by_copying() -> None:
    with framecast.open("demo") as stream:
        count = sum(1 for _ in islice(stream, 60))
        quality = stream.report()["psnr_db"]
    assert count == 60
    assert quality["prediction"] is not None
    assert quality["copy_last"] is not None
    assert quality["prediction"] > quality["copy_last"] + 1


def test_a_real_rtsp_server_is_predicted_live(rtsp_server: RtspServer) -> None:
    with framecast.open(rtsp_server.url) as stream:
        for count, prediction in enumerate(stream, start=1):
            assert prediction.image.shape == (240, 320, 3)  # the camera's own
            report = stream.report()
            if count >= 40 and report["psnr_db"]["n"] > 0:  # a busy machine skips scores
                break
    assert report["frames"] == count
    assert report["epochs"] == 1


@pytest.mark.parametrize(
    ("of_artifact", "opened", "expected"),
    [
        ("fp32", None, "fp32"),
        ("fp32", "fp32", "fp32"),
        ("fp32", "bf16", "bf16"),
        ("int8", None, "int8"),
        ("int8", "fp32", "int8"),
        ("int8", "bf16", "int8 and bf16"),
    ],
)
def test_the_report_names_the_precision(of_artifact: str, opened: str | None, expected: str) -> None:
    engine = EmptyEngine(manifest(precision=of_artifact))
    engine.precision = opened
    assert _precision(engine) == expected
