"""The wall clock is set in mid-stream, and the machine is suspended: a run goes by its own clock."""

from __future__ import annotations

import os
import re
import time
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import framecast
from framecast.camera import Frame, Image, Source
from framecast.camera.decoder import Decoder
from framecast.camera.live import LiveSource
from framecast.camera.network import StreamCapture
from framecast.camera.pictures import Pictures
from framecast.camera.reconnect import Reconnecting
from framecast.cli import saved
from framecast.clock import SUSPENDED, SYSTEM, Clock
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.report import Report
from framecast.runtime.sinks.health import PATIENCE, Pulse, since_boot
from framecast.runtime.sinks.recorded import takes
from framecast.runtime.sinks.sink import Result
from framecast.runtime.sinks.video import VideoSink
from framecast.testing import STAMPS, DriftEngine, ListSource, ManualClock, VirtualClock

HOUR, YEAR = 3600.0, 365 * 86400.0
JUMPS = (HOUR, -HOUR, 10 * YEAR, -10 * YEAR, 30.0, -30.0)
ROOMS = ("bench", "camera", "evaluation", "export", "graph", "models", "runtime", "training", "src/framecast/cli")

# Which modules ask for the wall clock's time, and what for.
ASK = {
    "bench/machine.py": "a benchmark's date",
    "camera/network.py": "RTCP, which tells the wall clock's time",
    "export/plugins/candidates.py": "an engine's date",
    "export/tensorrt.py": "an engine's date",
    "runtime/engines/tensorrt/cache.py": "removing half-written files of an hour ago",
    "runtime/sinks/recorded.py": "names of files",
    "runtime/telemetry.py": "when the run began",
}


ASKED = re.compile(
    r"\b(time|wall)\.(time|time_ns|strftime|localtime|gmtime|ctime)\(|\b(datetime|date)\.(now|utcnow|today)\("
)


def test_few_modules_ask_for_the_wall_clock() -> None:
    root = Path(__file__).parents[2]
    modules = [path for room in ROOMS for path in (root / room).rglob("*.py")]
    assert {path.relative_to(root).as_posix() for path in modules if ASKED.search(path.read_text())} == {*ASK}


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that is set at every look."""
    begun, looks = time.time(), count()
    monkeypatch.setattr(time, "time", lambda: begun + JUMPS[next(looks) % len(JUMPS)])


def moving(clock: Clock, frames: int = 30) -> ListSource:
    wide = np.random.default_rng(3).integers(0, 256, (24, 32 + frames, 3), np.uint8)
    begun = clock.now()
    pictures = (wide[:, k : k + 32].copy() for k in range(frames))
    return ListSource(
        [Frame(picture, begun + k / 25, k) for k, picture in enumerate(pictures)], live=True, gap=0.04, clock=clock
    )


def recorded(folder: Path) -> tuple[Report, int]:
    """The report of a run on a virtual clock, and its segments."""
    clock = VirtualClock()
    report = framecast.run(
        moving(clock), engine="opencv", record=folder / "run.avi", segment=1, conceal=0.5, clock=clock
    )
    for path in takes(folder / "run.avi"):
        path[0].unlink()
    return report, cast(Any, report)["outputs"][0]["files"]


def test_a_wall_clock_that_jumps_changes_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    steady, files = recorded(tmp_path)
    request.getfixturevalue("jumping")
    jumped, same = recorded(tmp_path)
    for report in cast("tuple[dict[str, Any], ...]", (steady, jumped)):
        del report["started"], report["outputs"], report["psnr_db"]["dis"]  # DIS takes real time
    assert jumped == steady
    assert same == files == 2


def test_the_report_is_written_on_time(tmp_path: Path, jumping: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "EVERY", 0.01)
    path = tmp_path / "run.json"
    with saved.SavedReport(path) as report:
        report.put(cast(Report, {"frames": 1}))
        while not path.exists():
            time.sleep(0.005)
        path.unlink()
        while not path.exists():
            time.sleep(0.005)


class Sender:
    """A camera at 10 frames a second that tells when it captured each frame, 0.2 s ago; a wall clock beside it.

    Attributes:
        wall: seconds by which the wall clock here is ahead of the run's clock.
        own: the same for the camera's clock.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = ManualClock()
        self.clock.time = 1000.0
        self.wall = self.own = 1.7e9
        monkeypatch.setattr(time, "time", lambda: self.clock.time + self.wall)
        capture = StreamCapture(cast(Decoder, self), cast(Pictures, self), self.clock, sender_clock=True)
        self.source = LiveSource("camera", capture, 10.0, cure="", clock=self.clock)
        self.pixel_aspect = 1.0

    def read(self) -> object:
        self.clock.work(100)
        return SimpleNamespace()

    def captured(self, frame: object) -> float:
        return self.clock.time - 0.2 + self.own

    def picture(self, frame: object, aspect: float) -> Image:
        return np.zeros((4, 4, 3), np.uint8)

    def close(self) -> None:
        pass

    def ages(self, frames: int = 3) -> list[tuple[float, str]]:
        """The ages of the next frames, and what their times are."""
        found: list[tuple[float, str]] = []
        for _ in range(frames):
            frame = self.source.read()
            assert frame
            found.append((round(self.clock.time - frame.time, 6), self.source.times))
        return found


STEADY = [(0.2, "capture")] * 3


def test_capture_times_outlive_a_wall_clock_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender(monkeypatch)
    assert sender.ages() == STEADY
    for jump in (*JUMPS, *[30.0] * 5):
        sender.wall += jump
        assert sender.ages() == STEADY
    sender.own += sum(JUMPS) + 5 * 30.0  # the camera follows
    assert sender.ages() == STEADY


def test_a_clock_that_is_wrong_at_first_is_believed_once_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender(monkeypatch)
    sender.wall = 0.0  # no NTP yet
    assert sender.ages() == [(0.0, "arrival")] * 3
    sender.wall = 1.7e9
    assert sender.ages(6)[-1] == (0.2, "capture")


@pytest.mark.parametrize("jump", JUMPS)
def test_a_camera_whose_clock_is_set_is_not_believed(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender(monkeypatch)
    sender.ages()
    sender.own += jump
    assert sender.ages() == [(0.0, "arrival")] * 3
    sender.own -= jump
    assert sender.ages(8)[-1] == (0.2, "capture")


def test_a_small_correction_is_followed_and_times_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender(monkeypatch)
    sender.ages()
    sender.wall += 0.5  # by NTP, say: the frames are older than they seemed
    ages = sender.ages(20)
    assert ages[-1] == (0.7, "capture")
    assert all(later - before < 0.1 for (before, _), (later, _) in pairwise(ages))


def test_a_suspension_ends_a_connection() -> None:
    """The frame that is read after it may have waited in a buffer since before."""
    clock = ManualClock()
    pictures = [Frame(np.full((4, 4, 3), k, np.uint8), k / 25, k) for k in range(4)]
    first, second = (ListSource(pictures, live=True, name="cam") for _ in range(2))
    source = Reconnecting("cam", lambda: second, first, clock=clock)
    assert source.read() is not None
    clock.suspended += SUSPENDED / 2  # too short to matter
    frame = source.read()
    assert frame
    assert (frame.epoch, frame.index) == (0, 1)
    clock.suspended += 8 * HOUR
    frame = source.read()
    assert frame
    assert (frame.epoch, frame.index, frame.image.max()) == (1, 2, 0)
    assert first.closed
    assert source.faults == {"reconnects": 1}
    assert source.read() is not None


class Napping(Source):
    """A camera, seen by a machine that is suspended before its fifth frame."""

    live, fps, name = True, 25.0, "cam"

    def __init__(self, clock: VirtualClock) -> None:
        self._clock, self._frames = clock, iter(moving(clock, 10))

    def read(self) -> Frame | None:
        self._clock.wait_until(self._clock.now() + 0.04)
        frame = next(self._frames, None)
        self._clock.suspended += HOUR if frame and frame.index == 5 else 0.0
        return frame

    def close(self) -> None:
        pass


def test_a_suspension_is_a_gap_for_any_camera() -> None:
    clock = VirtualClock()
    pipeline = Pipeline(Napping(clock), Predictor(DriftEngine()), rival=False, clock=clock)
    results = list(pipeline)
    assert [result.frame.epoch for result in results] == [0] * 5 + [1] * 5
    assert pipeline.report()["epochs"] == 2
    assert min(result.stamps.latency for result in results) >= 0


def test_after_a_suspension_a_run_is_not_ready() -> None:
    clock = ManualClock()
    pulse = Pulse(lambda: clock.now() + clock.slept())
    pulse.see(shown(0.0))
    assert pulse.failing({}) is None
    clock.suspended += PATIENCE + 1
    assert pulse.failing({}) == "no new prediction for 4.0 s"
    assert Pulse()._clock is since_boot


def test_the_machine_tells_how_long_it_was_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = SYSTEM.slept()
    assert slept >= -0.01
    assert SYSTEM.slept() == pytest.approx(slept, abs=0.05)
    assert since_boot() == pytest.approx(SYSTEM.now() + slept, abs=1.0)
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)  # as on macOS
    assert SYSTEM.slept() == 0.0


def shown(at: float) -> Result:
    real = np.random.default_rng(int(10 * at)).integers(0, 256, (48, 64, 3), np.uint8)
    return Result(Frame(real, at, int(10 * at)), real, framecast.Prediction(real, at, 0.0), STAMPS)


def test_segments_go_in_their_order_although_the_clock_runs_backwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(f"20260101-{59 - k:06}" for k in range(60))
    monkeypatch.setattr(time, "strftime", lambda form: next(names))
    sink = VideoSink(tmp_path / "run.avi", 10, segment=1, keep=1e6)
    files = [Path(sink.written()["to"])]
    for i in range(120):
        sink.show(shown(i / 10))
        newest = Path(sink.written()["to"])
        if newest != files[-1]:
            os.utime(files[-1], (10**9 - 1000 * i, 10**9 - 1000 * i))
            files.append(newest)
    sink.close()
    left = [file.exists() for file in files]
    assert 1 < sum(left) < len(left)
    assert left == sorted(left)  # the oldest are gone
