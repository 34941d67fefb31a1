"""Outputs that are lost are tried again while the run goes on: receivers, and recordings on a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import framecast
from framecast import files
from framecast.camera import Frame
from framecast.errors import SinkError, SinkUnavailableError
from framecast.runtime.caveats import lacking
from framecast.runtime.predictor import Prediction
from framecast.runtime.sinks.apart import ApartSink
from framecast.runtime.sinks.out import answers
from framecast.runtime.sinks.recorded import has_room
from framecast.runtime.sinks.recovering import Recovering
from framecast.runtime.sinks.sink import Output, Result, Sink
from framecast.runtime.sinks.video import VideoSink
from framecast.testing import STAMPS, ListSource, ManualClock, VirtualClock, shades

from ..probing import probed  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

GONE = SinkError("lost rtsp://tv: what received the pictures has ended (start it again)")
OFF = SinkUnavailableError("cannot send pictures to rtsp://tv: connection refused")


def result(i: int = 0) -> Result:
    image = np.full((24, 32, 3), i % 256, np.uint8)
    return Result(Frame(image, i / 25, i), image, Prediction(image, i / 25, 0.0), STAMPS)


class Receiver(Sink):
    """Takes as many pictures, then fails with an error."""

    def __init__(self, takes: int, error: SinkError = GONE) -> None:
        self._left, self._error = takes, error
        self.taken = 0
        self.closed = False

    def show(self, result: Result) -> None:
        if self.taken == self._left:
            raise self._error
        self.taken += 1

    def written(self) -> Output:
        files = int(self.taken > 0)
        return Output(asked="tv", to="tv", codec="H.264", files=files, removed=0, lost=0, missed=0, trouble=None)

    def close(self) -> None:
        self.closed = True


def opener(*answers: Sink | SinkError) -> tuple[Callable[[], Sink], list[Sink | SinkError]]:
    rest = list(answers)

    def open_sink() -> Sink:
        answer = rest.pop(0)
        if isinstance(answer, SinkError):
            raise answer
        return answer

    return open_sink, rest


def test_a_lost_output_is_tried_again_with_growing_waits() -> None:
    clock = ManualClock()
    first, second, third = Receiver(3), Receiver(0, OFF), Receiver(10)
    open_sink, rest = opener(first, OFF, second, third)
    sink = Recovering("tv", open_sink, clock=clock, seed=1)
    for i in range(40):
        sink.show(result(i))
        clock.wait_until(clock.now() + 0.04)
        if i == 3:
            lost = sink.written()
        if third.taken == 5:
            break
    assert lost["trouble"] == str(GONE)
    assert lost["lost"] == 1
    assert first.closed
    assert second.closed
    assert not rest
    found = sink.written()
    assert (found["files"], found["lost"], found["trouble"]) == (2, 1, None)
    assert found["missed"] == i + 1 - 3 - 5
    assert found["missed"] > 2  # it waited
    assert lacking([found]) == [f"tv was lost once: {found['missed']} pictures are missing"]
    sink.close()


def test_an_output_that_is_off_at_first_is_waited_for_and_one_that_is_wrong_is_refused() -> None:
    clock, good = ManualClock(), Receiver(9)
    open_sink, _ = opener(OFF, good)
    sink = Recovering("tv", open_sink, clock=clock)
    assert sink.written()["trouble"] == str(OFF)
    sink.show(result())
    assert good.taken == 1
    wrong = SinkError("no device /dev/video99")
    with pytest.raises(SinkError, match="no device"):
        Recovering("tv", opener(wrong)[0], clock=clock)
    with pytest.raises(SinkError, match="no device"):
        Recovering("tv", opener(Receiver(0, wrong))[0], clock=clock).show(result())


def test_an_output_that_is_lost_at_the_end_fails() -> None:
    sink = Recovering("tv", opener(Receiver(1), *[OFF] * 9)[0], clock=ManualClock())
    sink.show(result())
    sink.show(result())
    with pytest.raises(SinkError, match="lost rtsp://tv"):
        sink.close()


def test_a_receiver_whose_failure_took_long_is_asked_first() -> None:
    clock, took = ManualClock(), list[float]()

    class Mute(Receiver):
        def show(self, result: Result) -> None:
            clock.wait_until(clock.now() + 5)
            super().show(result)

    def ready(seconds: float) -> bool:
        took.append(seconds)
        return len(took) != 2

    open_sink, rest = opener(Receiver(1), Mute(0), Receiver(9))
    sink = Recovering("tv", open_sink, ready=ready, clock=clock)
    while rest:
        sink.show(result())
        clock.wait_until(clock.now() + 0.04)
    assert took == pytest.approx([0, 5, 5])
    assert sink.written()["files"] == 2


def test_a_full_disk_stops_a_cameras_recording_but_not_its_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process fills the disk and makes room again: the first file plays, and a second one begins."""
    free, real_write = [1 << 40], os.write

    def write(file: int, data: bytes) -> int:
        if not free[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(file, data)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[0]))
    path, clock = tmp_path / "run.mkv", ManualClock()
    sink = Recovering(str(path), lambda: VideoSink(path, 25), ready=lambda took: has_room(path), clock=clock)
    for i in range(200):
        free[0] = 0 if 30 <= i < 90 else 3 * files.RESERVE
        sink.show(result(i))
        clock.wait_until(clock.now() + 0.04)
    sink.close()
    found = sink.written()
    assert (found["lost"], found["files"], found["trouble"]) == (1, 2, None)
    assert 30 <= found["missed"] < 100  # noticed within a second; tried again within one
    recordings = sorted(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    frames = [len(probed(file)["frames"]) for file in recordings]
    assert sum(frames) >= 200 - found["missed"] - 13  # less than the last half second before the disk was full


def test_a_full_disk_at_the_start_does_not_stop_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    lines: list[str] = []
    reports: list[framecast.runtime.report.Report] = []
    clock = VirtualClock()
    source = ListSource(shades(30, size=(24, 32)), live=True, fps=25.0, gap=0.04, clock=clock)
    with pytest.raises(SinkError, match="is full: less than 16 MB free"):
        framecast.run(source, record=tmp_path / "run.mkv", announce=lines.append, observe=reports.append, clock=clock)
    assert reports[-1]["frames"] == 30
    assert reports[-1]["outputs"][0]["missed"] == 30
    assert lines[0].startswith("the disk of ")
    assert lines[0].endswith(": trying again")
    with pytest.raises(SinkError, match="is full"):  # a clip has nobody who waits
        framecast.run("demo", record=tmp_path / "run.mkv", frames=3)


def test_what_serves_but_says_nothing_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framecast.runtime.sinks.out.SLOW", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"rtsp://127.0.0.1:{server.getsockname()[1]}/now"
        assert not answers(url)

        def speak() -> None:
            server.accept()[0].close()  # the one of before
            with server.accept()[0] as connection:
                connection.recv(100)
                connection.sendall(b"RTSP/1.0 200 OK\r\n\r\n")

        speaker = threading.Thread(target=speak)
        speaker.start()
        monkeypatch.setattr("framecast.runtime.sinks.out.SLOW", 30.0)
        assert answers(url)
        speaker.join()
    assert answers(url)  # refused: FFmpeg tells why
    assert answers("udp://127.0.0.1:5000")


def test_a_sender_outlives_the_signal_that_ends_the_run() -> None:
    sink = ApartSink("udp://127.0.0.1:9", 25)
    sink.show(result(0))
    sink._process.send_signal(signal.SIGTERM)
    sink.show(result(1))
    written = sink.written()
    assert written is not None
    assert (written["codec"], written["files"]) == ("H.264", 1)
    sink.close()
    sink.close()
    assert sink._process.returncode is not None


def test_a_receiver_that_drips_stops_only_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """This thread drips while the sink's waits: it could not if FFmpeg's wait kept Python's lock."""
    monkeypatch.setattr("framecast.runtime.sinks.apart.LONGEST", 1.0)
    failures: list[Exception] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = ApartSink(f"rtsp://u:s3cret@127.0.0.1:{server.getsockname()[1]}/now", 25)

        def send() -> None:
            try:
                sink.show(result())
            except SinkError as error:
                failures.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        drips = 0
        with server.accept()[0] as connection, contextlib.suppress(OSError):
            while sender.is_alive():
                connection.sendall(b"R")
                drips += 1
                time.sleep(0.05)
        sender.join()
    assert drips > 3
    assert isinstance(failures[0], SinkUnavailableError)
    assert str(failures[0]).startswith("lost rtsp://***@127.0.0.1:")
    assert "no answer for 1 s" in str(failures[0])
    sink.close()
