"""Pictures whose future is known."""

from __future__ import annotations

import cv2
import numpy as np

from framecast.camera import Image


def texture(width: int, height: int, seed: int = 0) -> Image:
    """A smooth random picture."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.asarray(np.clip(128 + smooth * (50 / smooth.std()), 0, 255), np.uint8)


def panned(width: int, height: int, x: float, y: float = 0.0) -> Image:
    """A view of one large smooth texture, ``x``, ``y`` pixels from its corner."""
    wide = texture(width + 200, height + 200)
    shift = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
    return np.asarray(cv2.warpAffine(wide, shift, (wide.shape[1], wide.shape[0]))[60:, 60:][:height, :width], np.uint8)


def psnr(a: Image, b: Image, border: int = 0) -> float:
    """PSNR in dB, without ``border`` pixels at each side."""
    inner = (slice(border, -border), slice(border, -border)) if border else ()
    error = float(np.mean((a[inner].astype(np.float64) - b[inner]) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-2)))
