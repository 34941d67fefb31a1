"""Flow between two frames on the lattice: dense inverse search, then one Lucas–Kanade correction.

Dense inverse search (DIS; Kroeger, Timofte, Dai and Van Gool, 2016) is OpenCV's. Its fastest preset stops two scales
above the lattice, so the finest scale is set lower here. DIS sees only the lattice. A Lucas–Kanade step (Lucas and
Kanade, 1981) then corrects the flow with a picture of twice the size: it linearises the brightness around DIS's flow,
and solves a 2×2 system per lattice point over a small window.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from framecast.runtime.motion.lattice import Bytes, Floats, Greys, Lattice, points, pull

SEARCH = (0, 5)  # scale at which the inverse search stops (0: the lattice), and pixels between its patches
SEARCH_FAST = (1, 3)
WINDOW = 5  # lattice points: side of the window of one 2×2 system
FLOOR = 6.5  # squared grey levels per pixel: areas with weaker gradients are flat and are corrected little
REACH = 1.5  # pixels of the finer picture: the largest correction that the linearisation allows
SMOOTH = 3  # lattice points: side of the box that smooths the corrected flow


class Flow:
    """Estimates flow on one lattice. It is stateless except for scratch memory: make one call at a time."""

    def __init__(self, lattice: Lattice, *, fast: bool = False) -> None:
        self.lattice = lattice
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        finest, stride = SEARCH_FAST if fast else SEARCH
        self._search.setFinestScale(finest)
        self._search.setPatchStride(stride)
        self._grid = points(*lattice.fine)
        self._ratio = np.divide(lattice.fine, lattice.coarse, dtype=np.float32)

    def __call__(self, now: Greys, before: Greys) -> Floats:
        """Where each point of ``now`` was in ``before``: displacement [h, w, 2] in lattice points, always finite."""
        flow = cast(Floats, self._search.calc(now.coarse, before.coarse, None))  # type: ignore[call-overload]
        flow = self.corrected(now.fine, before.fine, flow)
        limit = float(max(self.lattice.coarse))
        if not np.isfinite(flow).all():
            return np.zeros_like(flow)
        return np.clip(flow, -limit, limit, out=flow)

    def corrected(self, now: Bytes, before: Bytes, flow: Floats) -> Floats:
        """One Lucas–Kanade step on ``flow`` [h, w, 2] (lattice points), from the finer pictures."""
        coarse: Floats = flow * self._ratio
        at = cv2.resize(coarse, self.lattice.fine, interpolation=cv2.INTER_LINEAR)
        moved = pull(before, cast(Floats, cv2.add(at, self._grid, dst=at)))
        middle = cv2.addWeighted(now, 0.5, moved, 0.5, 0)
        gx = cv2.Sobel(middle, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
        gy = cv2.Sobel(middle, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
        change = cv2.subtract(now, moved, dtype=cv2.CV_32F)
        pairs = ((gx, gx), (gy, gy), (gx, gy), (gx, change), (gy, change))
        xx, yy, xy, xt, yt = (self._window(cast(Floats, cv2.multiply(a, b))) for a, b in pairs)
        xx += FLOOR
        yy += FLOOR
        determinant = xx * yy - xy * xy
        step = np.empty_like(flow)
        np.divide(yy * xt - xy * yt, determinant, out=step[..., 0])
        np.divide(xx * yt - xy * xt, determinant, out=step[..., 1])
        np.clip(step, -REACH, REACH, out=step)
        np.divide(step, self._ratio, out=step)
        return cast(Floats, cv2.blur(step + flow, (SMOOTH, SMOOTH), borderType=cv2.BORDER_REPLICATE))

    def _window(self, product: Floats) -> Floats:
        """The mean of ``product``, which has the finer picture's size, around each lattice point."""
        coarse = cv2.resize(product, self.lattice.coarse, interpolation=cv2.INTER_AREA)
        return cast(Floats, cv2.blur(coarse, (WINDOW, WINDOW), borderType=cv2.BORDER_REPLICATE))
