"""Metrics of a predicted frame against the real one: PSNR, SSIM in two conventions, and MSE and MAE as in papers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.runtime.score import psnr

Array = NDArray[np.float64]

WINDOW = 7  # pixels: side of SSIM's uniform window
LPIPS = "lpips"  # present only if torch and the weights are installed
WORSE = "worse_than_copying"  # has no value for copying itself
_K1, _K2 = 0.01, 0.03


class Truth:
    """A real frame, with values that all comparisons with it share.

    Args:
        image: uint8 [h, w, C], at least 7 pixels a side.
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        self.values = _unit(image)
        self.mean, self.variance = _moments(self.values)

    def compare(
        self,
        prediction: Image | NDArray[np.floating],
        *,
        copied: Comparison | None = None,
        lpips: float = math.nan,
    ) -> Comparison:
        """Compare a prediction with this frame; see :class:`Comparison` for the arguments."""
        return Comparison(self, prediction, copied, lpips)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Comparison of a prediction with the real frame.

    Values that several metrics share are computed once, on first use. As in OpenSTL, floats outside 0…1 are clamped for
    PSNR and SSIM, but not for MSE and MAE; the authors of STIP, STAU and MAU clamp for those too.

    Attributes:
        truth: the real frame.
        prediction: [h, w, C]; uint8, or floats in 0…1.
        copied: the same comparison for the baseline, a copy of the last frame; None for the baseline itself.
        lpips: result of LPIPS; NaN if it did not run.
    """

    truth: Truth
    prediction: Image | NDArray[np.floating]
    copied: Comparison | None = None
    lpips: float = math.nan

    @cached_property
    def values(self) -> Array:
        """The prediction as float64 values in 0…1, not clamped; [h, w, 3] or [h, w]."""
        return _unit(self.prediction)

    @cached_property
    def difference(self) -> Array:
        """The prediction minus the real frame, in values of 0…1, not clamped."""
        return self.values - self.truth.values

    @cached_property
    def clipped_difference(self) -> Array:
        """The prediction, clamped to 0…1, minus the real frame."""
        return self.difference if self.prediction.dtype == np.uint8 else self._clamped - self.truth.values

    @cached_property
    def psnr(self) -> float:
        """PSNR in dB."""
        if self.prediction.dtype == np.uint8:
            return psnr(self.prediction, self.truth.image)
        return psnr(self._clamped, self.truth.values)

    def ssim(self, *, data_range: int) -> float:
        """Return the SSIM: equation 13 over scikit-image's default window.

        Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004).
        """
        product, squares, deviations, variances = self._terms
        c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
        return float(np.mean((product + c1) * (deviations + c2) / ((squares + c1) * (variances + c2))))

    @cached_property
    def _clamped(self) -> Array:
        return self.values if self.prediction.dtype == np.uint8 else np.clip(self.values, 0, 1)

    @cached_property
    def _terms(self) -> tuple[Array, Array, Array, Array]:
        """The terms of equation 13, without the constants."""
        x, y = self.truth, self._clamped
        mean, variance = _moments(y)
        covariance = _covariance(_blur(x.values * y), x.mean, mean)
        return 2 * x.mean * mean, x.mean**2 + mean**2, 2 * covariance, x.variance + variance


def _unit(image: NDArray[np.uint8] | NDArray[np.floating]) -> Array:
    """Convert to float64 values in 0…1, [h, w, 3] or [h, w]."""
    values: Array = image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)  # type: ignore[assignment]
    return values[..., 0] if values.shape[2] == 1 else values


def _blur(values: Array) -> Array:
    """Return means over windows. As in scikit-image, windows that cross the border are left out."""
    inner = slice(WINDOW // 2, -(WINDOW // 2))
    return cv2.boxFilter(values, cv2.CV_64F, (WINDOW, WINDOW))[inner, inner]  # type: ignore[return-value]


def _covariance(mean_of_product: Array, mean: Array, other: Array) -> Array:
    count = WINDOW**2
    return count / (count - 1) * (mean_of_product - mean * other)


def _moments(values: Array) -> tuple[Array, Array]:
    mean = _blur(values)
    return mean, _covariance(_blur(values * values), mean, mean)


@dataclass(frozen=True)
class Metric:
    """An entry of ``METRICS``: how a figure is computed, named and shown.

    Attributes:
        title: title of the column; an arrow shows which direction is better.
        meaning: one line that states the convention.
        digits: digits after the decimal point.
        measure: computes the figure of one prediction.
        scale: factor applied to a figure for display.
    """

    title: str
    meaning: str
    digits: int
    measure: Callable[[Comparison], float]
    scale: float = 1.0


METRICS: dict[str, Metric] = {
    "psnr": Metric(
        "PSNR dB ↑",
        "10·log10(255²/MSE) of each frame, MSE floored at 0.01 squared grey levels",
        2,
        lambda compared: compared.psnr,
    ),
    "ssim": Metric(
        "SSIM ↑",
        "7×7 uniform window, sample covariance, K 0.01 and 0.03, values 0…1, data_range=1",
        4,
        lambda compared: compared.ssim(data_range=1),
    ),
    "ssim_published": Metric(
        "SSIM as published ↑",
        "the same with data_range=2, the old default of scikit-image for floats; it gives higher values",
        4,
        lambda compared: compared.ssim(data_range=2),
    ),
    "mse": Metric(
        "MSE ↓",
        "sum of squared differences over a frame's pixels and channels, values 0…1; predictions are not clipped, as "
        "in OpenSTL",
        2,
        lambda compared: float(np.sum(compared.difference * compared.difference)),
    ),
    "mse_clipped": Metric(
        "MSE clipped ↓",
        "the same with predictions clipped to 0…1, as in the code of STIP, STAU, MAU and STAM",
        2,
        lambda compared: float(np.sum(np.square(compared.clipped_difference))),
    ),
    "mae": Metric(
        "MAE ↓",
        "sum of absolute differences over a frame's pixels and channels, values 0…1; predictions are not clipped, as "
        "in OpenSTL",
        1,
        lambda compared: float(np.sum(np.abs(compared.difference))),
    ),
    "mae_clipped": Metric(
        "MAE clipped ↓",
        "the same with predictions clipped to 0…1, as in the code of STIP, STAU, MAU and STAM",
        1,
        lambda compared: float(np.sum(np.abs(compared.clipped_difference))),
    ),
    LPIPS: Metric(
        "LPIPS ↓",
        "AlexNet, version 0.1 of the lpips package, RGB, unscaled; STIP, STAU and MAU print 100 times the mean of a "
        "map (spatial=True) over BGR",
        4,
        lambda compared: compared.lpips,
    ),
    WORSE: Metric(
        "worse than copying ↓",
        "share of the frames whose PSNR is below copying's",
        1,
        lambda compared: float(compared.copied is not None and compared.psnr < compared.copied.psnr),
        scale=100,
    ),
}
"""Every metric of ``framecast eval``, by its name in the JSON. Tables, JSON and page show all of them."""
