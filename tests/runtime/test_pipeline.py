"""The pipeline: every frame of a file, the newest of a camera, and clean ends."""

from __future__ import annotations

import json
import threading
import time
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

import framecast
from framecast.camera import Frame
from framecast.errors import OptionError, SourceError
from framecast.runtime.pipeline import Pipeline, _precision
from framecast.runtime.predictor import Predictor
from framecast.runtime.report import to_json
from framecast.runtime.score import SETTLE, psnr


def test_a_file_gives_every_frame_and_is_scored(engine, list_source, make_frames) -> None:  # type: ignore[no-untyped-def]
    source = list_source(make_frames(30))
    pipeline = Pipeline(source, Predictor(engine))
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


def test_a_slow_model_drops_a_cameras_frames_and_counts_them(engine, list_source, make_frames) -> None:  # type: ignore[no-untyped-def]
    engine.seconds = 0.02
    pipeline = Pipeline(list_source(make_frames(60), live=True, gap=0.004), Predictor(engine))
    events = list(pipeline)
    report = pipeline.report()
    assert report["dropped"] > 0
    assert report["dropped"] + report["frames"] == 60
    assert [e.frame.index for e in events] == sorted({e.frame.index for e in events})


def test_horizons_are_scored_each(engine, list_source, make_frames) -> None:  # type: ignore[no-untyped-def]
    pipeline = Pipeline(list_source(make_frames(30)), Predictor(engine), horizon=3)
    events = list(pipeline)
    assert {e.prediction.horizon for e in events} == {3}
    assert events[-1].prediction.time == pytest.approx(events[-1].frame.time + 3 / 25)
    assert events[-1].psnr_copy == pytest.approx(psnr(events[-4].input, events[-1].input))
    by_horizon = pipeline.report()["psnr_db_by_horizon"]
    assert [q["k"] for q in by_horizon] == [1, 2, 3]
    assert {q["n"] for q in by_horizon} == {30 - SETTLE}


def test_a_new_size_or_epoch_starts_a_new_stream(engine, list_source, make_frames) -> None:  # type: ignore[no-untyped-def]
    frames = (
        make_frames(12) + make_frames(12, size=(24, 32), start=12) + make_frames(12, size=(24, 32), epoch=1, start=24)
    )
    pipeline = Pipeline(list_source(frames), Predictor(engine))
    events = list(pipeline)
    assert pipeline.report()["epochs"] == 3
    scored = [e.frame.index for e in events if e.due is not None]
    assert scored == [8, 9, 10, 11, 20, 21, 22, 23, 32, 33, 34, 35]


def test_a_lost_source_ends_the_run_and_says_why(engine, list_source, make_frames) -> None:  # type: ignore[no-untyped-def]
    source = list_source([*make_frames(5), SourceError("lost the camera: plug it in")])
    pipeline = Pipeline(source, Predictor(engine))
    with pytest.raises(SourceError, match="lost the camera"):
        list(pipeline)
    assert pipeline.report()["ended"] == "error: lost the camera: plug it in"
    assert source.closed


def test_stop_ends_cleanly_from_another_thread(engine, list_source) -> None:  # type: ignore[no-untyped-def]
    class Endless(list_source):  # type: ignore[misc,valid-type]
        def read(self) -> Frame:
            return Frame(np.zeros((12, 16, 3), np.uint8), time.monotonic(), 0)

    pipeline = Pipeline(Endless([]), Predictor(engine))
    threading.Timer(0.2, pipeline.stop).start()
    assert sum(1 for _ in pipeline) > 0
    assert pipeline.report()["ended"] == "interrupted"
    assert not [t for t in threading.enumerate() if t.name == "framecast-capture"]


def test_max_frames_and_options(engine, list_source, make_frames) -> None:  # type: ignore[no-untyped-def]
    pipeline = Pipeline(list_source(make_frames(30)), Predictor(engine), max_frames=7)
    assert len(list(pipeline)) == 7
    assert pipeline.report()["ended"] == "max frames"
    for options in ({"horizon": 0}, {"max_frames": 0}):
        with pytest.raises(OptionError, match="at least 1"):
            Pipeline(list_source([]), Predictor(engine), **options)


def test_reports_are_json_without_nan(engine, list_source, make_frames) -> None:  # type: ignore[no-untyped-def]
    pipeline = Pipeline(list_source(make_frames(1)), Predictor(engine))
    before = pipeline.report()
    list(pipeline)
    for report in (before, pipeline.report()):
        json.dumps(report, allow_nan=False)
    assert before["psnr_db"] == {"prediction": None, "copy_last": None, "n": 0}
    assert to_json({"a": [float("nan"), np.float32("inf"), 1.5]}) == '{"a": [null, null, 1.5]}'


def test_latency_counts_from_the_grab(engine, list_source) -> None:  # type: ignore[no-untyped-def]
    frames = [Frame(np.zeros((12, 16, 3), np.uint8), time.monotonic() - 5 + i / 100, i) for i in range(4)]
    pipeline = Pipeline(list_source(frames, live=True, gap=0.05), Predictor(engine))
    list(pipeline)
    p50 = pipeline.report()["latency_ms"]["p50"]
    assert p50 is not None
    assert p50 > 4900


def test_a_paced_clip_stops_at_once(engine, list_source, make_frames) -> None:  # type: ignore[no-untyped-def]
    pipeline = Pipeline(list_source(make_frames(9), fps=0.01), Predictor(engine), realtime=True)
    events = iter(pipeline)
    next(events)
    pipeline.stop()
    assert not list(events)  # and not 100 s later
    assert pipeline.report()["ended"] == "interrupted"


def test_nonfinite_predictions_are_counted_and_scored_anew(engine, list_source, make_frames) -> None:  # type: ignore[no-untyped-def]
    engine.poison = lambda count: count == 15
    pipeline = Pipeline(list_source(make_frames(40)), Predictor(engine))
    events = list(pipeline)
    report = pipeline.report()
    assert report["resets"] >= 1
    assert report["frames"] == 40
    assert events[15].due is None  # the state starts anew here: what was pending is void


def test_stream_is_iterated_and_closed() -> None:
    with framecast.open("synthetic://?size=160x120&frames=12", horizon=2) as stream:
        predictions = list(stream)
    assert len(predictions) == 12
    assert {p.horizon for p in predictions} == {2}
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


def test_a_real_rtsp_server_is_predicted_live(rtsp_server) -> None:  # type: ignore[no-untyped-def]
    with framecast.open(rtsp_server.url) as stream:
        for count, prediction in enumerate(stream, start=1):
            assert prediction.image.shape == (192, 256, 3)
            if count == 40:
                break
        report = stream.report()
    assert report["frames"] == 40
    assert report["epochs"] == 1
    assert report["psnr_db"]["n"] > 0


@pytest.mark.parametrize(
    ("of_artifact", "opened", "told"),
    [
        ("fp32", None, "fp32"),
        ("fp32", "fp32", "fp32"),
        ("fp32", "bf16", "bf16"),
        ("int8", None, "int8"),
        ("int8", "fp32", "int8"),
        ("int8", "bf16", "int8 and bf16"),
    ],
)
def test_the_report_says_in_what_it_computed(of_artifact: str, opened: str | None, told: str) -> None:
    engine = SimpleNamespace(manifest=SimpleNamespace(precision=of_artifact), precision=opened)
    assert _precision(engine) == told  # type: ignore[arg-type]
