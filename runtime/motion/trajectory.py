"""Trajectories: where the content of a future point is now.

The flow says where each point of the newest frame was one frame earlier. The content that will be at point p in Δ
seconds is now at p + d, and moves there at its present velocity: d = Δ · v(p + d), with v the flow per second,
backwards in time. The fixed point is found by iterating from d = Δ · v(p). This converges where Δ times the velocity's
gradient is below 1; elsewhere the last iterate is used. If Δ is large, it fails to converge in many places. So the
motion is then smoothed first, and each iteration goes only half of the way, which stops oscillation. The acceleration
moves along with the content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from framecast.runtime.motion.lattice import Floats, pull

FRESH = 0.15  # weight of the newest velocity in the steady one, a running mean
CONVERGED, FAR = 1, 4  # iterations of the fixed point: up to LONG times the flow's own time span ahead, and beyond
LONG = 1.5
HALF = 0.5  # far ahead, an iteration goes this share of the way: whole ones oscillate where the flow is uneven
CALM = 0.0011  # radius of the box that smooths motion, per step after the first, as a share of the longer side
CALMEST = 8  # lattice points: the largest radius


@dataclass(frozen=True)
class Field:
    """Motion at a frame, on the lattice, backwards: towards where each point came from.

    Attributes:
        velocity: [h, w, 2], lattice points per second.
        acceleration: [h, w, 2], lattice points per second squared.
        steady: [h, w, 2], lattice points per second: the running mean of the velocity of a point's content.
        elapsed: seconds up to the frame, over which the velocity is a mean.
    """

    velocity: Floats
    acceleration: Floats
    steady: Floats
    elapsed: float


def field(flow: Floats, elapsed: float, before: Field | None, grid: Floats) -> Field:
    """The motion at a frame. Its ``flow`` [h, w, 2] goes back ``elapsed`` seconds, to a frame with motion ``before``.

    A velocity is a mean over the time between two frames, so it holds at the middle of that time. Successive velocities
    lie half the sum of the two times apart.
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
    """Whether ``ahead`` seconds are so much longer than the flow's time span that errors of the flow matter."""
    return ahead > LONG * motion.elapsed


def calmed(motion: Field, ahead: float) -> Field:
    """The motion to follow for ``ahead`` seconds: smoothed over more of the lattice the further it goes.

    An error of the flow adds up with each step, and random unevenness would tear the picture.
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

    Far ahead, the result is clipped to the lattice's size.
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
    """The displacement that acceleration adds in ``ahead`` seconds, for the content that is now ``at`` [h, w, 2].

    The velocity is a mean over ``elapsed``, so by now it has grown by acceleration · elapsed / 2. The displacement is
    v · Δ + a · Δ · elapsed / 2 + a · Δ² / 2.
    """
    found = pull(motion.acceleration, at)
    found *= np.float32(ahead * (ahead + motion.elapsed) / 2)
    return found


def steadied(motion: Field, ahead: float, at: Floats, found: Floats) -> Floats:
    """How the displacement ``found`` changes if the content that is now ``at`` [h, w, 2] moves at steady velocity."""
    change = pull(motion.steady, at)
    change *= np.float32(ahead)
    change -= found
    return change
