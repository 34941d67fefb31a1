"""Telemetry: the measurements of a run. Only the loop writes it. Any number of threads may read snapshots.

Its memory is bounded for a run of any length: it counts latencies in buckets instead of keeping them.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from framecast.runtime.score import Score, Scored

WINDOW = 10_000  # predictions: percentiles cover the last one to two windows
_GROWTH = math.log(1.005)  # ratio of a bucket's upper edge to its lower edge
_LEAST, _MOST = 1e-3, 1e8  # milliseconds: 1 µs to a day
LATELY = 2048  # predictions: ``ahead``, ``shown`` and ``sharpness`` cover the last ones
LOOKAHEADS = 32  # maximum number of lookaheads with separate scores
_BUCKETS = math.ceil(math.log(_MOST / _LEAST) / _GROWTH)


@dataclass(frozen=True)
class Stamps:
    """When a frame passed each stage, in seconds on the run's clock, and the parts of its step.

    Attributes:
        due: when the frame was due. For a camera: ``frame.time`` as read. For a paced clip: when the clip released the
            frame, which is later if the clip falls behind. Otherwise: when the loop took the frame.
        grabbed: when the capture thread had the frame ready, before waiting for room in the mailbox.
        taken: when the loop took the frame out of the mailbox.
        stepped: when the prediction's picture was ready.
        handed: when the sinks got the result.
        step: seconds of the network's step; on a device, until it was enqueued.
        picture_out: seconds from the step to the prediction's picture; on a device, this waits for the step.
    """

    due: float
    grabbed: float
    taken: float
    stepped: float
    handed: float
    step: float
    picture_out: float

    @property
    def picture_in(self) -> float:
        """Seconds of everything else between ``taken`` and ``stepped``: resizing, colour, layout, looking ahead."""
        return self.stepped - self.taken - self.step - self.picture_out

    @property
    def latency(self) -> float:
        """Seconds from ``due`` to ``stepped``."""
        return self.stepped - self.due


class Histogram:
    """Counts durations in buckets 0.5 % wide, so percentiles are within 0.25 %. The maximum is exact.

    Attributes:
        n: the number of durations.
        max: the longest duration in milliseconds.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)
        self.n = 0
        self.max = 0.0

    def add(self, milliseconds: float) -> None:
        """Count a duration."""
        bounded = min(max(milliseconds, _LEAST), _MOST)
        self._counts[min(int(math.log(bounded / _LEAST) / _GROWTH), _BUCKETS - 1)] += 1
        self.n += 1
        self.max = max(self.max, milliseconds)

    def plus(self, other: Histogram) -> Histogram:
        """A new histogram with the durations of both."""
        both = Histogram()
        both._counts[:] = self._counts + other._counts
        both.n, both.max = self.n + other.n, max(self.max, other.max)
        return both

    def percentile(self, percent: float) -> float:
        """The percentile for ``percent`` (0 … 100) in milliseconds; NaN if there are no durations."""
        if not self.n:
            return math.nan
        rank = max(1, math.ceil(self.n * percent / 100 - 1e-9))  # 999 for 99.9 % of 1000
        index = int(np.searchsorted(np.cumsum(self._counts), rank))
        return min(_LEAST * math.exp((index + 0.5) * _GROWTH), self.max)


@dataclass(frozen=True)
class Shown:
    """How close to the present the last pictures were, in seconds, provided that the given camera delay is right.

    Attributes:
        error: median of the moment shown minus the true one.
        spread: 95th percentile of the absolute difference.
        late: median age of the camera's newest picture when its prediction is seen.
        arrivals: 95th percentile of how much earlier or later a frame arrived than its time without jitter. Slow
            changes of the camera's own delay cannot be told from changes of its frame rate, and do not show here.
        n: the number of pictures.
    """

    error: float
    spread: float
    late: float
    arrivals: float
    n: int


@dataclass(frozen=True)
class Snapshot:
    """The figures of a run at one moment. A snapshot does not change.

    Attributes:
        interval: seconds between the camera's frames; None while that is not known.
        ahead: median of the last lookaheads in seconds; None before the first.
        wanted: median of the lookaheads in seconds that were asked for, or needed to show the present.
        frames: number of frames predicted so far.
        dropped: frames of a camera or paced file that were replaced in the mailbox.
        epochs: the number of streams begun. A clip's restart or a new frame size begins one.
        resets: how often a non-finite prediction reset the state.
        seconds: from the first frame's due time to the newest prediction.
        silent: seconds since the newest frame was taken, as of the loop's last wake-up.
        latency: milliseconds from due to stepped, over the last one to two windows of ``WINDOW`` predictions.
        score: the score of all scored predictions.
        scores: the same for each lookahead: whole intervals, in milliseconds.
        rival: the score of the predictions for which DIS flow was computed, with copying's and DIS flow's.
        sharpness: mean gradient energy of predictions, and of copying, divided by the real frames'; None if unknown.
        shown: how close to the present the pictures are; None without ``now``.
        events: counts of ``repeats``, ``cuts`` to another scene, ``gaps`` in time, and predictions replaced by a copy
            (``copied``).
        ended: None during the run, then the reason for its end.
        started: when the run began, in UTC, by the machine's wall clock.
    """

    interval: float | None = None
    ahead: float | None = None
    wanted: float | None = None
    frames: int = 0
    dropped: int = 0
    epochs: int = 0
    resets: int = 0
    seconds: float = 0.0
    silent: float = 0.0
    latency: Histogram = field(default_factory=Histogram)
    score: Score = field(default_factory=Score)
    scores: Mapping[float, Score] = field(default_factory=dict)
    rival: Score = field(default_factory=Score)
    sharpness: tuple[float, float] | None = None
    shown: Shown | None = None
    events: Mapping[str, int] = field(default_factory=dict)
    ended: str | None = None
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


class Telemetry:
    """The single object that a run's loop writes. The report, status line, page and benchmark read it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # readers and the writer hold it only for microseconds
        self._now = Snapshot()
        self._begun: float | None = None
        self._newest = 0.0
        self._windows = [Histogram(), Histogram()]  # the last full one, and the current one
        self._scores: dict[float, Score] = {}
        self._sharpness: deque[tuple[float, float]] = deque(maxlen=LATELY)
        self._ahead: deque[tuple[float, float]] = deque(maxlen=LATELY)
        self._shown: deque[tuple[float, float, float]] = deque(maxlen=LATELY)

    @property
    def scored(self) -> int:
        """The number of scored predictions."""
        return self._now.score.n

    def begin_epoch(self) -> None:
        """Record that a stream begins."""
        with self._lock:
            self._now = replace(self._now, epochs=self._now.epochs + 1)

    def record(
        self,
        stamps: Stamps,
        *,
        interval: float | None,
        resets: int,
        dropped: int,
        ahead: float,
        wanted: float,
        events: Mapping[str, int],
    ) -> None:
        """Record a prediction. An interval that is not known yet is None."""
        with self._lock:
            self._begun = stamps.due if self._begun is None else self._begun
            self._newest = stamps.taken
            if self._windows[1].n >= WINDOW:
                self._windows = [self._windows[1], Histogram()]
            self._windows[1].add(1e3 * stamps.latency)
            self._ahead.append((ahead, wanted))
            self._now = replace(
                self._now,
                frames=self._now.frames + 1,
                dropped=dropped,
                resets=resets,
                interval=self._now.interval if interval is None else interval,
                events=events,
                seconds=stamps.stepped - self._begun,
                silent=0.0,
            )

    def score(self, scored: Scored, interval: float) -> None:
        """Record a scored prediction; the camera's ``interval`` is in seconds."""
        with self._lock:
            now = self._now
            rival = now.rival if scored.rival is None else now.rival.plus(scored.psnr, scored.psnr_copy, scored.rival)
            self._now = replace(now, score=now.score.plus(scored.psnr, scored.psnr_copy), rival=rival)
            ahead = 1e3 * interval * max(1, round(scored.ahead / interval))
            nearest = min(self._scores, key=lambda known: abs(known - ahead), default=ahead)
            if abs(nearest - ahead) > 250 * interval and len(self._scores) < LOOKAHEADS:
                nearest = ahead  # a new one; smaller differences come from the interval, which is an estimate
            self._scores[nearest] = self._scores.get(nearest, Score()).plus(scored.psnr, scored.psnr_copy)

    def sharpness(self, prediction: float, copy_last: float) -> None:
        """Record the gradient energy of a prediction, and of copying, divided by the real frame's."""
        with self._lock:
            self._sharpness.append((prediction, copy_last))

    def show(self, error: float, late: float, arrival: float = 0.0) -> None:
        """Record a picture that was shown, in seconds: see :class:`Shown`."""
        with self._lock:
            self._shown.append((error, late, arrival))

    def wake(self, now: float, dropped: int) -> None:
        """Record that the loop woke up and found no frame."""
        with self._lock:
            silent = now - self._newest if self._begun is not None else 0.0
            self._now = replace(self._now, silent=silent, dropped=dropped)

    def end(self, reason: str, resets: int | None = None) -> None:
        """Record why the run ended, and the final number of resets, if given."""
        with self._lock:
            resets = self._now.resets if resets is None else resets
            self._now = replace(self._now, ended=" ".join(reason.split()), resets=resets)

    def snapshot(self) -> Snapshot:
        """The figures so far. May be called from any thread."""
        with self._lock:
            now, latency = self._now, self._windows[0].plus(self._windows[1])
            scores, ahead, shown, sharp = dict(self._scores), [*self._ahead], [*self._shown], [*self._sharpness]
        medians = np.median(ahead, axis=0) if ahead else (None, None)
        return replace(
            now,
            latency=latency,
            scores=scores,
            ahead=None if medians[0] is None else float(medians[0]),
            wanted=None if medians[1] is None else float(medians[1]),
            shown=_shown(np.array(shown)) if shown else None,
            sharpness=(float(np.mean([p for p, _ in sharp])), float(np.mean([c for _, c in sharp]))) if sharp else None,
        )


def _shown(pictures: NDArray[np.float64]) -> Shown:
    """Summarize [n, 3] errors, lateness and arrivals, in seconds."""
    errors, late, arrivals = pictures.T
    spread, apart = (float(np.percentile(np.abs(column), 95)) for column in (errors, arrivals))
    return Shown(float(np.median(errors)), spread, float(np.median(late)), apart, len(pictures))
