"""The mixture for large pictures: learned from samples at lattice points, rendered with one warp.

A guess differs from constant velocity by its displacement or by its source, so guesses are mixed before the warp. The
source is the frame, mixed with a blurred one. The displacement is scaled, and modified by acceleration and steady
velocity. Only the copy is blended in afterwards. On large pictures, this is as good as mixing warped guesses, at a
fraction of the cost.
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
DERIVED = 0.25  # the guess "faster" adds this share of the displacement, to give the derivative along it
BLUR = 5  # pixels a side
SPREAD = 7.0  # lattice points per second ahead: radius of the blur on the lattice, for moments far ahead
LIMITS = (3.0, 1.0, 1.0)  # largest weights of the displacements: faster, accelerated, steady
TRUST = 0.7  # initial weight of constant velocity; the copy gets the rest


class Warped:
    """Guesses and pictures of one size. It is stateless except for scratch memory: make one call at a time."""

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
        """The pictures that later frames and predictions need from ``image``."""
        return Pictures(image.copy(), cast(AnyArray, cv2.blur(image, (BLUR, BLUR))))

    def sampled(self, pictures: Pictures) -> Floats:
        """The truth at the sample points: [h, w, 3]."""
        return pull(pictures.frame, self._samples).astype(np.float32)

    def told(self, moment: Moment, motion: Field, ahead: float) -> Floats:
        """The guesses ``ahead`` seconds after ``moment`` at the sample points: [1 + N, h, w, 3].

        All but the first are differences from the first.
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
        # Warping four channels takes half as long as warping three.
        moved = pull(cv2.cvtColor(source, cv2.COLOR_BGR2BGRA), self._full(found))
        moved = cv2.cvtColor(moved, cv2.COLOR_BGRA2BGR)
        return self._blended(moved, frame, weights[..., 0]), None

    def _mixed(self, motion: Field, ahead: float, weights: Floats) -> Floats:
        """The mixed displacement [h, w, 2] in lattice points. ``weights`` [rows, columns, 3]: one per change to it."""
        lattice = self.lattice
        coarse = cast(Floats, cv2.resize(weights, lattice.coarse))
        found, *ways = self._paths(motion, ahead, lattice.grid)
        for i, (way, limit) in enumerate(zip(ways, LIMITS, strict=True)):
            way *= np.clip(coarse[..., i : i + 1], -limit, limit)
            found += way
        return found

    def _blurred(self, pictures: Pictures, motion: Field, ahead: float) -> AnyArray:
        """The blurred frame [H, W, 3]. Far ahead, it is blurred on the lattice, and more the further ahead."""
        if not far(motion, ahead):
            return pictures.blurred
        small = cv2.resize(pictures.frame, self.lattice.coarse, interpolation=cv2.INTER_AREA)
        side = 2 * round(SPREAD * ahead) + 1
        return cast(AnyArray, cv2.resize(cv2.blur(small, (side, side)), self.lattice.size))

    def _paths(self, motion: Field, ahead: float, at: Floats) -> list[Floats]:
        """The displacement at constant velocity, and how other guesses change it, at lattice coordinates ``at``."""
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
        """Coordinates at full size, from displacements on the lattice. Valid until the next call."""
        cv2.resize(found * self.lattice.scale, self.lattice.size, dst=self._map, interpolation=cv2.INTER_LINEAR)
        return cast(Floats, cv2.add(self._map, self._grid, dst=self._map))
