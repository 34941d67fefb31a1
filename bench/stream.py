"""Measures a live loop end to end: from a frame's due time until the sink receives its prediction.

A closed loop takes the next frame when it has finished the last one, so it cannot see its own stalls. If it hangs for a
second at 30 frames a second, it never starts the 30 steps that would have been slow, and records one bad sample among
thousands of good ones. Gil Tene named this coordinated omission (*How NOT to Measure Latency*, 2013). The remedy is an
open loop, as in his wrk2: frames are due on a fixed schedule, and each latency starts when its frame is due.

wrk2 serves every late request in the end. A camera loop does not: if a newer frame replaces one in the mailbox, the
older one gets no prediction. Leaving it out would be coordinated omission again. There are therefore three
distributions:

- **corrected**: over every frame that was due. For a dropped frame, the latency runs from its due time until the next
  hand-over, because until then the viewer sees an older result. At F frames a second, a stall of x seconds gives
  samples of about x, x − 1/F, x − 2/F, …. HdrHistogram's ``recordValueWithExpectedInterval`` adds such samples to a
  closed loop's figures; here all of them are measured.
- **age**: over the frames shown, from the due time to the frame's own hand-over.
- **raw**: over the frames shown, from when the predictor takes the frame to its hand-over. A closed loop measures this,
  and it hides stalls.

The samples of one stall are correlated, so ``n`` corrected samples say less than ``n`` independent ones. The figures
do not include decoding, because a clip's frames are in memory before the first one is due. The schedule of a real
camera is unknown, so its frames are due when they are grabbed. Frames that the camera or its driver lost before that
do not appear in the figures.
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
from framecast.bench.summary import PERCENTILES, TAIL, Summary, summarize
from framecast.camera import Source, open_source
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError
from framecast.runtime.engines import Engine
from framecast.runtime.predictor import Predictor
from framecast.runtime.telemetry import Stamps
from framecast.testing import EmptyEngine

STAGES = (
    "capture late",  # from the due time until the frame is in the mailbox
    "mailbox",  # until the predictor takes the frame
    "picture in",  # resize, colour, layout
    "step",
    "picture out",  # check, clamp, layout
    "enqueue",  # on a device: picture in, upload, and the host's part of the step
    "wait, download",  # on a device: the rest of the step
    "score, hand-over",  # until the sink receives the result
)


@dataclass(frozen=True)
class Figures:
    """The figures of a loop. Latencies are in milliseconds.

    Attributes:
        frames: number of frames due; ``shown``: those whose prediction was handed over; ``dropped``: the others.
        corrected: over every frame, from its due time to the next hand-over.
        age: over the frames shown, from the due time to the frame's own hand-over.
        raw: over the frames shown, from when the predictor takes the frame to its hand-over.
        gaps: time between two hand-overs; their standard deviation is the jitter.
        tail: p99 / p50 of ``corrected``; None if the median is 0.
        apart: p99 − p50 of ``corrected``, in milliseconds; used for an empty loop, whose median is almost 0.
        stages: over the frames shown, by name in the order of ``STAGES``; the stages add up to ``age``.
        load: share of the time in which the predictor, the score or the hand-over was busy.
        cores: CPU time of all threads of the process divided by wall time.
        cpu_ms: CPU time of the whole process per frame shown.
        samples: columns with one value per frame: ``due_s`` since the first, ``corrected_ms``, and ``raw_ms``, None if
            dropped.
        parts: milliseconds of each stage by its name, over the frames shown.
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
    """The result of ``framecast bench --stream``.

    Attributes:
        source: name of the source, without credentials.
        model: configuration of the predictor; ``engine``: name of its engine.
        due: ``schedule`` for a clip; ``grab`` for a camera, whose frames are due when they are grabbed.
        fps: frames due per second.
        interval_ms: time between two frames.
        seconds: how long frames were counted, after the first second, which does not count.
        loop: figures of the predictor.
        empty: figures of a predictor that does nothing, on the same schedule: the overhead of this machine.
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
        """Return all fields for JSON. A percentile's key is its number as text. The empty loop has no samples."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("loop", "empty"):
            fields[name] = _figures_dict(fields[name])
        for name in ("samples", "parts"):
            del fields["empty"][name]
        return fields

    def rows(self) -> list[tuple[str, str]]:
        """Return table rows, each a label and a value. A percentile from too few samples has a question mark."""
        loop, empty = self.loop, self.empty
        lost = f"{loop.dropped} dropped ({loop.dropped / loop.frames:.1%})"
        clock = "on a schedule" if self.due == "schedule" else "when they were grabbed"
        return [
            ("frames due", f"{loop.frames} in {self.seconds:.1f} s, one every {self.interval_ms:.2f} ms, {clock}"),
            ("frames shown", f"{loop.shown}, {lost}"),
            ("due → sink, every frame (corrected), ms", _text(loop.corrected)),
            ("due → sink, frames shown (age), ms", _text(loop.age)),
            ("taken → sink, frames shown (raw), ms", _text(loop.raw)),
            *((f"  {stage}, ms", _text(times)) for stage, times in loop.stages.items()),
            ("between hand-overs, ms", f"{_text(loop.gaps)}; jitter {loop.jitter:.2f}"),
            ("p99 / p50, corrected", f"{_tail(loop)}; empty loop {_tail(empty)}"),
            ("load", f"busy {loop.load:.0%} of the time; {loop.cores:.2f} cores, {loop.cpu_ms:.1f} ms of CPU a frame"),
            ("empty loop, due → sink (corrected), ms", f"{_text(empty.corrected)}; {empty.dropped} dropped"),
            ("empty loop, between hand-overs, ms", f"{_text(empty.gaps)}; jitter {empty.jitter:.2f}"),
            *([("?", f"fewer than {TAIL} samples above it: measure for longer")] if loop.corrected.doubtful else []),
        ]


def bench_stream(
    engine: Engine,
    source: str,
    *,
    fps: float | None,
    seconds: float,
    ahead: float | None = None,
    percentiles: Sequence[float] = PERCENTILES,
    clock: Clock = SYSTEM,
) -> StreamResult:
    """Stream to a predictor, and then to one that does nothing. This takes a little over twice ``seconds``.

    Args:
        engine: the predictor's engine; its owner closes it.
        source: as for :func:`open_source`. A clip's frames come on a schedule and repeat.
        fps: frames per second of a clip; None for its own rate. A real camera keeps its own rate.
        seconds: how long frames are counted, after :data:`LEAD` seconds that do not count.
        ahead: how many seconds ahead it predicts (default: one frame).
        percentiles: the percentiles of every distribution.
        clock: measures the time.

    Raises:
        OptionError: a rate, a duration or a percentile is out of range; or too few frames arrived for a summary.
        SourceError: the source cannot be opened, or was lost.
        EngineError: the engine failed.
    """
    check(fps, seconds)
    summarize([0.0], percentiles)  # raises for wrong percentiles before the measurement starts
    with open_source(source) as opened:
        name = opened.name
        if opened.live and fps is not None:
            raise OptionError(f"cannot set the frame rate of {name}: a camera sets its own rate; omit fps")
        rate = None if opened.live else fps or opened.fps
        images = read_frames(opened, 1 if rate is None else None)

    def begin() -> Source:
        if rate is None:
            return Bounded(open_source(source, clock=clock), LEAD + seconds)
        return Scheduled(name, images, rate, frames_of(rate, seconds), clock.now() + 1 / rate, clock)

    predictor = Predictor(engine, clock=clock)
    warm(predictor, images[0])
    frames = Loop(begin(), predictor, clock, ahead).run()
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
    """Summarize a loop.

    Args:
        frames: every frame, in order.
        percentiles: the percentiles of every distribution.
        device: the engine's device. It decides the stages' names: only the CPU finishes the step within ``step``.

    Raises:
        OptionError: there were fewer than two hand-overs, or a percentile is not between 0 and 100.
    """
    late = [1e3 * s for s in corrected(frames)]
    known = frames[: len(late)]
    shown = [one.stamps for one in known if one.stamps is not None]
    gaps = [1e3 * (later.handed - before.handed) for before, later in pairwise(shown)]
    if not gaps:
        raise OptionError(f"cannot summarize {len(shown)} predictions: too few arrived; allow more seconds")
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
    """Return the seconds of each stage by name. Their sum is the frame's age at its hand-over."""
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


def _figures_dict(figures: Figures) -> dict[str, Any]:
    fields = {f.name: getattr(figures, f.name) for f in dataclasses.fields(figures)}
    fields["stages"] = {stage: _keyed(times) for stage, times in figures.stages.items()}
    fields["samples"], fields["parts"] = (
        {name: [None if v is None else round(v, 4) for v in column] for name, column in columns.items()}
        for columns in (figures.samples, figures.parts)
    )
    summed = {name: _keyed(value) for name, value in fields.items() if isinstance(value, Summary)}
    return fields | summed | {"jitter_ms": figures.jitter}


def _keyed(times: Summary) -> dict[str, Any]:
    return dataclasses.asdict(times) | {"percentiles": {f"{p:g}": ms for p, ms in times.percentiles.items()}}


def _text(times: Summary) -> str:
    parts = [f"p{p:g} {ms:.2f}{'?' if p in times.doubtful else ''}" for p, ms in times.percentiles.items()]
    return f"{'  '.join(parts)}  max {times.max:.2f}  (n {times.n})"


def _tail(figures: Figures) -> str:
    ratio = "–" if figures.tail is None else f"{figures.tail:.2f}"
    return f"{ratio} ({figures.apart:.2f} ms apart)"
