"""Where what will be at a point, some time ahead, is now.

A flow says where each point of the newest frame was before. A point p of the picture Δ ahead was at p + d now, and has
moved there with the velocity that it has now: d = Δ · v(p + d), with v the flow a second (backwards in time). The
fixed point is found by iterating from d = Δ · v(p); it converges where Δ times the velocity's gradient is below 1,
and elsewhere the last iterate is used. The acceleration goes along with what moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from framecast.runtime.motion.lattice import Floats, pull


@dataclass(frozen=True)
class Field:
    """Motion at a frame, on the lattice.

    Attributes:
        velocity: [h, w, 2], lattice points a second, towards where each point came from.
        acceleration: [h, w, 2], lattice points a second squared, in the same sense.
        elapsed: seconds that the velocity is a mean over, up to the frame.
    """

    velocity: Floats
    acceleration: Floats
    elapsed: float


def field(flow: Floats, elapsed: float, before: Field | None, grid: Floats) -> Field:
    """The motion at a frame from its ``flow`` [h, w, 2] to the frame ``elapsed`` seconds earlier, and from ``before``.

    Velocities are means over the time between frames, thus hold at its middle: they lie half the sum of the two
    times apart.
    """
    velocity = flow * np.float32(1 / elapsed)
    if before is None:
        return Field(velocity, np.zeros_like(velocity), elapsed)
    change = velocity - pull(before.velocity, grid + flow)
    return Field(velocity, change * np.float32(2 / (elapsed + before.elapsed)), elapsed)


def displacement(velocity: Floats, ahead: float, grid: Floats, elapsed: float) -> Floats:
    """Solve d = ahead · velocity(p + d) for each point p of ``grid`` [h, w, 2]: [h, w, 2], lattice points."""
    scaled = velocity * np.float32(ahead)
    found = scaled
    for _ in range(2 if ahead <= 1.5 * elapsed else 4):
        found = pull(scaled, grid + found)
    return found


def gained(motion: Field, ahead: float, at: Floats) -> Floats:
    """What the acceleration adds to the displacement ``ahead`` seconds later, of what is ``at`` [h, w, 2] now.

    The velocity is a mean over ``elapsed``: by now it has grown by acceleration · elapsed / 2, so that
    v · Δ + a · Δ · elapsed / 2 + a · Δ² / 2 is travelled.
    """
    return pull(motion.acceleration, at) * np.float32(ahead * (ahead + motion.elapsed) / 2)
