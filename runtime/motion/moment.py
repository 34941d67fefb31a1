"""What is kept of one frame: its pictures and its motion."""

from __future__ import annotations

from dataclasses import dataclass

from framecast.runtime.motion.lattice import AnyArray, Floats, Greys
from framecast.runtime.motion.trajectory import Field


@dataclass(frozen=True)
class Pictures:
    """What a mixture keeps of a frame: uint8 [H, W, 3] for large pictures, else float32.

    Attributes:
        frame: the frame, BGR.
        blurred: the frame, blurred.
        grey: brightness [H, W], and ``filtered``: what had been predicted for it. Both for small pictures alone,
            as is ``before``: the frame before, and its brightness.
    """

    frame: AnyArray
    blurred: AnyArray
    grey: Floats | None = None
    filtered: Floats | None = None
    before: tuple[Floats, Floats] | None = None


@dataclass(frozen=True)
class Moment:
    """One frame, as later frames and pictures ahead of it need it. Nothing in it is ever written again.

    Attributes:
        time: seconds since the first frame.
        greys: its brightness at the two sizes of the flow.
        pictures: what its mixture keeps of it.
        motion: on the lattice; None for the first frame.
    """

    time: float
    greys: Greys
    pictures: Pictures
    motion: Field | None


@dataclass(frozen=True)
class Draft:
    """What a picture of about one step ahead leaves for the frame that it foresees.

    Attributes:
        ahead: seconds.
        grey: brightness of the picture, float [H, W].
        told: the guesses at the sample points.
    """

    ahead: float
    grey: Floats
    told: Floats
