"""What a camera that dies, stalls or floods does to the cadence of another one in the same process.

    python benchmarks/isolation.py > benchmarks/results/isolation.txt

One camera sends the demo clip at a steady rate. Beside it, in the same ``framecast.run_cameras``, is none; or another
one that is steady too, with frames at the same moments; or one that is so for three seconds, and then ends with an
error, does not return from a read any more, or sends 500 frames a second. The runs take turns, ``--rounds`` times. All
figures are of the first camera, from the fourth second on, over all rounds. Clock and threads are real; only the
cameras are simulated. It takes five minutes; run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
from _machine import header, script

import framecast
from framecast.camera import Frame, Image, Source, open_source
from framecast.clock import SYSTEM, Clock
from framecast.errors import SourceError
from framecast.runtime.fleet_report import FleetReport

MODELS = ["edge", "stip-edge"]
KINDS = ["none", "steady", "dies", "stalls", "floods"]
FLOOD = 500.0  # frames a second
COLUMNS = ("other camera", "frames", "dropped", "grab to picture p50, ms", "p99, ms", "between two p50, ms", "p99, ms")
STEADY, COUNTED = 3.0, 4.0  # seconds until a camera fails, and until figures count


class Simulated(Source):
    """A camera that sends images at a rate, and fails in its way after a while.

    Args:
        images: sent again and again.
        fps: frames a second.
        seconds: until it ends.
        kind: one of ``KINDS``: what it does after ``STEADY`` seconds.
        clock: to wait on.
    """

    live = True

    def __init__(self, images: Sequence[Image], fps: float, seconds: float, kind: str, clock: Clock = SYSTEM) -> None:
        self.fps, self.name, self.kind, self._every = fps, kind, kind, 1 / fps
        self._images, self._seconds, self._clock = cycle(images), seconds, clock
        self._closed, self._count = threading.Event(), 0
        self._begun = self._due = clock.now()

    def read(self) -> Frame | None:
        """See :meth:`framecast.Source.read`."""
        failing = self._due - self._begun > STEADY
        if failing and self.kind == "dies":
            raise SourceError("the camera died")
        if failing and self.kind == "stalls":
            self._closed.wait()
        self._due += 1 / FLOOD if failing and self.kind == "floods" else self._every
        self._clock.wait_until(self._due)
        if self._closed.is_set() or self._due - self._begun > self._seconds:
            return None
        self._count += 1
        return Frame(next(self._images), self._due, self._count - 1)

    def close(self) -> None:
        """See :meth:`framecast.Source.close`."""
        self._closed.set()


class Handed:
    """Keeps when pictures were handed over, how long after the grab, and of which frames.

    Args:
        begin: from when on, on the clock.
    """

    def __init__(self, begin: float) -> None:
        self.begin = begin
        self.moments: list[float] = []
        self.latencies: list[float] = []
        self.frames: list[int] = []

    def __call__(self, result: framecast.Result) -> None:
        """Take a result."""
        if result.stamps.grabbed >= self.begin:
            self.moments.append(result.stamps.handed)
            self.latencies.append(result.stamps.handed - result.stamps.grabbed)
            self.frames.append(result.frame.index)

    @property
    def dropped(self) -> int:
        """Number of frames that were left out between the first and the last."""
        return self.frames[-1] - self.frames[0] + 1 - len(self.frames)


def beside(kind: str, model: str, images: Sequence[Image], args: argparse.Namespace) -> Handed:
    """Run the camera beside another one: how its pictures were handed over."""
    handed, stop = Handed(SYSTEM.now() + COUNTED), threading.Event()
    cameras = [framecast.Camera(Simulated(images, args.fps, args.seconds, "steady"), name="first", sinks=[handed])]
    if kind != "none":
        cameras.append(framecast.Camera(Simulated(images[::-1], args.fps, 2 * args.seconds, kind), name="other"))

    def observe(report: FleetReport) -> None:
        if report["cameras"]["first"]["ended"]:
            stop.set()

    framecast.run_cameras(
        cameras, model=model, reconnect=False, stall=1e3, observe=observe, announce=lambda line: None, stop=stop
    )
    return handed


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each run (default: 12)")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    with open_source("demo") as source:
        images = [frame.image for frame in islice(source, 60)]
    print(header())
    for model in args.models:
        found: dict[str, list[Handed]] = {kind: [] for kind in KINDS}
        for _ in range(args.rounds):
            for kind in KINDS:
                found[kind].append(beside(kind, model, images, args))
        print(f"\n## {model}\n\n| {' | '.join(COLUMNS)} |\n| {' | '.join('---' for _ in COLUMNS)} |")
        for kind, runs in found.items():
            print(f"| {' | '.join(row(kind, runs))} |", flush=True)


def row(kind: str, runs: Sequence[Handed]) -> Sequence[str]:
    """Return a row of the table."""
    latencies = np.concatenate([run.latencies for run in runs])
    between = np.concatenate([np.diff(run.moments) for run in runs])
    percentiles = (1e3 * np.percentile(values, share) for values in (latencies, between) for share in (50, 99))
    dropped = sum(run.dropped for run in runs)
    return kind, f"{len(latencies)}", f"{dropped}", *(f"{value:.1f}" for value in percentiles)


if __name__ == "__main__":
    script(main)
