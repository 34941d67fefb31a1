"""A predictor in a live loop, end to end: from when a frame was due to when its prediction was handed to the sink.

A loop that takes the next frame when it is done with the last one cannot see its own stalls: while it hangs for a
second at 30 frames a second, it starts none of the 30 steps that would have been slow, and books one bad sample among
thousands of good ones. Gil Tene named this coordinated omission (*How NOT to Measure Latency*, 2013). The cure is an
open loop, as in his wrk2: frames are due on a schedule that asks nobody, and latency runs from when each was due.

In wrk2 every late request is served in the end; a camera's frames are not. One that was replaced in the mailbox is
never predicted, and to leave it out would be the omission again. So three distributions are told apart:

- **corrected**: of every frame that was due. A frame that was dropped counts from when it was due until the next
  prediction was handed over: until then whoever watches saw something older, and nothing of this frame's moment. A
  stall of x seconds leaves samples of some x, x − 1/F, x − 2/F, …: what HdrHistogram's
  ``recordValueWithExpectedInterval`` fills in to a closed loop's figures. Here none is filled in, all are measured.
- **age**: of the frames that were shown, how long ago each was due when its prediction was handed over.
- **raw**: of those too, from when the predictor took it up. That is what a closed loop measures, and what hides stalls.

The samples of one stall depend on each other: ``n`` of the corrected ones says less than that of single runs would.
Decoding is not part of it: a clip's frames lie in memory before the first is due. A real camera has no schedule that we
know: its frames are due when they were grabbed, and what it or its driver lost before is not seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from framecast.bench.loop import (
    LEAD,
    Bounded,
    FrameTimes,
    Loop,
    Scheduled,
    check,
    corrected,
    frames_of,
    read_frames,
    warm,
)
from framecast.bench.summary import PERCENTILES, Summary, summarize
from framecast.camera import Source, open_source
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError
from framecast.runtime.engines import Engine
from framecast.runtime.predictor import Predictor
from framecast.runtime.telemetry import Stamps
from framecast.testing import EmptyEngine

STAGES = (
    "capture late",  # from when it was due until it lay in the mailbox
    "mailbox",  # until the predictor took it up
    "picture in",  # resize, colour, layout
    "step",
    "picture out",  # check, clamp, layout
    "enqueue",  # on a device: picture in, upload, and what the host does for the step
    "wait, download",  # on a device: the rest of the step
    "score, hand-over",  # until the sink was given it
)


@dataclass(frozen=True)
class Figures:
    """What a loop's stamps say. Latencies in milliseconds.

    Attributes:
        frames: that were due; ``shown``: those whose prediction was handed over; ``dropped``: the others.
        corrected: from when a frame was due to the next hand-over, of every frame.
        age: from when it was due to its own hand-over, of those shown.
        raw: from when it was taken up to its hand-over, of those shown.
        gaps: between one hand-over and the next; their standard deviation is the jitter.
        tail: p99 over p50 of ``corrected``; None where the median is 0.
        apart: p99 − p50 of it, in milliseconds: what an empty loop, whose median is next to nothing, is compared by.
        stages: by their names, in the order of ``STAGES``, of the frames shown: they add up to ``age``.
        load: share of the time in which the predictor, the score or the hand-over was at work.
        cores: CPU time of the whole process over wall time, all its threads together.
        cpu_ms: CPU time of the whole process for each frame shown.
        samples: columns, of every frame: ``due_s``, from the first; ``corrected_ms``; ``raw_ms``, None where dropped.
        parts: milliseconds of each frame shown by the stage's name.
    """

    frames: int
    shown: int
    dropped: int
    corrected: Summary
    age: Summary
    raw: Summary
    gaps: Summary
    tail: float | None
    apart: float
    stages: dict[str, Summary]
    load: float
    cores: float
    cpu_ms: float
    samples: dict[str, list[float | None]]
    parts: dict[str, list[float]]

    @property
    def jitter(self) -> float:
        """Standard deviation of ``gaps``."""
        return self.gaps.cv * self.gaps.mean


@dataclass(frozen=True)
class StreamResult:
    """What ``framecast bench --stream`` says.

    Attributes:
        source: what was shown, without credentials.
        model: configuration of the predictor; ``engine``: what ran it.
        due: ``schedule`` for a clip; ``grab`` for a camera, whose frames are due when they are grabbed.
        fps: frames a second that were due.
        interval_ms: from one frame to the next.
        seconds: for which frames were counted, after a first one that was not.
        loop: of the predictor.
        empty: of one that does nothing, on the same schedule: what this machine adds by itself.
    """

    source: str
    model: str
    engine: str
    due: str
    fps: float
    interval_ms: float
    seconds: float
    loop: Figures
    empty: Figures

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Percentiles go by their number, as text; of the empty loop there are no single samples."""
        told = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("loop", "empty"):
            told[name] = _told(told[name])
        for name in ("samples", "parts"):
            del told["empty"][name]
        return told

    def rows(self) -> list[tuple[str, str]]:
        """Of a table: what, and how much; a percentile with too few samples above it has a question mark."""
        loop, empty = self.loop, self.empty
        lost = f"{loop.dropped} dropped ({loop.dropped / loop.frames:.1%})"
        clock = "on a schedule" if self.due == "schedule" else "when they were grabbed"
        return [
            ("frames due", f"{loop.frames} in {self.seconds:.1f} s, one each {self.interval_ms:.2f} ms, {clock}"),
            ("frames shown", f"{loop.shown}, {lost}"),
            ("due → sink, every frame (corrected), ms", _said(loop.corrected)),
            ("due → sink, frames shown (age), ms", _said(loop.age)),
            ("taken up → sink, frames shown (raw), ms", _said(loop.raw)),
            *((f"  {stage}, ms", _said(times)) for stage, times in loop.stages.items()),
            ("between hand-overs, ms", f"{_said(loop.gaps)}; jitter {loop.jitter:.2f}"),
            ("p99 / p50, corrected", f"{_tail(loop)}; empty loop {_tail(empty)}"),
            ("load", f"busy {loop.load:.0%} of the time; {loop.cores:.2f} cores, {loop.cpu_ms:.1f} ms of CPU a frame"),
            ("empty loop, due → sink (corrected), ms", f"{_said(empty.corrected)}; {empty.dropped} dropped"),
            ("empty loop, between hand-overs, ms", f"{_said(empty.gaps)}; jitter {empty.jitter:.2f}"),
        ]


def bench_stream(
    engine: Engine,
    source: str,
    *,
    fps: float | None,
    seconds: float,
    percentiles: Sequence[float] = PERCENTILES,
    clock: Clock = SYSTEM,
) -> StreamResult:
    """Show a predictor a stream, and then one that does nothing: twice ``seconds`` and some more altogether.

    Args:
        engine: of the predictor; closed by its owner.
        source: as for :func:`open_source`. A clip's frames come on a schedule, over and over.
        fps: frames a second of a clip; its own if None. A real camera comes at its own rate.
        seconds: for which frames are counted, after :data:`LEAD` that are not.
        percentiles: of every distribution.
        clock: what to measure by.

    Raises:
        OptionError: a rate, a duration or a percentile is out of its range; too few frames came to be summed up.
        SourceError: the source cannot be opened, or was lost.
        EngineError: the engine failed.
    """
    check(fps, seconds)
    summarize([0.0], percentiles)  # so that what is wrong with them is said before anything is measured
    with open_source(source) as opened:
        name = opened.name
        if opened.live and fps is not None:
            raise OptionError(f"{name} comes at a rate of its own: leave out the frames a second")
        rate = None if opened.live else fps or opened.fps
        images = read_frames(opened, 1 if rate is None else None)

    def begin() -> Source:
        if rate is None:
            return Bounded(open_source(source, clock=clock), LEAD + seconds)
        return Scheduled(name, images, rate, frames_of(rate, seconds), clock.now() + 1 / rate, clock)

    predictor = Predictor(engine, clock=clock)
    warm(predictor, images[0])
    frames = Loop(begin(), predictor, clock).run()
    nothing = Loop(begin(), Predictor(EmptyEngine(predictor.manifest), clock=clock), clock).run()
    loop, empty = figures(frames, percentiles, engine.device), figures(nothing, percentiles)
    interval = 1 / rate if rate else float(np.median(np.diff([one.due for one in frames])))
    return StreamResult(
        source=name,
        model=predictor.manifest.config,
        engine=engine.name,
        due="schedule" if rate else "grab",
        fps=rate or 1 / interval,
        interval_ms=1e3 * interval,
        seconds=seconds,
        loop=loop,
        empty=empty,
    )


def figures(frames: Sequence[FrameTimes], percentiles: Sequence[float] = PERCENTILES, device: str = "cpu") -> Figures:
    """Sum up a loop.

    Args:
        frames: every frame, in their order.
        percentiles: of every distribution.
        device: of the engine: what is called the step on the host is only enqueued elsewhere.

    Raises:
        OptionError: fewer than two predictions were handed over, or a percentile is not between 0 and 100.
    """
    late = [1e3 * s for s in corrected(frames)]
    known = frames[: len(late)]
    shown = [one.stamps for one in known if one.stamps is not None]
    gaps = [1e3 * (later.handed - before.handed) for before, later in pairwise(shown)]
    if not gaps:
        raise OptionError(f"{len(shown)} predictions were handed over, too few to sum up: allow more seconds")
    wall = shown[-1].handed - shown[0].handed
    used = [one.cpu for one in known if one.stamps is not None]
    cpu = used[-1] - used[0]
    columns: dict[str, list[float]] = {}
    for stamps in shown:
        for stage, s in _stages(stamps, device).items():
            columns.setdefault(stage, []).append(1e3 * s)
    parts = {stage: columns[stage] for stage in STAGES if stage in columns}
    p50, p99 = (float(ms) for ms in np.percentile(late, [50, 99]))
    return Figures(
        frames=len(known),
        shown=len(shown),
        dropped=len(known) - len(shown),
        corrected=summarize(late, percentiles),
        age=summarize([1e3 * (s.handed - s.due) for s in shown], percentiles),
        raw=summarize([1e3 * (s.handed - s.taken) for s in shown], percentiles),
        gaps=summarize(gaps, percentiles),
        tail=p99 / p50 if p50 else None,
        apart=p99 - p50,
        stages={stage: summarize(times, percentiles) for stage, times in parts.items()},
        load=sum(s.handed - s.taken for s in shown[1:]) / wall,
        cores=cpu / wall,
        cpu_ms=1e3 * cpu / len(gaps),
        samples={
            "due_s": [one.due - known[0].due for one in known],
            "corrected_ms": list(late),
            "raw_ms": [1e3 * (one.stamps.handed - one.stamps.taken) if one.stamps else None for one in known],
        },
        parts=parts,
    )


def _stages(stamps: Stamps, device: str) -> dict[str, float]:
    """Seconds by the stage's name; their sum is the frame's age at its hand-over."""
    if device == "cpu":
        inside = {"picture in": stamps.picture_in, "step": stamps.step, "picture out": stamps.picture_out}
    else:
        inside = {"enqueue": stamps.picture_in + stamps.step, "wait, download": stamps.picture_out}
    return {
        "capture late": stamps.grabbed - stamps.due,
        "mailbox": stamps.taken - stamps.grabbed,
        **inside,
        "score, hand-over": stamps.handed - stamps.stepped,
    }


def _told(figures: Figures) -> dict[str, Any]:
    told = {f.name: getattr(figures, f.name) for f in dataclasses.fields(figures)}
    told["stages"] = {stage: _keyed(times) for stage, times in figures.stages.items()}
    told["samples"], told["parts"] = (
        {name: [None if v is None else round(v, 4) for v in column] for name, column in columns.items()}
        for columns in (figures.samples, figures.parts)
    )
    summed = {name: _keyed(value) for name, value in told.items() if isinstance(value, Summary)}
    return told | summed | {"jitter_ms": figures.jitter}


def _keyed(times: Summary) -> dict[str, Any]:
    return dataclasses.asdict(times) | {"percentiles": {f"{p:g}": ms for p, ms in times.percentiles.items()}}


def _said(times: Summary) -> str:
    parts = [f"p{p:g} {ms:.2f}{'?' if p in times.doubtful else ''}" for p, ms in times.percentiles.items()]
    return f"{'  '.join(parts)}  max {times.max:.2f}  (n {times.n})"


def _tail(figures: Figures) -> str:
    ratio = "–" if figures.tail is None else f"{figures.tail:.2f}"
    return f"{ratio} ({figures.apart:.2f} ms apart)"
