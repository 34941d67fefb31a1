"""What is kept of one frame: its pictures and its motion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from framecast.runtime.motion.lattice import Floats, Greys
from framecast.runtime.motion.trajectory import Field


@dataclass(frozen=True)
class Moment:
    """One frame, as later frames and pictures ahead of it need it. Nothing in it is ever written again.

    Attributes:
        time: seconds since the first frame.
        greys: its brightness at the two sizes of the flow.
        picture: the frame as its mixture takes it: uint8 BGRA, or float32 BGR [H, W, …].
        blurred: the picture, blurred.
        filtered: a mean over the frames so far, each pulled along its motion, so that noise averages out.
        previous: the frame before, as ``picture``; the first frame itself.
        motion: on the lattice; None for the first frame.
    """

    time: float
    greys: Greys
    picture: NDArray[Any]
    blurred: NDArray[Any]
    filtered: NDArray[Any]
    previous: NDArray[Any]
    motion: Field | None
    flow: Floats | None
