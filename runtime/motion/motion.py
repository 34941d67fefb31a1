"""What is known after a frame, how a frame changes it, and the picture of a moment ahead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from statistics import median

import numpy as np

from framecast.camera.source import Image
from framecast.runtime.motion import learn, trajectory
from framecast.runtime.motion.flow import Flow
from framecast.runtime.motion.lattice import Floats, Lattice
from framecast.runtime.motion.mixed import Mixed
from framecast.runtime.motion.moment import Moment
from framecast.runtime.motion.warped import Warped

SMALL = 400 * 300  # pixels: up to here a picture is mixed exactly
FURTHEST = 16  # steps ahead that have statistics of their own
PATIENCE = 30  # frames for which a horizon is learned after it was last asked for
RECENT = 9  # frames whose median distance in time is a step


@dataclass(frozen=True)
class Seen:
    """What is known after a frame. ``Motion.perceive`` makes it; ``Motion.render`` notes in ``asked`` what it made.

    Attributes:
        moments: the newest frame, then older ones, as many as the horizons asked for need.
        intervals: seconds between the last frames, newest last.
        statistics: products of guesses and truth by horizon, in steps: [blocks, N + 1, N + 1] each.
        asked: frames since a horizon, in steps, was last asked for.
        learned: frames since a horizon was last learned.
    """

    moments: tuple[Moment, ...]
    intervals: tuple[float, ...] = ()
    statistics: Mapping[int, Floats] = field(default_factory=dict)
    asked: dict[int, int] = field(default_factory=dict)
    learned: Mapping[int, int] = field(default_factory=dict)

    @property
    def interval(self) -> float:
        """Seconds of one step: the median of the last ones. NaN after the first frame."""
        return median(self.intervals) if self.intervals else float("nan")


class Motion:
    """The motion model of one picture size. It holds no stream, but scratch: one call at a time.

    Args:
        width: of the pictures.
        height: of the pictures.
        fast: cheaper, and a little worse.
    """

    def __init__(self, width: int, height: int, *, fast: bool = False) -> None:
        self.lattice = Lattice(width, height)
        self.fast = fast
        self._flow = Flow(self.lattice)
        self._mixture: Mixed | Warped = (Mixed if width * height <= SMALL else Warped)(self.lattice)

    def perceive(self, before: Seen | None, image: Image, elapsed: float) -> Seen:
        """Take in a frame.

        Args:
            before: what was known after the frame before; it is not written to. None for the first frame.
            image: uint8 [H, W, 3], BGR. It must not be written to afterwards.
            elapsed: seconds since the frame before, above 0; ignored for the first frame.
        """
        mixture, greys = self._mixture, self.lattice.greys(image)
        picture = mixture.picture(image)
        blurred = mixture.blurred(picture)
        if before is None:
            return Seen((Moment(0.0, greys, picture, blurred, picture, picture, None, None),))
        last = before.moments[0]
        flow = self._flow(greys, last.greys)
        motion = trajectory.field(flow, elapsed, last.motion, self.lattice.grid)
        filtered = mixture.filtered(last, flow)
        moment = Moment(last.time + elapsed, greys, picture, blurred, filtered, last.picture, motion, flow)
        intervals = (*before.intervals, elapsed)[-RECENT:]
        asked = {k: n + 1 for k, n in before.asked.items() if n < PATIENCE} or {1: 0}
        depth = max(asked)
        seen = Seen((moment, *islice(before.moments, depth)), intervals, before.statistics, asked)
        return self._taught(seen, before.learned)

    def render(self, seen: Seen, ahead: float) -> Image:
        """The picture ``ahead`` seconds after the newest frame, 0 or more: a new uint8 [H, W, 3], BGR.

        Before there was motion, and 0 seconds ahead, it is the newest frame itself.
        """
        moment = seen.moments[0]
        if moment.motion is None or ahead <= 0:
            return np.array(moment.picture[..., :3], np.uint8)
        steps = ahead / seen.interval
        for horizon, share in _neighbours(steps):
            if share > 0.1:
                seen.asked[horizon] = 0
        return self._mixture.render(moment, moment.motion, ahead, self._weights(seen, steps))

    def fields(self, seen: Seen, ahead: float) -> dict[str, Floats]:
        """What is to be drawn: ``flow`` [h, w, 2] in pixels a second, and each guess's weight [rows, columns]."""
        moment = seen.moments[0]
        if moment.motion is None:
            return {}
        weights = self._weights(seen, ahead / seen.interval)
        drawn = {"flow": -moment.motion.velocity * self.lattice.scale}
        return drawn | {name: weights[..., i] for i, name in enumerate(self._mixture.names)}

    def earned(self, seen: Seen, ahead: float) -> dict[str, tuple[float, float]]:
        """What each guess has been worth lately, ``ahead`` seconds ahead: dB alone, and dB lost without it.

        Under "all", twice what all together gain on constant velocity; see :func:`learn.earned`.
        """
        known = None if seen.moments[0].motion is None else _nearest(seen.statistics, round(ahead / seen.interval))
        if known is None:
            return {}
        together, each = learn.earned(known, self._mixture.prior)
        named = zip(self._mixture.names, each.tolist(), strict=True)
        return {"all": (together, together), **{name: (alone, without) for name, (alone, without) in named}}

    def _taught(self, seen: Seen, learned: Mapping[int, int]) -> Seen:
        """Compare what was guessed for the newest frame's moment with what came."""
        newest, interval = seen.moments[0], seen.interval
        statistics = dict(seen.statistics)
        for horizon in seen.asked:
            past = [m for m in seen.moments[1:] if m.motion is not None]
            if not past:
                break
            moment = min(past, key=lambda m: abs(newest.time - m.time - horizon * interval))
            ahead = newest.time - moment.time
            steps = ahead / interval
            if abs(steps - horizon) > 0.5 or moment.motion is None:
                continue
            told = self._mixture.told(moment, moment.motion, ahead)
            miss = self._mixture.sampled(newest.picture) - told[0]
            new = learn.products(np.concatenate([told[1:], miss[None]]), *self._mixture.blocks)
            known = statistics.get(horizon, _nearest(statistics, horizon))
            statistics[horizon] = learn.updated(known, new)
        return Seen(seen.moments, seen.intervals, statistics, seen.asked, learned)

    def _weights(self, seen: Seen, steps: float) -> Floats:
        """The weights [rows, columns, N] of a picture ``steps`` ahead."""
        rows, columns = self._mixture.blocks
        prior = self._mixture.prior
        mixed: Floats | None = None
        for horizon, share in _neighbours(steps):
            known = _nearest(seen.statistics, horizon)
            if known is not None and share > 0:
                part = known * np.float32(share)
                mixed = part if mixed is None else mixed + part
        found = np.tile(prior, (rows * columns, 1)) if mixed is None else learn.weights(mixed, prior)
        return found.reshape(rows, columns, -1) * np.float32(min(1.0, steps))


def _neighbours(steps: float) -> tuple[tuple[int, float], ...]:
    """The whole steps around ``steps``, and how much each counts."""
    steps = min(max(steps, 1.0), float(FURTHEST))
    below = int(steps)
    return (below, 1 - (steps - below)), (min(below + 1, FURTHEST), steps - below)


def _nearest(statistics: Mapping[int, Floats], horizon: int) -> Floats | None:
    return statistics[min(statistics, key=lambda k: (abs(k - horizon), k))] if statistics else None
