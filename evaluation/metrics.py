"""How well a predicted frame matches the real one: PSNR, SSIM in two conventions, and the papers' MSE and MAE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.runtime.score import MSE_FLOOR, psnr

Array = NDArray[np.float64]

WINDOW = 7  # pixels: side of SSIM's uniform window
_K1, _K2 = 0.01, 0.03


@dataclass(frozen=True)
class Metric:
    """How a figure is called, and shown.

    Attributes:
        title: of its column; an arrow says which way is better.
        meaning: one line, with the convention.
        digits: after the point.
        scale: figures are multiplied by it before they are shown.
    """

    title: str
    meaning: str
    digits: int
    scale: float = 1.0


METRICS: Mapping[str, Metric] = {
    "psnr": Metric("PSNR dB ↑", "10·log10(255²/MSE) of each frame, MSE floored at 0.01 squared grey levels", 2),
    "ssim": Metric("SSIM ↑", "7×7 uniform window, sample covariance, K 0.01 and 0.03, values 0…1, data_range=1", 4),
    "ssim_published": Metric(
        "SSIM as published ↑", "the same with data_range=2, as old scikit-image took it for floats: higher", 4
    ),
    "mse": Metric("MSE ↓", "sum over a frame's pixels and channels of squared differences, values 0…1", 2),
    "mae": Metric("MAE ↓", "sum over a frame's pixels and channels of absolute differences, values 0…1", 1),
    "lpips": Metric("LPIPS ↓", "AlexNet, version 0.1 of the lpips package", 4),
    "worse_than_copying": Metric(
        "worse than copying ↓", "share of the frames on which PSNR is below copying's", 1, 100
    ),
}
COMPARED = ("psnr", "ssim", "ssim_published", "mse", "mae")  # what a Truth gives, in this order


class Truth:
    """A real frame, and what all comparisons with it share.

    SSIM is that of Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004),
    equation 13, over scikit-image's default window; both conventions come out of the same moments.

    Args:
        image: uint8 [h, w, C], 7 pixels a side at least.
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        self._x = _unit(image)
        self._mean, self._variance = _moments(self._x)

    def compare(self, prediction: Image | NDArray[np.floating]) -> tuple[float, float, float, float, float]:
        """PSNR in dB, SSIM, SSIM as published, MSE, MAE: the order of ``COMPARED``.

        Args:
            prediction: [h, w, C]; uint8, or floats that stand for 0…1. Floats that lie outside are clamped for PSNR and
                SSIM, and taken as they are for MSE and MAE, as OpenSTL does.
        """
        y = _unit(prediction)
        difference = y - self._x
        mse, mae = float(np.sum(difference * difference)), float(np.sum(np.abs(difference)))
        if prediction.dtype == np.uint8:
            quality = psnr(prediction, self.image)  # type: ignore[arg-type]
        else:
            y = np.clip(y, 0, 1)
            quality = -10 * math.log10(max(float(np.mean(np.square(y - self._x))), MSE_FLOOR / 255**2))
        return (quality, *self._ssim(y), mse, mae)

    def _ssim(self, y: Array) -> tuple[float, float]:
        """With data_range=1, and with data_range=2."""
        mean, variance = _moments(y)
        covariance = _covariance(_blur(self._x * y), self._mean, mean)
        product, squares = 2 * self._mean * mean, self._mean**2 + mean**2
        deviations, variances = 2 * covariance, self._variance + variance

        def ssim(data_range: int) -> float:
            c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
            return float(np.mean((product + c1) * (deviations + c2) / ((squares + c1) * (variances + c2))))

        return ssim(1), ssim(2)


def _unit(image: NDArray[np.uint8] | NDArray[np.floating]) -> Array:
    """As float64 values of 0…1, [h, w, 3] or [h, w]."""
    values: Array = image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)  # type: ignore[assignment]
    return values[..., 0] if values.shape[2] == 1 else values


def _blur(values: Array) -> Array:
    """Means over windows; those that reach over the border are left out, as scikit-image leaves them out."""
    inner = slice(WINDOW // 2, -(WINDOW // 2))
    return cv2.boxFilter(values, cv2.CV_64F, (WINDOW, WINDOW))[inner, inner]  # type: ignore[return-value]


def _covariance(mean_of_product: Array, mean: Array, other: Array) -> Array:
    count = WINDOW**2
    return count / (count - 1) * (mean_of_product - mean * other)


def _moments(values: Array) -> tuple[Array, Array]:
    mean = _blur(values)
    return mean, _covariance(_blur(values * values), mean, mean)
