"""Reconnections and runs leave nothing behind: no descriptor, thread, process or object."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import psutil
import pytest

import framecast
from framecast.camera import open_source
from framecast.camera.reconnect import Reconnecting
from framecast.testing import ManualClock, shades

from .. import mjpeg  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

JPEGS = [cv2.imencode(".jpg", shade.image)[1].tobytes() for shade in shades(3, size=(48, 64))]
OF_A_CONNECTION = ("LiveSource", "StreamCapture", "Decoder", "Pictures", "InputContainer", "VideoStream", "VideoFrame")
OF_A_RUN = (
    *("Pipeline", "Predictor", "Stepper", "Capture", "Mailbox", "Telemetry", "Judge", "State", "Watchdog"),
    *("WebSink", "Connections", "Application", "VideoSink", "Recorded", "SinkThread", "InferenceSession"),
)


@pytest.fixture
def camera() -> Iterator[str]:
    """A camera that sends three pictures, and ends."""
    with mjpeg.camera(JPEGS) as address:
        yield address


def held() -> tuple[int, int, int]:
    """Descriptors, threads (those of libraries as well) and child processes."""
    process = psutil.Process()
    return process.num_fds(), process.num_threads(), len(process.children())


def objects(names: tuple[str, ...]) -> Counter[str]:
    """How many objects of these classes exist."""
    gc.collect()
    return Counter(name for one in gc.get_objects() if (name := type(one).__name__) in names)


def settled(before: tuple[int, int, int]) -> bool:
    """Whether no more is held than before; a thread that has just ended may still be counted."""
    deadline = time.monotonic() + 20
    while not all(now <= then for now, then in zip(held(), before, strict=True)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return all(now <= then for now, then in zip(held(), before, strict=True))


def test_reconnections_keep_nothing(camera: str) -> None:
    """With PyAV's real handles. They are closed when the connection is lost, not when somebody collects garbage."""
    clock = ManualClock()
    opened = partial(open_source, camera, reconnect=False)
    with Reconnecting("cam", opened, opened(), clock=clock) as source:

        def outages(count: int) -> None:
            until = source.faults.get("reconnects", 0) + count
            while source.faults.get("reconnects", 0) < until:
                assert source.read() is not None

        outages(5)
        before, known = held(), objects(OF_A_CONNECTION)
        gc.disable()
        try:
            outages(30)
            assert settled(before), (held(), before)
        finally:
            gc.enable()
        assert objects(OF_A_CONNECTION) == known
        assert known["LiveSource"] == 1


def test_runs_keep_nothing(tmp_path: Path) -> None:
    """With page, recording, engine and watchdog."""

    def run() -> None:
        report = framecast.run(
            "synthetic://?size=64x48&frames=12&fps=100",
            record=tmp_path / "run.mkv",
            serve="127.0.0.1:0",
            threads=1,
        )
        assert report["ended"] == "end of source"

    run()
    before, known = held(), objects(OF_A_RUN)
    for _ in range(3):
        run()
    assert settled(before), (held(), before)
    assert objects(OF_A_RUN) == known  # other tests may have left some
