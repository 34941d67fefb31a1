"""The mixture of large pictures: learned from samples at the lattice's points, rendered with one warp.

Guesses differ from constant velocity by a displacement or by their source, and are mixed before the warp: the source
is the frame, mixed with a filtered and a blurred one; the displacement is scaled and the acceleration added. Only the
copy is blended afterwards. On large pictures this comes to the same as the mixture of the warped guesses, at a
fraction of its cost.
"""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera.source import Image
from framecast.runtime.motion.lattice import Floats, Lattice, points, pull
from framecast.runtime.motion.moment import Moment
from framecast.runtime.motion.trajectory import Field, displacement, gained

BLOCKS = (9, 16)  # rows and columns of the weights
SLOWER = 0.75  # share of the displacement: the guess whose difference stands for the derivative along the velocity
BLUR = 5  # pixels a side
KEPT = 0.5  # share of the mean so far in the filtered picture
FASTEST = 0.75  # change of the displacement by its own weight, as a share
TRUST = 0.7  # in constant velocity against the copy, while nothing is known


class Warped:
    """Guesses and pictures of one size. Holds no stream, but scratch: one call at a time."""

    names = ("copy", "velocity", "acceleration", "blurred", "filtered")
    blocks = BLOCKS

    def __init__(self, lattice: Lattice) -> None:
        self.lattice = lattice
        self.prior = np.array([1 - TRUST, 0, 0, 0, 0], np.float32)
        width, height = lattice.size
        self._grid = points(width, height)
        self._map = np.empty_like(self._grid)
        columns, rows = (np.arange(n) for n in lattice.coarse)
        x = ((columns + 0.5) * lattice.scale[0]).astype(np.float32).clip(0, width - 1)
        y = ((rows + 0.5) * lattice.scale[1]).astype(np.float32).clip(0, height - 1)
        self._samples = np.dstack(np.meshgrid(np.floor(x), np.floor(y)))  # sample points, in pixels
        self._on_lattice = (self._samples + 0.5) / lattice.scale - np.float32(0.5)

    def picture(self, image: Image) -> NDArray[Any]:
        """``image`` with a fourth channel, which the warp is twice as fast with."""
        return cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)

    def blurred(self, picture: NDArray[Any]) -> NDArray[Any]:
        """``picture``, blurred."""
        return cv2.blur(picture, (BLUR, BLUR))

    def filtered(self, before: Moment, flow: Floats) -> NDArray[Any]:
        """The mean over the frames up to ``before``, pulled along the ``flow`` to the frame after it."""
        mean = cv2.addWeighted(before.filtered, KEPT, before.picture, 1 - KEPT, 0)
        return pull(mean, self._full(flow))

    def sampled(self, picture: NDArray[Any]) -> Floats:
        """What came at the sample points: [h, w, 3]."""
        values = cv2.remap(picture, self._samples, None, cv2.INTER_NEAREST)
        return values[..., :3].astype(np.float32)

    def told(self, moment: Moment, motion: Field, ahead: float) -> Floats:
        """The guesses ``ahead`` seconds after ``moment`` at the sample points, but for the first as differences to it.

        [1 + N, h, w, 3].
        """
        lattice = self.lattice
        found = displacement(motion.velocity, ahead, lattice.grid, motion.elapsed)
        extra = gained(motion, ahead, lattice.grid + found)
        found, extra = (pull(x, self._on_lattice) * lattice.scale for x in (found, extra))
        at = self._samples + found
        reads = (
            (moment.picture, at),
            (moment.picture, self._samples),
            (moment.picture, self._samples + np.float32(SLOWER) * found),
            (moment.picture, at + extra),
            (moment.blurred, at),
            (moment.filtered, at),
        )
        values = np.stack([pull(picture, places)[..., :3] for picture, places in reads]).astype(np.float32)
        values[1:] -= values[0]
        values[2] *= np.float32(-1 / (1 - SLOWER))
        return values

    def render(self, moment: Moment, motion: Field, ahead: float, weights: Floats) -> Image:
        """The picture ``ahead`` seconds after ``moment``: [H, W, 3], with ``weights`` [rows, columns, N]."""
        lattice = self.lattice
        copy, faster, accelerated, blurred, filtered = (
            cv2.resize(np.ascontiguousarray(weights[..., i]), lattice.coarse) for i in range(len(self.names))
        )
        found = displacement(motion.velocity, ahead, lattice.grid, motion.elapsed)
        extra = gained(motion, ahead, lattice.grid + found)
        found = found * (1 + np.clip(faster, -FASTEST, FASTEST))[..., None]
        found += np.clip(accelerated, -1, 1)[..., None] * extra
        source = moment.picture
        source = self._blended(source, moment.filtered, filtered)
        source = self._blended(source, moment.blurred, blurred)
        moved = pull(source, self._full(found))
        return cast(Image, cv2.cvtColor(self._blended(moved, moment.picture, copy), cv2.COLOR_BGRA2BGR))

    def _blended(self, first: NDArray[Any], second: NDArray[Any], weight: Floats) -> NDArray[Any]:
        """``first`` + weight · (``second`` − ``first``), with ``weight`` [h, w] on the lattice, clipped to uint8."""
        fine = cv2.resize(weight, self.lattice.size, interpolation=cv2.INTER_LINEAR)
        return cv2.blendLinear(first, second, 1 - fine, fine)

    def _full(self, found: Floats) -> Floats:
        """Coordinates at full size from displacements on the lattice: scratch, valid until the next call."""
        cv2.resize(found * self.lattice.scale, self.lattice.size, dst=self._map, interpolation=cv2.INTER_LINEAR)
        return cv2.add(self._map, self._grid, dst=self._map)
