"""The mixture for small pictures: every guess is made at full size, in float, and they are mixed exactly.

On small pictures, one warp of a mixed source would lose 0.4 dB, and 8-bit guesses or grey statistics would lose as much
on still scenes. Guesses that need a warp are made in brightness only, which is added to all channels.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from framecast.camera.source import Image
from framecast.runtime.motion.lattice import AnyArray, Floats, Lattice, points, pull
from framecast.runtime.motion.moment import Draft, Moment, Pictures
from framecast.runtime.motion.trajectory import Field, calmed, displacement, far, gained, steadied

BLOCK = 32  # pixels: side of a block with separate weights
APART = 2  # pixels between samples
KEPT = 0.5  # weight of the last filtered picture in the next one, if no picture was rendered for the frame's time
BLUR = 2  # pixels: radius of the blur
SPREAD = 8.0  # pixels per second ahead: added to that radius for moments far ahead
TRUST = 0.7  # initial weight of constant velocity; the copy gets the rest


class Mixed:
    """Guesses and pictures of one size. It is stateless except for scratch memory: make one call at a time."""

    coloured = ("copy", "previous")
    grey = ("aligned", "earlier", "half", "faster", "steady", "blurred", "soft", "filtered")
    names = (*coloured, *grey)

    def __init__(self, lattice: Lattice) -> None:
        self.lattice = lattice
        self.prior = np.array([1 - TRUST, *[0] * (len(self.names) - 1)], np.float32)
        self.local = list(range(len(self.names)))
        width, height = lattice.size
        self.blocks = (max(1, height // BLOCK), max(1, width // BLOCK))
        self._grid = points(width, height)
        self._made: dict[tuple[int, int], tuple[Floats, Floats]] = {}

    def remembered(self, image: Image, before: Moment | None, motion: Field | None, draft: Draft | None) -> Pictures:
        """The pictures that later frames and predictions need. ``draft`` was rendered for the same time beforehand."""
        frame = image.astype(np.float32)
        grey = cast(Floats, cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
        soft = cast(Floats, cv2.blur(grey, (2 * BLUR + 1, 2 * BLUR + 1)))
        if before is None or motion is None:
            return Pictures(frame, soft, grey, grey, frame, grey)
        past = before.pictures
        if draft is None:
            mean = cv2.addWeighted(past.filtered, KEPT, past.grey, 1 - KEPT, 0)
            filtered = pull(mean, self._grid + self._full(motion.velocity * np.float32(motion.elapsed)))
        else:
            filtered = draft.grey
        return Pictures(frame, soft, grey, filtered, past.frame, past.grey)

    def sampled(self, pictures: Pictures) -> Floats:
        """The truth at the sample points: [h, w, 3]."""
        return cast(Floats, pictures.frame[::APART, ::APART])

    def told(self, moment: Moment, motion: Field, ahead: float) -> Floats:
        """The guesses ``ahead`` seconds after ``moment`` at the sample points: [1 + N, h, w, 3].

        All but the first are differences from the first.
        """
        return _joined(*self._guesses(moment, motion, ahead, APART), 1)

    def render(self, moment: Moment, motion: Field, ahead: float, weights: Floats) -> tuple[Image, Draft]:
        """The picture ``ahead`` seconds after ``moment``: [H, W, 3], with ``weights`` [rows, columns, N]."""
        reference, coloured, grey = self._guesses(moment, motion, ahead, 1)
        fine = [cv2.resize(np.ascontiguousarray(weights[..., i]), self.lattice.size) for i in range(len(self.names))]
        light = np.zeros_like(grey[0])
        for weight, guess in zip(fine[len(coloured) :], grey, strict=True):
            cv2.accumulateProduct(weight, guess, light)
        mixture = cv2.add(reference, cv2.merge([light] * 3))
        for weight, guess in zip(fine, coloured, strict=False):
            cv2.accumulateProduct(cv2.merge([weight] * 3), guess, mixture)
        picture = cast(Image, cv2.convertScaleAbs(np.maximum(mixture, 0)))
        foreseen = cast(Floats, np.clip(cv2.cvtColor(mixture, cv2.COLOR_BGR2GRAY), 0, 255))
        return picture, Draft(ahead, foreseen, _joined(reference, coloured, grey, APART))

    def _guesses(
        self, moment: Moment, motion: Field, ahead: float, apart: int
    ) -> tuple[Floats, list[Floats], list[Floats]]:
        """Constant velocity, then the other guesses as differences from it: those in colour, those in brightness.

        They hold every ``apart``-th pixel, and are valid until the next call.
        """
        lattice, pictures, motion = self.lattice, moment.pictures, calmed(motion, ahead)
        grid = np.ascontiguousarray(self._grid[::apart, ::apart])
        flat = displacement(motion, ahead, lattice.grid)
        now = lattice.grid + flat
        extra, change = gained(motion, ahead, now), steadied(motion, ahead, now, flat)
        found, extra, change, flow = (
            np.ascontiguousarray(self._full(x)[::apart, ::apart])
            for x in (flat, extra, change, motion.velocity * np.float32(motion.elapsed))
        )
        at, back = grid + found, np.float32((ahead + motion.elapsed) / ahead)
        reference = pull(pictures.frame, at)
        dark = cv2.cvtColor(reference, cv2.COLOR_BGR2GRAY)
        every = slice(None, None, apart)
        soft = self._soft(pictures, motion, ahead)
        coloured = (np.ascontiguousarray(x[every, every]) for x in (pictures.frame, pictures.before))
        reads = (
            (pictures.grey_before, grid + flow),
            (pictures.grey_before, grid + found * back),
            (pictures.grey, grid + np.float32(0.5) * found),
            (pictures.grey, at + extra),
            (pictures.grey, at + change),
            (soft, at),
            (soft, grid),
            (pictures.filtered, at),
        )
        light, colour = self._scratch(*dark.shape)
        grey = [pull(source, places, out) for (source, places), out in zip(reads, light, strict=True)]
        for guess in grey:
            cv2.subtract(guess, dark, dst=guess)
        return (
            reference,
            [cast(Floats, cv2.subtract(x, reference, dst=out)) for x, out in zip(coloured, colour, strict=True)],
            grey,
        )

    def _soft(self, pictures: Pictures, motion: Field, ahead: float) -> AnyArray:
        """The brightness [H, W], blurred more for moments further ahead."""
        if not far(motion, ahead):
            return pictures.blurred
        side = 2 * round(BLUR + SPREAD * ahead) + 1
        return cast(AnyArray, cv2.blur(pictures.grey, (side, side)))

    def _scratch(self, height: int, width: int) -> tuple[Floats, Floats]:
        """Buffers for guesses of one size, in brightness and in colour. New memory would cost page faults each time."""
        if (height, width) not in self._made:
            light = np.empty((len(self.grey), height, width), np.float32)
            self._made[height, width] = light, np.empty((len(self.coloured), height, width, 3), np.float32)
        return self._made[height, width]

    def _full(self, found: Floats) -> Floats:
        """Displacements in pixels at full size, from those on the lattice."""
        return cast(Floats, cv2.resize(found * self.lattice.scale, self.lattice.size, interpolation=cv2.INTER_LINEAR))


def _joined(reference: Floats, coloured: list[Floats], grey: list[Floats], apart: int) -> Floats:
    """All guesses at every ``apart``-th pixel, in colour: [1 + N, h, w, 3]."""
    first = reference[::apart, ::apart]
    joined = np.empty((1 + len(coloured) + len(grey), *first.shape), np.float32)
    for into, guess in zip(joined, (reference, *coloured, *grey), strict=True):
        some = guess[::apart, ::apart]
        into[:] = some if some.ndim == into.ndim else some[..., None]
    return joined
