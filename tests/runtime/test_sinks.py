"""Sinks: recordings are complete and playable, also after a failure."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from framecast.camera import Frame
from framecast.clock import SystemClock
from framecast.errors import OptionError, SinkError
from framecast.runtime.predictor import Prediction
from framecast.runtime.sinks.picture import CAPTION, GAP, error_image, fit, letterboxed, now_and_late, scored_moment
from framecast.runtime.sinks.sink import Result, Sink
from framecast.runtime.sinks.strip import FOOT, HEAD, ROWS, StripSink
from framecast.runtime.sinks.thread import SinkThread
from framecast.runtime.sinks.video import VideoSink
from framecast.testing import STAMPS

H, W = 270, 360  # too wide to be enlarged, and too small to be shrunk


MOMENT = (2 * (H + CAPTION), 2 * W + GAP, 3)  # the shape of a recorded picture


def event(i: int, *, due: bool = True, psnr_copy: float = 30.0, size: tuple[int, int] = (H, W)) -> Result:
    real, guess, old = (np.full((*size, 3), level, np.uint8) for level in (i, i + 5, i + 10))
    frame = Frame(real, i / 25, i)
    scores: dict[str, Any] = {"due": guess, "late": old, "psnr": 34.15, "psnr_copy": psnr_copy} if due else {}
    return Result(frame, real, Prediction(guess, (i + 4) / 25, 0.16), STAMPS, **scores)


def count_frames(path: Path) -> tuple[int, tuple[int, ...]]:
    capture = cv2.VideoCapture(str(path))
    count, shape = 0, ()
    while (frame := capture.read()[1]) is not None:
        count, shape = count + 1, frame.shape
    return count, shape


def quarters(picture: np.ndarray) -> list[np.ndarray]:
    """The four parts of a recorded picture, without captions and gaps."""
    height, width = (picture.shape[0] // 2, (picture.shape[1] - GAP) // 2)
    rows, columns = (CAPTION, height + CAPTION), (0, width + GAP)
    return [picture[top : top + height - CAPTION, left : left + width] for top in rows for left in columns]


def test_a_recorded_moment_is_late_now_real_and_error() -> None:
    picture = scored_moment(event(100))
    assert picture.shape == MOMENT
    assert [set(part.flat) for part in quarters(picture)] == [{110}, {105}, {100}, {10}]  # twice the error
    assert [part.any() for part in quarters(scored_moment(event(1, due=False)))] == [False, False, True, False]
    saturated = error_image(np.full((2, 2, 3), 255, np.uint8), np.zeros((2, 2, 3), np.uint8))
    assert (saturated == 255).all()


def test_a_window_shows_one_moment_late_and_now() -> None:
    picture = now_and_late(event(100))
    assert picture.shape == (H + CAPTION, 2 * W + GAP, 3)
    assert (picture[CAPTION:, :W] == 100).all()
    assert (picture[CAPTION:, W + GAP :] == 105).all()


def test_small_pictures_are_enlarged_until_their_captions_fit() -> None:
    rng = np.random.default_rng()
    real, guess = (rng.integers(0, 256, (24, 64, 3), dtype=np.uint8) for _ in range(2))
    small = Result(Frame(real, 0.0, 0), real, Prediction(guess, 0.04, 0.04), STAMPS, guess, real, 34.15, 30.0)
    late, due, _, _ = quarters(scored_moment(small))
    assert late.shape == (5 * 24, 5 * 64, 3)  # 320 pixels, by a whole factor
    assert np.array_equal(late[::5, ::5], real)
    assert np.array_equal(due[4::5, 4::5], guess)


@pytest.mark.parametrize("size", [(2160, 3840), (1920, 1080), (720, 1280)])
def test_large_pictures_are_shrunk(size: tuple[int, int]) -> None:
    parts = quarters(scored_moment(event(100, size=size)))
    assert {max(part.shape) for part in parts} == {640}
    assert {round(part.shape[1] / part.shape[0], 2) for part in parts} == {round(size[1] / size[0], 2)}
    assert max(fit(np.zeros((*size, 3), np.uint8), 10_000).shape) == max(size)


def test_a_picture_of_another_size_is_letterboxed() -> None:
    picture = letterboxed(np.full((100, 50, 3), 200, np.uint8), (60, 90, 3))
    assert picture.shape == (60, 90, 3)
    assert (picture[:, 30:60] == 200).all()
    assert (picture[:, :30] < 30).all()


def test_a_video_continues_when_the_frame_size_changes(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "run.avi", 25)
    for i in range(20):
        sink.show(event(i, size=(H, W) if i < 10 else (720, 1280)))
    sink.close()
    assert count_frames(tmp_path / "run.avi") == (20, MOMENT)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi"])
def test_video_holds_every_frame(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "new folder" / f"run{ending}"
    sink = VideoSink(path, 25)
    for i in range(30):
        sink.show(event(i, due=i > 8))
    sink.close()
    sink.close()
    assert count_frames(path) == (30, MOMENT)


def strip_rows(path: Path) -> list[np.ndarray]:
    """The rows of a strip without heading and captions: late, now, truth, and two errors."""
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape[1] == 5 * W + 4 * GAP
    count, rest = divmod(picture.shape[0] - HEAD, H + FOOT)
    assert rest == 0
    return [picture[HEAD + row * (H + FOOT) :][:H] for row in range(count)]


@pytest.mark.parametrize(("events", "rows"), [(3, 3), (4, ROWS), (7, ROWS), (9, ROWS), (100, ROWS), (1000, ROWS)])
def test_strip_is_spread_over_the_run(tmp_path: Path, events: int, rows: int) -> None:
    sink = StripSink(tmp_path / "strip.png")
    for i in range(events):
        sink.show(event(i * 200 // events))
    sink.close()
    levels = [int(row[0, 2 * (W + GAP), 0]) for row in strip_rows(tmp_path / "strip.png")]
    assert len(levels) == rows
    assert levels == sorted(levels)
    if events >= 100:
        assert levels[-1] - levels[0] > 80


def test_strip_shows_the_moments_that_move_most(tmp_path: Path) -> None:
    sink = StripSink(tmp_path / "strip.png")
    moving = {13, 60, 88, 127}  # one in each quarter of the run
    for i in range(128):
        sink.show(event(i, psnr_copy=20.0 + i / 100 if i in moving else 35.0))
    sink.close()
    rows = strip_rows(tmp_path / "strip.png")
    columns = [[int(row[H // 2, column * (W + GAP) + W // 2, 0]) for column in range(5)] for row in rows]
    assert columns == [[i + 10, i + 5, i, 20, 10] for i in sorted(moving)]


def test_strip_shows_no_moment_twice(tmp_path: Path) -> None:
    sink = StripSink(tmp_path / "strip.png")
    for i in range(128):
        sink.show(event(i, psnr_copy=20.0 if i in (63, 64) else 30.0 if i == 90 else 35.0))
    sink.close()
    levels = [int(row[0, 2 * (W + GAP), 0]) for row in strip_rows(tmp_path / "strip.png")]
    assert levels[1:3] == [63, 90]


def test_strip_survives_a_change_of_size(tmp_path: Path) -> None:
    sink = StripSink(tmp_path / "strip.png")
    for i in range(8):
        sink.show(event(i, size=(H, W) if i < 4 else (1080, 1920)))
    sink.close()
    assert len(strip_rows(tmp_path / "strip.png")) == ROWS


def test_a_run_with_nothing_scored_leaves_no_strip(tmp_path: Path) -> None:
    sink = StripSink(tmp_path / "strip.png")
    sink.show(event(0, due=False))
    sink.close()
    assert not (tmp_path / "strip.png").exists()


def test_a_full_disk_is_reported_and_the_recording_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.mp4"
    sink = VideoSink(path, 25)
    usage = shutil.disk_usage(tmp_path)
    for i in range(40):
        sink.show(event(i))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))

    def feed() -> None:
        for i in range(40):
            sink.show(event(40 + i))

    with pytest.raises(SinkError, match=r"is full: less than 16 MB free \(make room for 32 MB,"):
        feed()
    sink.close()
    assert count_frames(path)[0] == 50
    with pytest.raises(SinkError, match="is full"):
        VideoSink(tmp_path / "other.mp4", 25)


def test_bad_paths(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OptionError, match=r"\.mp4, \.mkv, \.webm, \.avi"):
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


def test_a_sinks_error_is_raised_in_the_thread_that_feeds_it() -> None:
    sink = Failing(after=3)
    thread = SinkThread(sink)

    def feed() -> None:
        for i in range(10_000):
            thread.show(event(i % 200))

    with pytest.raises(SinkError, match="disk is full"):
        feed()
    thread.close()
    assert sink.closed == 1


def test_a_sink_that_hangs_is_lost_and_the_run_can_end() -> None:
    class Later(SystemClock):
        passed = 0.0

        def now(self) -> float:
            return super().now() + self.passed

    clock, hangs = Later(), threading.Event()

    class Hanging(Failing):
        def show(self, event: Result) -> None:
            hangs.wait()

    thread = SinkThread(Hanging(after=0), clock, newest=True, patience=5.0)
    thread.show(event(1))
    while thread._begun is None:
        time.sleep(0.001)
    thread.show(event(2))
    clock.passed = 6.0
    with pytest.raises(SinkError, match=r"lost Hanging: no answer for 5 s \(check what receives it"):
        thread.show(event(3))
    thread.close()  # neither waits nor raises again
    hangs.set()


@pytest.mark.parametrize("newest", [True, False])
def test_a_sink_that_takes_nothing_cannot_keep_the_user_from_ending_the_run(
    newest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framecast.runtime.sinks.thread.LEAVING", 0.01)
    monkeypatch.setattr("framecast.runtime.sinks.thread.LOOK", 0.01)
    goes_on, left, taken = threading.Event(), threading.Event(), []

    class Paused(Failing):
        def show(self, event: Result) -> None:
            taken.append(event)
            goes_on.wait()

    thread = SinkThread(Paused(after=0), newest=newest, leaving=left.is_set)
    threading.Timer(0.1, left.set).start()
    while not left.is_set():
        thread.show(event(1))  # a file waits here, and a camera does not
    thread.close()
    thread.close()
    goes_on.set()
    thread._thread.join()
    assert len(taken) == 1  # the reader that comes back gets no more
    patient = SinkThread(Paused(after=0), newest=newest, leaving=lambda: False)
    for _ in range(3):
        patient.show(event(1))
    patient.close()
    assert len(taken) > 1


def test_a_failure_at_the_end_is_not_lost() -> None:
    thread = SinkThread(Failing(after=0))
    thread.show(event(1))
    with pytest.raises(SinkError, match="disk is full"):
        thread.close()
    thread.close()
