"""The mixture of large pictures: learned from samples at the lattice's points, rendered with one warp.

Guesses differ from constant velocity by a displacement or by their source, and are mixed before the warp: the source
is the frame, mixed with a blurred one; the displacement is scaled, and acceleration and steady velocity change it. Only
the copy is blended afterwards. On large pictures this comes to the same as the mixture of the warped guesses, at a
fraction of its cost.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from framecast.camera.source import Image
from framecast.runtime.motion.lattice import AnyArray, Floats, Lattice, points, pull
from framecast.runtime.motion.moment import Draft, Moment, Pictures
from framecast.runtime.motion.trajectory import Field, calmed, displacement, far, gained, steadied

BLOCKS = (9, 16)  # rows and columns of the weights
APART = 2  # lattice points between samples
DERIVED = 0.25  # share of the displacement: the guess that stands for the derivative along it
BLUR = 5  # pixels a side
SPREAD = 7.0  # lattice points a second: radius of the blur of the lattice's picture, for moments far ahead
LIMITS = (3.0, 1.0, 1.0)  # largest weights of the displacements: faster, accelerated, steady
TRUST = 0.7  # in constant velocity against the copy, while nothing is known


class Warped:
    """Guesses and pictures of one size. Holds no stream, but scratch: one call at a time."""

    names = ("copy", "blurred", "faster", "accelerated", "steady")
    blocks = BLOCKS

    def __init__(self, lattice: Lattice, *, fast: bool = False) -> None:
        self.lattice = lattice
        self.local = [0, 2, 3, 4] if fast else [0, 1, 2, 3, 4]
        self.prior = np.array([1 - TRUST, 0, 0, 0, 0], np.float32)
        width, height = lattice.size
        self._grid = points(width, height)
        self._map = np.empty_like(self._grid)
        x, y = (
            np.floor((np.arange(APART // 2, count, APART) + 0.5) * size / count).astype(np.float32)
            for count, size in zip(lattice.coarse, lattice.size, strict=True)
        )
        self._samples = np.dstack(np.meshgrid(x, y))  # sample points, in pixels
        self._points = (self._samples + np.float32(0.5)) / lattice.scale - np.float32(0.5)

    def remembered(self, image: Image, before: Moment | None, motion: Field | None, draft: Draft | None) -> Pictures:
        """What later frames and pictures ahead need of ``image``."""
        return Pictures(image.copy(), cast(AnyArray, cv2.blur(image, (BLUR, BLUR))))

    def sampled(self, pictures: Pictures) -> Floats:
        """What came at the sample points: [h, w, 3]."""
        return pull(pictures.frame, self._samples).astype(np.float32)

    def told(self, moment: Moment, motion: Field, ahead: float) -> Floats:
        """The guesses ``ahead`` seconds after ``moment`` at the sample points, but for the first as differences to it.

        [1 + N, h, w, 3].
        """
        found, *ways = (x * self.lattice.scale for x in self._paths(motion, ahead, self._points))
        frame, blurred = moment.pictures.frame, self._blurred(moment.pictures, motion, ahead)
        at = self._samples + found
        reads = ((frame, at), (frame, self._samples), (blurred, at), *((frame, at + way) for way in ways))
        values = np.stack([pull(picture, places) for picture, places in reads]).astype(np.float32)
        values[1:] -= values[0]
        return values

    def render(self, moment: Moment, motion: Field, ahead: float, weights: Floats) -> tuple[Image, None]:
        """The picture ``ahead`` seconds after ``moment``: [H, W, 3], with ``weights`` [rows, columns, N]."""
        found = self._mixed(motion, ahead, weights[..., 2:])
        frame, blurred = moment.pictures.frame, self._blurred(moment.pictures, motion, ahead)
        if 1 in self.local:
            source = self._blended(frame, blurred, weights[..., 1])
        else:
            share = float(weights[..., 1].mean())
            source = cv2.addWeighted(frame, 1 - share, blurred, share, 0)
        # A warp of four channels takes half the time of one of three.
        moved = pull(cv2.cvtColor(source, cv2.COLOR_BGR2BGRA), self._full(found))
        moved = cv2.cvtColor(moved, cv2.COLOR_BGRA2BGR)
        return self._blended(moved, frame, weights[..., 0]), None

    def _mixed(self, motion: Field, ahead: float, weights: Floats) -> Floats:
        """The displacement [h, w, 2] on the lattice, in its points, with ``weights`` [rows, columns, 3] of the ways."""
        lattice = self.lattice
        coarse = cast(Floats, cv2.resize(weights, lattice.coarse))
        found, *ways = self._paths(motion, ahead, lattice.grid)
        for i, (way, limit) in enumerate(zip(ways, LIMITS, strict=True)):
            way *= np.clip(coarse[..., i : i + 1], -limit, limit)
            found += way
        return found

    def _blurred(self, pictures: Pictures, motion: Field, ahead: float) -> AnyArray:
        """The blurred frame [H, W, 3]: the further ahead, the more. Far ahead it is made on the lattice."""
        if not far(motion, ahead):
            return pictures.blurred
        small = cv2.resize(pictures.frame, self.lattice.coarse, interpolation=cv2.INTER_AREA)
        side = 2 * round(SPREAD * ahead) + 1
        return cast(AnyArray, cv2.resize(cv2.blur(small, (side, side)), self.lattice.size))

    def _paths(self, motion: Field, ahead: float, at: Floats) -> list[Floats]:
        """The displacement of constant velocity, and how the others change it, at lattice coordinates ``at``."""
        motion = calmed(motion, ahead)
        found = displacement(motion, ahead, at)
        now = at + found
        ways = [gained(motion, ahead, now), steadied(motion, ahead, now, found)]
        return [found, found * np.float32(DERIVED), *ways]

    def _blended(self, first: AnyArray, second: AnyArray, weight: Floats) -> AnyArray:
        """``first`` + weight · (``second`` − ``first``), with ``weight`` [rows, columns], clipped to uint8."""
        lattice = self.lattice
        coarse = cv2.resize(np.ascontiguousarray(weight), lattice.coarse)
        shares = (cv2.resize(part, lattice.size) for part in (1 - coarse, coarse))
        return cast(AnyArray, cv2.blendLinear(first, second, *shares))

    def _full(self, found: Floats) -> Floats:
        """Coordinates at full size from displacements on the lattice: scratch, valid until the next call."""
        cv2.resize(found * self.lattice.scale, self.lattice.size, dst=self._map, interpolation=cv2.INTER_LINEAR)
        return cast(Floats, cv2.add(self._map, self._grid, dst=self._map))
