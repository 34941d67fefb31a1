"""Where what will be at a point, some time ahead, is now.

A flow says where each point of the newest frame was before. A point p of the picture Δ ahead was at p + d now, and has
moved there with the velocity that it has now: d = Δ · v(p + d), with v the flow a second (backwards in time). The
fixed point is found by iterating from d = Δ · v(p); it converges where Δ times the velocity's gradient is below 1,
and elsewhere the last iterate is used. Far ahead that fails in many places: there the motion is smoothed first, and
an iteration goes only half of the way, so that it settles where whole ones swing to and fro. The acceleration goes
along with what moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from framecast.runtime.motion.lattice import Floats, pull

FRESH = 0.15  # share of the newest velocity in the steady one
CONVERGED, FAR = 1, 4  # iterations of the fixed point: up to LONG times the flow's own time ahead, and beyond
LONG = 1.5
HALF = 0.5  # how far an iteration far ahead goes, after the first: whole ones swing to and fro where flow is uneven
CALM = 0.0011  # of the lattice's longer side: radius of the box that smooths motion, for each step after the first
CALMEST = 8  # lattice points: largest radius


@dataclass(frozen=True)
class Field:
    """Motion at a frame, on the lattice, towards where each point came from.

    Attributes:
        velocity: [h, w, 2], lattice points a second.
        acceleration: [h, w, 2], lattice points a second squared.
        steady: [h, w, 2], lattice points a second: a mean over the velocities so far of what is seen at a point.
        elapsed: seconds that the velocity is a mean over, up to the frame.
    """

    velocity: Floats
    acceleration: Floats
    steady: Floats
    elapsed: float


def field(flow: Floats, elapsed: float, before: Field | None, grid: Floats) -> Field:
    """The motion at a frame from its ``flow`` [h, w, 2] to the frame ``elapsed`` seconds earlier, and from ``before``.

    Velocities are means over the time between frames, thus hold at its middle: they lie half the sum of the two
    times apart.
    """
    velocity = flow * np.float32(1 / elapsed)
    if before is None:
        return Field(velocity, np.zeros_like(velocity), velocity, elapsed)
    came_from = grid + flow
    change = velocity - pull(before.velocity, came_from)
    change *= np.float32(2 / (elapsed + before.elapsed))
    steady = cv2.addWeighted(velocity, FRESH, pull(before.steady, came_from), 1 - FRESH, 0)
    return Field(velocity, change, cast(Floats, steady), elapsed)


def far(motion: Field, ahead: float) -> bool:
    """Whether ``ahead`` seconds are much more than what the flow spans, so that what is uncertain in it counts."""
    return ahead > LONG * motion.elapsed


def calmed(motion: Field, ahead: float) -> Field:
    """The motion as it is to be followed ``ahead`` seconds: smoothed over more of the lattice the further it goes.

    An error of the flow counts once for each step. What is uneven in it by chance would tear the picture.
    """
    side = max(motion.velocity.shape)
    radius = min(round(CALM * side * (ahead / motion.elapsed - 1)), CALMEST)
    if radius < 1:
        return motion
    box = (2 * radius + 1, 2 * radius + 1)
    velocity, acceleration, steady = (
        cast(Floats, cv2.blur(x, box, borderType=cv2.BORDER_REPLICATE))
        for x in (motion.velocity, motion.acceleration, motion.steady)
    )
    return Field(velocity, acceleration, steady, motion.elapsed)


def displacement(motion: Field, ahead: float, points: Floats) -> Floats:
    """Solve d = ahead · velocity(p + d) at ``points`` [h, w, 2] (lattice coordinates): [h, w, 2], lattice points.

    It is bounded by the lattice's size.
    """

    def step(found: Floats) -> Floats:
        moved = pull(motion.velocity, points + found)
        moved *= np.float32(ahead)
        return moved

    found = step(np.zeros_like(points))
    if not far(motion, ahead):
        for _ in range(CONVERGED):
            found = step(found)
        return found
    for _ in range(FAR):
        found = cast(Floats, cv2.addWeighted(step(found), HALF, found, 1 - HALF, 0))
    limit = float(max(motion.velocity.shape))
    return np.clip(found, -limit, limit, out=found)


def gained(motion: Field, ahead: float, at: Floats) -> Floats:
    """What the acceleration adds to the displacement ``ahead`` seconds later, of what is ``at`` [h, w, 2] now.

    The velocity is a mean over ``elapsed``: by now it has grown by acceleration · elapsed / 2, so that
    v · Δ + a · Δ · elapsed / 2 + a · Δ² / 2 is travelled.
    """
    found = pull(motion.acceleration, at)
    found *= np.float32(ahead * (ahead + motion.elapsed) / 2)
    return found


def steadied(motion: Field, ahead: float, at: Floats, found: Floats) -> Floats:
    """What the displacement ``found`` changes by, if what is ``at`` [h, w, 2] now goes on at its steady velocity."""
    change = pull(motion.steady, at)
    change *= np.float32(ahead)
    change -= found
    return change
