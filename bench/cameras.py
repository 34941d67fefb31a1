"""Finds how many cameras one machine can handle: adds streams until predictions fall behind the frames.

This is what ``framecast run`` does with several cameras: each has threads to capture and to predict, and all have one
engine (:class:`framecast.runtime.engines.batched.Shared`), whose weights are in memory once. Its steps take the frames
of several cameras together where a measurement says that this is faster.
The frames of all cameras are due at the same moments, as if the cameras were genlocked. This is the worst case, and it
is repeatable.

The machine can handle a number of cameras if the p99 of each camera's corrected latency (``stream.py``) is within the
frame interval. A p99 over all cameras together would hide a camera that starves.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from framecast.bench.loop import FrameTimes, Loop, Scheduled, check, frames_of, read_frames, warm
from framecast.bench.stream import Figures, figures
from framecast.bench.summary import TAIL
from framecast.camera import Image, open_source
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError
from framecast.runtime.engines import Engine
from framecast.runtime.engines.batched import Shared
from framecast.runtime.predictor import Predictor

START = 0.2  # seconds from a run's start until its first frames are due, so that its threads can start


@dataclass(frozen=True)
class CameraRun:
    """A run with several cameras at once. Latencies are corrected, in milliseconds, and those of the slowest camera.

    Attributes:
        cameras: number of cameras.
        p50: the largest median of any camera.
        p99: the largest 99th percentile of any camera.
        n: samples per camera.
        dropped: share of all cameras' frames that were dropped.
        cores: CPU time of the process divided by wall time.
        batches: how many steps ran with so many cameras' frames, by that number; empty without a shared engine.
        resident_mb: memory of the process at the end of the run, with everything that earlier runs needed.
    """

    cameras: int
    p50: float
    p99: float
    n: int
    dropped: float
    cores: float
    batches: dict[str, int]
    resident_mb: float

    def row(self, interval_ms: float) -> tuple[str, str]:
        """Return a table row: the label and the figures. A p99 from too few samples has a question mark."""
        doubtful = "?" if self.n < 100 * TAIL else ""
        return (
            f"  {self.cameras} {'camera' if self.cameras == 1 else 'cameras'}, due → sink (corrected), ms",
            f"p50 {self.p50:.2f}  p99 {self.p99:.2f}{doubtful} of {interval_ms:.2f}  (n {self.n} each); "
            f"{self.dropped:.1%} dropped, {self.cores:.2f} cores, {self.resident_mb:.0f} MB",
        )


@dataclass(frozen=True)
class Cameras:
    """The number of cameras that the machine can handle, and every run of the search for it.

    Attributes:
        carried: the largest number that the machine can handle; 0 if it cannot handle one.
        limit: the largest number that was allowed.
        fps: frames per second of each camera.
        interval_ms: time between two frames; no camera's p99 may exceed it.
        runs: in the order of the number of cameras.
        engines: how many engines were opened: one for all cameras, or one each if it holds no weights.
    """

    carried: int
    limit: int
    fps: float
    interval_ms: float
    runs: tuple[CameraRun, ...]
    engines: int

    @property
    def camera_mb(self) -> float:
        """Memory that each further camera took in this process: a state and buffers, and an engine if it has its own.

        0 if there was only one run.
        """
        few, many = self.runs[0], self.runs[-1]
        return (many.resident_mb - few.resident_mb) / max(1, many.cameras - few.cameras)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return {**asdict(self), "camera_mb": self.camera_mb}

    def rows(self) -> list[tuple[str, str]]:
        """Return table rows, each a label and a value."""
        more = " or more" if self.carried == self.limit else ""
        shared = "one engine for all" if self.engines == 1 else "one engine each"
        head = [("cameras handled", f"{self.carried}{more} at {self.fps:g} frames a second each, {shared}")]
        if len(self.runs) > 1:
            head.append(("memory of each further camera", f"{self.camera_mb:.1f} MB, with its threads"))
        return [*head, *(run.row(self.interval_ms) for run in self.runs)]


def carry(
    open_engine: Callable[[], Engine],
    source: str,
    *,
    fps: float | None,
    seconds: float,
    ahead: float | None = None,
    limit: int = 16,
    clock: Clock = SYSTEM,
) -> Cameras:
    """Find how many cameras the machine can handle: try 1, 2, 4, … until there are too many, then bisect.

    The search assumes that more cameras never run better than fewer. Each number runs once. Near the limit, another
    run may find one camera more or less.

    Args:
        open_engine: opens an engine; this function closes it.
        source: the clip that every camera shows.
        fps: frames per second of each camera; None for the clip's own rate.
        seconds: how long each run counts frames.
        ahead: how many seconds ahead each camera's predictor predicts (default: one frame).
        limit: the largest number of cameras to try.
        clock: measures the time.

    Raises:
        OptionError: a rate, a duration or the limit is out of range; or the source is a camera, not a clip.
        SourceError: the source cannot be opened.
        EngineError: an engine failed.
    """
    check(fps, seconds)
    if limit < 1:
        raise OptionError(f"limit must be at least 1 camera, not {limit}")
    with open_source(source) as opened:
        rate = fps or opened.fps
        if opened.live or rate is None:
            raise OptionError(f"cannot simulate several cameras with {opened.name}: it is one camera; name a clip")
        images = read_frames(opened)
    runs: dict[int, CameraRun] = {}
    with ExitStack() as stack:
        engines = Shared(open_engine, clock=clock)
        stack.callback(engines.close)
        predictors: list[Predictor] = []

        def carried(count: int) -> bool:
            while len(predictors) < count:
                predictors.append(Predictor(stack.enter_context(engines.seat()), clock=clock))
                warm(predictors[-1], images[0])
            engines.measure(count)
            before = _batches(engines)
            every = play(predictors[:count], images, rate, seconds, ahead, clock)
            runs[count] = _summed(every, _batches(engines) - before)
            return runs[count].p99 <= 1e3 / rate

        most = search(carried, limit)
    return Cameras(most, limit, rate, 1e3 / rate, tuple(runs[count] for count in sorted(runs)), engines.opened)


def search(passes: Callable[[int], bool], limit: int) -> int:
    """Return the largest count up to ``limit`` that passes, or 0. All counts below a passing one must pass too."""
    low, high, count = 0, limit + 1, 1
    while high - low > 1:
        if passes(count):
            low = count
        else:
            high = count
        count = min(2 * low, limit) if high > limit else (low + high) // 2
    return low


def play(
    predictors: list[Predictor],
    images: list[Image],
    fps: float,
    seconds: float,
    ahead: float | None,
    clock: Clock,
    start: float | None = None,
) -> list[Figures]:
    """Run one camera per predictor, each in its own thread.

    Args:
        predictors: the cameras' own, warmed up.
        images: what every camera shows, again and again.
        fps: frames per second of each camera.
        seconds: how long to count frames.
        ahead: how many seconds ahead to predict; None for one frame.
        clock: measures the time.
        start: when the first frames are due, by ``clock`` (default: soon).

    Returns:
        Each camera's figures.

    Raises:
        EngineError: an engine failed.
    """
    start = clock.now() + START if start is None else start
    count = frames_of(fps, seconds)
    loops = [
        Loop(Scheduled(f"camera {number}", images, fps, count, start, clock), predictor, clock, ahead)
        for number, predictor in enumerate(predictors)
    ]
    frames: dict[int, list[FrameTimes]] = {}
    failures: list[Exception] = []

    def work(number: int) -> None:
        found: list[FrameTimes] = []
        try:
            found = loops[number].run()
        except Exception as error:  # noqa: BLE001 (the calling thread raises it)
            failures.append(error)
            for loop in loops:  # one failure makes the other cameras' figures useless
                loop.stop()
        finally:
            frames[number] = found

    threads: list[threading.Thread] = []
    try:
        for number in range(len(loops)):
            threads.append(threading.Thread(target=work, args=(number,), name=f"camera-{number}", daemon=True))
            threads[-1].start()
        for thread in threads:
            clock.join(thread)
    finally:
        for loop in loops:  # an exception may have ended the wait early
            loop.stop()
        for thread in threads:
            clock.join(thread)
    if failures:
        raise failures[0]
    return [figures(frames[number], (50.0, 99.0)) for number in range(len(loops))]


def _batches(engines: Shared) -> Counter[int]:
    return Counter(engines.batcher.batches) if engines.batcher is not None else Counter()


def _summed(every: list[Figures], batches: Counter[int]) -> CameraRun:
    return CameraRun(
        cameras=len(every),
        p50=max(f.corrected.percentiles[50] for f in every),
        p99=max(f.corrected.percentiles[99] for f in every),
        n=min(f.frames for f in every),
        dropped=sum(f.dropped for f in every) / sum(f.frames for f in every),
        cores=max(f.cores for f in every),
        batches={str(size): count for size, count in sorted(batches.items())},
        resident_mb=psutil.Process().memory_info().rss / 1e6,
    )
