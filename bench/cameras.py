"""How many cameras one machine carries: streams side by side until predictions come later than frames do.

Every camera has a :class:`Pipeline` with threads of its own to capture and to predict, and an engine of its own, since
steppers that share one take turns. The weights are therefore there once a camera. All cameras' frames are due at the
same moments, as if they were genlocked: the worst case, and one that can be repeated.

A count is carried if the p99 of every single camera's corrected latency (``stream.py``) is within the frame interval.
All together would hide one that starves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from framecast.bench.loop import FrameTimes, Loop, Scheduled, check, frames_of, read_frames, warm
from framecast.bench.stream import Figures, figures
from framecast.bench.summary import TAIL
from framecast.camera import Image, open_source
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError
from framecast.runtime.engines import Engine
from framecast.runtime.predictor import Predictor

START = 0.2  # seconds from when a run's first thread is started to when the first frames are due


@dataclass(frozen=True)
class CameraRun:
    """So many cameras at once. Latencies are corrected ones, in milliseconds, of the camera that fares worst.

    Attributes:
        cameras: how many.
        p50: the largest of the cameras' medians.
        p99: the largest of the cameras' 99th percentiles.
        n: samples of a camera.
        dropped: share of all cameras' frames that were dropped.
        cores: CPU time of the process over wall time.
    """

    cameras: int
    p50: float
    p99: float
    n: int
    dropped: float
    cores: float

    def row(self, interval_ms: float) -> tuple[str, str]:
        """Of a table: how many, and how that went; a p99 with too few samples above it has a question mark."""
        doubtful = "?" if self.n < 100 * TAIL else ""
        return (
            f"  {self.cameras} {'camera' if self.cameras == 1 else 'cameras'}, due → sink (corrected), ms",
            f"p50 {self.p50:.2f}  p99 {self.p99:.2f}{doubtful} of {interval_ms:.2f}  (n {self.n} each); "
            f"{self.dropped:.1%} dropped, {self.cores:.2f} cores",
        )


@dataclass(frozen=True)
class Cameras:
    """How many cameras were carried, and every run that showed it.

    Attributes:
        carried: the most; 0 if not even one.
        limit: more were not tried.
        fps: frames a second of each.
        interval_ms: between them, which no camera's p99 may pass.
        runs: by the number of cameras.
    """

    carried: int
    limit: int
    fps: float
    interval_ms: float
    runs: tuple[CameraRun, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Of a table: what, and how much."""
        more = " or more" if self.carried == self.limit else ""
        head = ("cameras carried", f"{self.carried}{more} at {self.fps:g} frames a second each")
        return [head, *(run.row(self.interval_ms) for run in self.runs)]


def carry(
    open_engine: Callable[[], Engine],
    source: str,
    *,
    fps: float | None,
    seconds: float,
    limit: int = 16,
    clock: Clock = SYSTEM,
) -> Cameras:
    """Find how many cameras are carried: 1, 2, 4, … until it is too many, then by bisection.

    That takes for granted that more cameras are never carried better. Each count runs once: near the edge another run
    may say one more or less.

    Args:
        open_engine: opens one camera's engine; it is closed here.
        source: a clip, shown by all of them.
        fps: frames a second of each camera; the clip's own if None.
        seconds: for which each run's frames are counted.
        limit: the most cameras that are tried.
        clock: what to measure by.

    Raises:
        OptionError: a rate, a duration or the limit is out of its range, or the source is a camera: one is not many.
        SourceError: the source cannot be opened.
        EngineError: an engine failed.
    """
    check(fps, seconds)
    if limit < 1:
        raise OptionError(f"the most cameras to try must be at least 1, not {limit}")
    with open_source(source) as opened:
        rate = fps or opened.fps
        if opened.live or rate is None:
            raise OptionError(f"{opened.name} is one camera: name a clip, which many can be made of")
        images = read_frames(opened)
    runs: dict[int, CameraRun] = {}
    with ExitStack() as stack:
        predictors: list[Predictor] = []

        def carried(count: int) -> bool:
            while len(predictors) < count:
                predictors.append(Predictor(stack.enter_context(open_engine()), clock=clock))
                warm(predictors[-1], images[0])
            every = _run(predictors[:count], images, rate, seconds, clock)
            runs[count] = _summed(every)
            return runs[count].p99 <= 1e3 / rate

        most = search(carried, limit)
    return Cameras(most, limit, rate, 1e3 / rate, tuple(runs[count] for count in sorted(runs)))


def search(passes: Callable[[int], bool], limit: int) -> int:
    """The largest count up to ``limit`` that passes, if all below one that passes do; 0 if 1 does not."""
    low, high, count = 0, limit + 1, 1
    while high - low > 1:
        if passes(count):
            low = count
        else:
            high = count
        count = min(2 * low, limit) if high > limit else (low + high) // 2
    return low


def _run(predictors: list[Predictor], images: list[Image], fps: float, seconds: float, clock: Clock) -> list[Figures]:
    """One run, a camera for each predictor, each in a thread of its own."""
    start = clock.now() + START
    count = frames_of(fps, seconds)
    loops = [
        Loop(Scheduled(f"camera {number}", images, fps, count, start, clock), predictor, clock)
        for number, predictor in enumerate(predictors)
    ]
    ended = clock.condition()
    frames: dict[int, list[FrameTimes]] = {}
    failures: list[Exception] = []

    def work(number: int) -> None:
        found: list[FrameTimes] = []
        try:
            found = loops[number].run()
        except Exception as error:  # noqa: BLE001 (raised where it was begun)
            failures.append(error)
            for loop in loops:  # the others' figures are of no use then
                loop.stop()
        finally:
            with ended:
                frames[number] = found
                ended.notify_all()

    threads: list[threading.Thread] = []
    try:
        with ended:
            for number in range(len(loops)):
                threads.append(threading.Thread(target=work, args=(number,), name=f"camera-{number}", daemon=True))
                threads[-1].start()
            while len(frames) < len(loops):
                clock.wait(ended)
    finally:
        for loop in loops:  # where the wait was broken off
            loop.stop()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return [figures(frames[number], (50.0, 99.0)) for number in range(len(loops))]


def _summed(every: list[Figures]) -> CameraRun:
    return CameraRun(
        cameras=len(every),
        p50=max(f.corrected.percentiles[50] for f in every),
        p99=max(f.corrected.percentiles[99] for f in every),
        n=min(f.frames for f in every),
        dropped=sum(f.dropped for f in every) / sum(f.frames for f in every),
        cores=max(f.cores for f in every),
    )
