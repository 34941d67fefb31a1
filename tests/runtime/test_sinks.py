"""Sinks: what is recorded is there, complete and playable, also after a failure."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from framecast.camera import Frame
from framecast.errors import OptionError, SinkError
from framecast.runtime.predictor import Prediction
from framecast.runtime.sinks.picture import CAPTION, error_image, triptych
from framecast.runtime.sinks.sink import Result, Sink
from framecast.runtime.sinks.strip import ROWS, StripSink
from framecast.runtime.sinks.thread import SinkThread
from framecast.runtime.sinks.video import VideoSink
from framecast.testing import STAMPS

H, W = 192, 256  # too wide to be enlarged


def event(i: int, *, due: bool = True) -> Result:
    real = np.full((H, W, 3), i, np.uint8)
    guess = np.full((H, W, 3), i + 5, np.uint8)
    frame = Frame(real, i / 25, i)
    scores: dict[str, Any] = {"due": guess, "psnr": 34.15, "psnr_copy": 30.0} if due else {}
    return Result(frame, real, Prediction(guess, (i + 1) / 25, 1), STAMPS, **scores)


def count_frames(path: Path) -> tuple[int, tuple[int, ...]]:
    capture = cv2.VideoCapture(str(path))
    count, shape = 0, ()
    while (frame := capture.read()[1]) is not None:
        count, shape = count + 1, frame.shape
    return count, shape


def test_triptych_is_input_prediction_error() -> None:
    picture = triptych(event(100))[CAPTION:]
    assert picture.shape == (H, 3 * W, 3)
    assert (picture[:, :W] == 100).all()
    assert (picture[:, W : 2 * W] == 105).all()
    assert (picture[:, 2 * W :] == 20).all()  # 4 times the error
    assert not triptych(event(1, due=False))[CAPTION:, W:].any()
    saturated = error_image(np.full((2, 2, 3), 255, np.uint8), np.zeros((2, 2, 3), np.uint8))
    assert (saturated == 255).all()


def test_small_pictures_are_enlarged_until_their_captions_fit() -> None:
    rng = np.random.default_rng()
    real, guess = (rng.integers(0, 256, (24, 64, 3), dtype=np.uint8) for _ in range(2))
    small = Result(Frame(real, 0.0, 0), real, Prediction(guess, 0.04, 1), STAMPS, due=guess, psnr=34.15, psnr_copy=30.0)
    picture = triptych(small)[CAPTION:]
    assert picture.shape == (4 * 24, 3 * 4 * 64, 3)  # 256 pixels, by a whole factor
    assert np.array_equal(picture[::4, :256:4], real)
    assert np.array_equal(picture[3::4, 259:512:4], guess)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi"])
def test_video_holds_every_frame(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "new folder" / f"run{ending}"
    sink = VideoSink(path, 25)
    for i in range(30):
        sink.show(event(i, due=i > 8))
    sink.close()
    sink.close()
    assert count_frames(path) == (30, (H + CAPTION, 3 * W, 3))


@pytest.mark.parametrize(("events", "rows"), [(3, 3), (4, ROWS), (100, ROWS), (1000, ROWS)])
def test_strip_is_spread_over_the_run(tmp_path: Path, events: int, rows: int) -> None:
    sink = StripSink(tmp_path / "strip.png")
    for i in range(events):
        sink.show(event(i * 200 // events, due=True))
    sink.close()
    picture = cv2.imread(str(tmp_path / "strip.png"))
    assert picture is not None
    assert picture.shape == (rows * (H + CAPTION), 3 * W, 3)
    levels = [int(picture[r * (H + CAPTION) + CAPTION, 0, 0]) for r in range(rows)]
    assert levels == sorted(levels)
    if events >= 100:
        assert levels[-1] - levels[0] > 80


def test_a_run_with_nothing_scored_leaves_no_strip(tmp_path: Path) -> None:
    sink = StripSink(tmp_path / "strip.png")
    sink.show(event(0, due=False))
    sink.close()
    assert not (tmp_path / "strip.png").exists()


def test_a_video_keeps_the_time_of_a_camera_that_dropped_frames(tmp_path: Path) -> None:
    path = tmp_path / "run.avi"
    sink = VideoSink(path, 25)
    for i in (0, 1, 2, 10, 11, 1000):  # 7 frames dropped, and then a long halt, cut to 10 s
        sink.show(event(i % 200) if i < 200 else dataclasses.replace(event(7), frame=Frame(event(7).input, i / 25, i)))
    sink.close()
    assert count_frames(path)[0] == 12 + 250 + 1


def test_a_full_disk_is_said_and_what_was_recorded_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.mp4"
    sink = VideoSink(path, 25)
    usage = shutil.disk_usage(tmp_path)
    for i in range(40):
        sink.show(event(i))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))

    def feed() -> None:
        for i in range(40):
            sink.show(event(40 + i))

    with pytest.raises(SinkError, match="is full: less than 16 MB"):
        feed()
    sink.close()
    assert count_frames(path)[0] == 50
    with pytest.raises(SinkError, match="is full"):
        VideoSink(tmp_path / "other.mp4", 25)


def test_a_recording_that_was_killed_can_be_played(tmp_path: Path) -> None:
    path = tmp_path / "run.mkv"
    code = (
        "import sys, time; sys.argv = ['framecast', 'run', 'demo', '--loop', '--record', sys.argv[1]];"
        "from framecast.cli import main; main()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    deadline = time.monotonic() + 120
    while (not path.exists() or path.stat().st_size < 100_000) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert count_frames(path)[0] > 10


def test_bad_paths(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OptionError, match=r"\.mp4, \.mkv, \.avi"):
        VideoSink(tmp_path / "run.gif", 25)
    fifo = tmp_path / "pipe.mp4"
    os.mkfifo(fifo)  # opening it would wait for a reader
    for path in (file / "run.mp4", tmp_path, fifo):
        with pytest.raises((SinkError, OptionError)) as raised:
            VideoSink(path, 25)
        assert "\n" not in str(raised.value)
    with pytest.raises(SinkError, match="choose another path"):
        StripSink(Path("/proc/strip.png"))


class Failing(Sink):
    def __init__(self, after: int) -> None:
        self.shown, self.after, self.closed = 0, after, 0

    def show(self, event: Result) -> None:
        self.shown += 1
        if self.shown > self.after:
            raise SinkError("the disk is full: make room")

    def close(self) -> None:
        self.closed += 1


def test_a_failing_sink_is_raised_where_it_is_fed() -> None:
    sink = Failing(after=3)
    thread = SinkThread(sink)

    def feed() -> None:
        for i in range(10_000):
            thread.show(event(i % 200))

    with pytest.raises(SinkError, match="disk is full"):
        feed()
    thread.close()
    assert sink.closed == 1


def test_a_failure_at_the_end_is_not_lost() -> None:
    thread = SinkThread(Failing(after=0))
    thread.show(event(1))
    with pytest.raises(SinkError, match="disk is full"):
        thread.close()
    thread.close()
