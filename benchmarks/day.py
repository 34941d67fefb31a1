"""A day at 30 frames a second on a virtual clock, with 200 planted faults: what is predicted, and what is lost.

The sensor takes 2,592,000 pictures. Reconnection, time-outs, capture thread, mailbox, pipeline, predictor, scores and
health are the real ones; the camera, the clock and the step are fakes (``framecast.testing``).

    python benchmarks/day.py [--hours H] [--faults N] [--minutes M]
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from _day_camera import FPS, KINDS, LOST, STALL, Camera, DayEngine, Fault, planted
from _machine import header, script

from framecast.camera.reconnect import Reconnecting
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.score import psnr
from framecast.runtime.sinks.health import PATIENCE, Pulse
from framecast.runtime.sinks.sink import Result
from framecast.runtime.stepper import Stepper
from framecast.testing import VirtualClock

REFRESH = 0.25  # seconds between two looks while no frame comes, as in ``framecast run``
COMPARED = 12  # frames after each reset whose state is compared with that of a fresh run
SHOWN = 8  # handed predictions among which the scored one must be


@dataclass
class Day:
    """What came of the schedule.

    Attributes:
        rows: figures, by their names.
        wrong: what is not as it must be, one line each.
    """

    rows: list[tuple[str, str]] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)

    def same(self, what: str, found: object, expected: object) -> None:
        """Write a figure that must be exact."""
        self.rows.append((what, f"{found:,}" if isinstance(found, int) else str(found)))
        if found != expected:
            self.wrong[f"{what}: {found}, not {expected}"] += 1


class Observer:
    """Looks at every result, as sinks and page do.

    Attributes:
        unready: when /ready began to fail and was well again.
    """

    def __init__(self, clock: VirtualClock, camera: Camera, pipeline: Pipeline, day: Day) -> None:
        self._clock, self._camera, self._pipeline, self._day = clock, camera, pipeline, day
        self._pulse = Pulse(clock.now)
        self.unready: list[tuple[float, float]] = []
        self._failed: float | None = None
        self._newest = self._epoch = -1
        self._shape: tuple[int, ...] = ()
        self._handed: deque[tuple[Result, int]] = deque(maxlen=SHOWN)
        self._streams = -1
        self._seen = (0, 0)  # cuts and gaps; resets
        self._fresh: Predictor | Stepper | None = None
        self._left = 0
        self.scored = self.compared = 0
        self.oldest = 0.0

    def take(self, result: Result | None) -> None:
        """See a result, or that none came."""
        now = self._clock.now()
        if result is not None:
            self._see(result, now)
            self._pulse.see(result)
        failing = self._pulse.failing({"interval_ms": 1e3 * self._pipeline.predictor.interval})
        if result is None and failing and self._failed is None:
            self._failed = now
        elif result is not None and self._failed is not None:
            self.unready.append((self._failed, now))
            self._failed = None

    def _see(self, result: Result, now: float) -> None:
        wrong, frame = self._day.wrong, result.frame
        tick = self._camera.delivered[frame.index]
        wrong["a frame came twice, or late"] += tick <= self._newest
        wrong["a frame of an earlier stream"] += frame.epoch < self._epoch
        self.oldest = max(self.oldest, now - self._camera.moment(tick))
        stream = frame.epoch != self._epoch or frame.image.shape != self._shape
        self._newest, self._epoch, self._shape = tick, frame.epoch, frame.image.shape
        if stream:
            self._streams += 1
        self._compare(result, stream)
        if result.psnr is not None:
            self._check_score(result)
        self._handed.append((result, self._streams))

    def _compare(self, result: Result, stream: bool) -> None:
        """Compare the state with that of a fresh run that began at the last reset."""
        predictor, frame = self._pipeline.predictor, result.frame
        events, before = predictor.events, self._seen
        self._seen = events["cut"] + events["gap"], predictor.resets
        if stream or self._seen != before:
            self._left = COMPARED
            self._fresh = Predictor(DayEngine(self._clock)) if stream else Stepper(DayEngine(self._clock))
        if not self._left or self._fresh is None:
            return
        self._left -= 1
        self.compared += 1
        if isinstance(self._fresh, Predictor):
            self._fresh.step(frame.image, frame.time, interval=predictor.interval)
            picture = self._fresh.at(result.prediction.time).image
            self._day.wrong["another prediction than a fresh run"] += not np.array_equal(
                picture, result.prediction.image
            )
            state = self._fresh._stepper.state
        else:
            if predictor.event != "repeat":
                self._fresh.advance([predictor._given])  # without flicker, if there was some
            state = self._fresh.state
        ours = predictor._stepper.state.tensors
        equal = all(np.array_equal(ours[name], tensor) for name, tensor in state.tensors.items())
        self._day.wrong["another state than a fresh run"] += not equal

    def _check_score(self, result: Result) -> None:
        """The score must be of a prediction that was handed out for this frame's moment, in the same stream."""
        self.scored += 1
        made = [one for one in self._handed if one[0].prediction.image is result.due]
        right = (
            len(made) == 1
            and made[0][1] == self._streams
            and abs(made[0][0].prediction.time - result.frame.time) <= self._pipeline.predictor.interval / 2
            and made[0][0].input is result.late
            and result.due is not None
            and psnr(result.due, result.input) == result.psnr
        )
        self._day.wrong["a score of no real pair"] += not right


def simulate(schedule: list[Fault], ticks: int, expired: Callable[[], bool] = lambda: False) -> Day:
    """Run the schedule, and compare everything with it. ``expired``: whether to end the day now."""
    day, clock = Day(), VirtualClock()
    engine = DayEngine(clock)
    camera = Camera(clock, schedule, ticks, engine)
    source = Reconnecting("the camera", camera.open, camera.open(), clock=clock, seed=17)
    pipeline = Pipeline(source, Predictor(engine), rival=False, clock=clock)
    camera.over, camera.expired = pipeline.stop, expired
    observer = Observer(clock, camera, pipeline, day)
    for result in pipeline.results(REFRESH):
        observer.take(result)
    _judge(day, camera, pipeline, observer)
    day.wrong = +day.wrong
    return day


def _judge(day: Day, camera: Camera, pipeline: Pipeline, observer: Observer) -> None:
    kinds = Counter(fault.kind for fault in camera.happened)
    report, fate = pipeline.report(), camera.fate
    events = report["events"]
    counted = {kind: sum(fault.count for fault in camera.happened if fault.kind == kind) for kind in KINDS}
    lost = sum(kinds[kind] for kind in LOST)
    day.rows.append(("faults", f"{kinds.total():,}"))
    day.rows.append(("pictures that the sensor took", f"{camera.ticks:,}"))
    day.same("delivered", len(camera.delivered), camera.ticks - fate.total())
    day.same("  predicted or counted as dropped", report["frames"] + report["dropped"], len(camera.delivered))
    day.rows.append(("    dropped, while the model was slow, or in a burst", f"{report['dropped']:,}"))
    for reason, count in sorted(fate.items()):
        day.rows.append((f"not delivered: {reason}", f"{count:,}"))
    day.same("streams (epochs)", report["epochs"], 1 + lost + kinds["its size changes"])
    day.same("reconnections", events["reconnects"], lost)
    day.same("resets after a prediction that is not finite", report["resets"], kinds["a prediction is not finite"])
    day.same("gaps", events["gaps"], kinds["a gap"])
    day.same("cuts", events["cuts"], kinds["another scene"])
    day.same("repeated pictures", events["repeats"], counted["repeated pictures"])
    day.same("damaged pictures", events["damaged"], counted["damaged pictures"])
    day.same("times mended", events["times_mended"], 0)
    day.rows.append(("frames compared with a fresh run after each reset", f"{observer.compared:,}"))
    day.rows.append(("scores, each of a real pair", f"{observer.scored:,}"))
    day.rows.append(("oldest picture when its prediction was handed out", f"{1e3 * observer.oldest:.0f} ms"))
    if observer.oldest > 0.25:
        day.wrong["a picture was older than 250 ms"] += 1
    _judge_health(day, camera, observer)


def _judge_health(day: Day, camera: Camera, observer: Observer) -> None:
    """The times of /ready must match the silences of more than three seconds."""
    # A look comes every REFRESH seconds, so it may miss a silence that lasts hardly longer than PATIENCE.
    silent = [(last, back) for last, back in camera.silences if back - last > PATIENCE + REFRESH + 0.01]
    long = [(failed, well) for failed, well in observer.unready if well - failed > 0.01]
    seen = [one for one in long if any(abs(one[1] - back) < 0.01 for _, back in silent)]
    day.same("silences of more than 3.3 s, each seen by /ready", len(seen), len(silent))
    ends, begins = [0.0], [0.0]
    for (failed, well), (last, back) in zip(seen, silent, strict=False):
        begins.append(failed - last - PATIENCE)
        ends.append(well - back)
    day.rows.append(("  503 began after 3 s, and at most", f"{1e3 * max(begins):.0f} ms"))
    day.rows.append(("  200 again after the first frame, at most", f"{1e3 * max(ends):.0f} ms"))
    if not (min(begins) >= -1e-6 and max(begins) <= REFRESH + 0.01 and min(ends) >= 0 and max(ends) <= 0.01):
        day.wrong["/ready does not match the silences"] += 1


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0, help="of the camera (default: 24)")
    parser.add_argument("--faults", type=int, default=200, help="how many are planted (default: 200)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end the day after so many real minutes")
    arguments = parser.parse_args()
    schedule, ticks = planted(arguments.faults, 3600 * arguments.hours / arguments.faults)
    print(header(), flush=True)
    begun = time.monotonic()
    day = simulate(schedule, ticks, lambda: time.monotonic() - begun > 60 * arguments.minutes)
    took = time.monotonic() - begun
    print(f"\n{arguments.hours:g} hours at {FPS} frames a second, {arguments.faults} faults; {took / 60:.0f} minutes")
    if took > 60 * arguments.minutes:
        print(f"ENDED EARLY: --minutes {arguments.minutes:g}")
    print(f"kinds: {', '.join(KINDS)} (time-out {STALL:g} s)\n")
    for what, figure in day.rows:
        print(f"{what:58s} {figure:>12s}")
    print()
    for line, count in day.wrong.items():
        print(f"WRONG: {line} ({count})")
    if not day.wrong:
        print("Everything is as planted: every delivered frame was predicted or counted, and nothing else was lost.")
    raise SystemExit(bool(day.wrong))


if __name__ == "__main__":
    script(main)
