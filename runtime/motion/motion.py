"""The state after a frame, how a frame updates it, and the picture of a moment ahead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from statistics import median

import numpy as np

from framecast.camera.source import Image
from framecast.runtime.motion import learn, trajectory
from framecast.runtime.motion.flow import Flow
from framecast.runtime.motion.lattice import Floats, Lattice
from framecast.runtime.motion.mixed import Mixed
from framecast.runtime.motion.moment import Draft, Moment
from framecast.runtime.motion.warped import Warped

SMALL = 400 * 300  # pixels: pictures up to this size are mixed exactly
FURTHEST = 16  # most steps ahead with separate statistics
PATIENCE = 30  # frames: a horizon is learned for so long after a picture last needed it
MISSED = 1.5  # steps: if a frame comes later, others are missing
RECENT = 9  # intervals between frames whose median is a step
GOLDEN = (5**0.5 - 1) / 2  # multiples of the golden ratio follow no rhythm
SHORTEST = 1e-3  # seconds between frames: less is a wrong time stamp
SAME = 0.05  # steps: two times this close are taken as equal
NEGLIGIBLE = 0.1  # weight of a horizon in an interpolation below which it is not learned
KEPT = 256 << 20  # bytes that old frames may take; larger pictures get fewer horizons


@dataclass
class Notes:
    """What rendering records for the next frame.

    Attributes:
        asked: for each horizon in steps, how many frames ago a picture last needed it.
        draft: of a picture about one step ahead, if one was rendered.
        turn: counts frames. If there are several horizons, each frame teaches half of them.
        known: the horizons that were asked for before.
    """

    asked: dict[int, int] = field(default_factory=dict)
    draft: Draft | None = None
    turn: int = 0
    known: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Seen:
    """The state after a frame. ``Motion.perceive`` makes it; ``Motion.render`` writes only to its ``notes``.

    Attributes:
        moments: the newest frame, then as many older ones as the horizons need.
        intervals: seconds between the last frames, newest last.
        statistics: products of guesses and truth by horizon, in steps: [blocks, N + 1, N + 1] each.
        notes: for the next frame.
    """

    moments: tuple[Moment, ...]
    intervals: tuple[float, ...] = ()
    statistics: Mapping[int, Floats] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)

    @property
    def interval(self) -> float:
        """Seconds of one step: the median of the last intervals. NaN after the first frame."""
        return median(self.intervals) if self.intervals else float("nan")


class Motion:
    """The motion model for one picture size. It is stateless except for scratch memory: make one call at a time.

    Args:
        width: the pictures' width.
        height: the pictures' height.
        fast: make it cheaper and a little worse. For small pictures this changes only the flow.
    """

    def __init__(self, width: int, height: int, *, fast: bool = False) -> None:
        self.lattice = Lattice(width, height)
        self._flow = Flow(self.lattice, fast=fast)
        small = width * height <= SMALL
        self._deepest = max(1, min(FURTHEST, KEPT // (2 * 3 * width * height)))  # a frame and its blurred copy
        self._mixture: Mixed | Warped = Mixed(self.lattice) if small else Warped(self.lattice, fast=fast)

    def perceive(self, before: Seen | None, image: Image, elapsed: float) -> Seen:
        """Take in a frame.

        Args:
            before: the state after the previous frame, which is not changed. None for the first frame.
            image: uint8 [H, W, 3], BGR.
            elapsed: seconds since the previous frame; ignored for the first frame.
        """
        elapsed = max(elapsed, SHORTEST)
        mixture, greys = self._mixture, self.lattice.greys(image)
        if before is None:
            return Seen((Moment(0.0, greys, mixture.remembered(image, None, None, None), None),))
        last = before.moments[0]
        flow = self._flow(greys, last.greys)
        motion = trajectory.field(flow, elapsed, last.motion, self.lattice.grid)
        draft = before.notes.draft
        if draft is not None and abs(draft.ahead - elapsed) > SAME * elapsed:
            draft = None
        pictures = mixture.remembered(image, last, motion, draft)
        moment = Moment(last.time + elapsed, greys, pictures, motion)
        asked = {k: n + 1 for k, n in before.notes.asked.items() if n < PATIENCE}
        if elapsed > MISSED * before.interval:  # pictures that concealed missing frames need no lessons
            asked = {k: n for k, n in asked.items() if k in before.notes.known}
        asked = asked or {1: PATIENCE - 1}  # if no picture was rendered
        moments = (moment, *islice(before.moments, max(asked)))
        intervals = (*before.intervals, elapsed)[-RECENT:]
        turn = before.notes.turn + 1
        # Each frame teaches every other horizon, so that a moment between two horizons costs one sampling. The
        # choice of half follows no rhythm, because the stream may have one.
        horizons = sorted(asked)[int(2 * (turn * GOLDEN % 1)) :: 2] if len(asked) > 1 else [*asked]
        statistics = self._taught(before.statistics, moments, median(intervals), horizons, draft)
        return Seen(moments, intervals, statistics, Notes(asked, turn=turn, known=frozenset(asked)))

    def render(self, seen: Seen, ahead: float) -> Image:
        """The picture ``ahead`` seconds after the newest frame, 0 or more: a new uint8 [H, W, 3], BGR.

        After the first frame, and 0 seconds ahead, it is the newest frame itself.
        """
        moment = seen.moments[0]
        if moment.motion is None or ahead <= 0:
            return moment.pictures.frame.astype(np.uint8)
        steps = ahead / seen.interval
        seen.notes.asked.update(
            (horizon, 0) for horizon, share in _neighbours(steps, self._deepest) if share > NEGLIGIBLE
        )
        picture, draft = self._mixture.render(moment, moment.motion, ahead, self._weights(seen, steps))
        if abs(steps - 1) <= SAME:
            seen.notes.draft = draft
        return picture

    def fields(self, seen: Seen, ahead: float) -> dict[str, Floats]:
        """For ``inspect`` to draw: ``flow`` [h, w, 2] in pixels per second, and each guess's weight [rows, columns]."""
        moment = seen.moments[0]
        if moment.motion is None:
            return {}
        weights = self._weights(seen, ahead / seen.interval)
        drawn = {"flow": -moment.motion.velocity * self.lattice.scale}
        return drawn | {name: weights[..., i] for i, name in enumerate(self._mixture.names)}

    def earned(self, seen: Seen, ahead: float) -> dict[str, tuple[float, float]]:
        """For each guess ``ahead`` seconds ahead, in dB: its recent gain on its own, and the loss without it.

        ``all`` holds the gain of all guesses together over constant velocity, twice; see :func:`learn.earned`.
        """
        known = _nearest(seen.statistics, round(ahead / seen.interval)) if seen.intervals else None
        if known is None:
            return {}
        together, each = learn.earned(known, self._mixture.prior)
        named = zip(self._mixture.names, each.tolist(), strict=True)
        return {"all": (together, together), **{name: (alone, without) for name, (alone, without) in named}}

    def _taught(
        self,
        known: Mapping[int, Floats],
        moments: tuple[Moment, ...],
        interval: float,
        horizons: Iterable[int],
        draft: Draft | None,
    ) -> Mapping[int, Floats]:
        """The statistics by horizon, after comparing guesses of the newest frame with the truth.

        For each horizon, guesses are made again from the frame that is that many steps old, for exactly the time since
        then. If no frame is that old, the oldest one is used.
        """
        newest, statistics = moments[0], dict(known)
        times = [newest.time - moment.time for moment in moments]
        known_motion = [i for i in range(1, len(moments)) if moments[i].motion is not None]
        wanted = {min(known_motion, key=lambda i: abs(times[i] - k * interval)) for k in horizons if known_motion}
        for i in wanted:
            motion, horizon = moments[i].motion, round(times[i] / interval)
            if motion is None or not 1 <= horizon <= self._deepest:
                continue
            drafted = draft.told if draft is not None and i == 1 else None
            told = drafted if drafted is not None else self._mixture.told(moments[i], motion, times[i])
            miss = self._mixture.sampled(newest.pictures) - told[0]
            new = learn.products(np.concatenate([told[1:], miss[None]]), *self._mixture.blocks)
            statistics[horizon] = learn.updated(_nearest(known, horizon), new)
        return statistics

    def _weights(self, seen: Seen, steps: float) -> Floats:
        """The weights [rows, columns, N] of a picture ``steps`` ahead, solved from interpolated statistics."""
        mixture = self._mixture
        rows, columns = mixture.blocks
        if not seen.statistics:
            found = np.tile(mixture.prior, (rows * columns, 1))
        else:
            parts = [
                _nearest(seen.statistics, horizon) * np.float32(share)
                for horizon, share in _neighbours(steps, self._deepest)
                if share > 0
            ]
            found = learn.weights(sum(parts[1:], start=parts[0]), mixture.prior, mixture.local)
        shaped: Floats = found.reshape(rows, columns, -1) * np.float32(min(1.0, steps))
        return shaped


def _neighbours(steps: float, deepest: int) -> tuple[tuple[int, float], ...]:
    """The whole steps around ``steps``, up to ``deepest``, and the weight of each."""
    steps = min(max(steps, 1.0), float(deepest))
    below = int(steps)
    return (below, 1 - (steps - below)), (min(below + 1, deepest), steps - below)


def _nearest(statistics: Mapping[int, Floats], horizon: int) -> Floats | None:
    """The statistics of the horizon nearest to ``horizon``."""
    return statistics[min(statistics, key=lambda k: (abs(k - horizon), k))] if statistics else None
