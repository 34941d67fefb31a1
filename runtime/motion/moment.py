"""The data kept from one frame: its pictures and its motion."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from framecast.runtime.motion.lattice import AnyArray, Floats, Greys
from framecast.runtime.motion.trajectory import Field

NONE = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class Pictures:
    """The pictures that a mixture keeps. Large ones need only the first two, as uint8; small ones are float32.

    Attributes:
        frame: the frame [H, W, 3], BGR.
        blurred: the blurred frame, or for small pictures its blurred brightness.
        grey: the frame's brightness [H, W].
        filtered: the frame's brightness [H, W] as predicted from earlier frames.
        before: the frame before it [H, W, 3].
        grey_before: the brightness of the frame before it [H, W].
    """

    frame: AnyArray
    blurred: AnyArray
    grey: Floats = field(default_factory=lambda: NONE)
    filtered: Floats = field(default_factory=lambda: NONE)
    before: Floats = field(default_factory=lambda: NONE)
    grey_before: Floats = field(default_factory=lambda: NONE)


@dataclass(frozen=True)
class Moment:
    """The data of one frame that later frames and predictions need. It never changes.

    Attributes:
        time: seconds since the first frame.
        greys: the frame's brightness at the two sizes that the flow uses.
        pictures: the pictures that the mixture keeps.
        motion: the motion on the lattice; None for the first frame.
    """

    time: float
    greys: Greys
    pictures: Pictures
    motion: Field | None


@dataclass(frozen=True)
class Draft:
    """Results of rendering about one step ahead, kept until the predicted frame arrives.

    Attributes:
        ahead: lookahead in seconds.
        grey: brightness of the picture, float [H, W].
        told: the guesses at the sample points.
    """

    ahead: float
    grey: Floats
    told: Floats
