"""Metrics compared with scikit-image, torchmetrics and plain float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error

from framecast.evaluation.metrics import LPIPS, METRICS, WINDOW, WORSE, Truth
from framecast.runtime import score

KINDS = pytest.mark.parametrize("kind", ["uint8", "float"])
CHANNELS = pytest.mark.parametrize("channels", [1, 3])


def pair(channels: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A frame and a prediction: one half is close, the other is noise."""
    rng = np.random.default_rng()
    truth = rng.integers(0, 256, (23, 31, channels), np.uint8)
    near = np.clip(truth + rng.normal(0, 20, truth.shape), 0, 255)
    near[12:] = rng.uniform(0, 255, near[12:].shape)
    return truth, near.astype(np.uint8) if kind == "uint8" else (near / 255).astype(np.float32)


def unit(image: np.ndarray) -> np.ndarray:
    return image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)


def compare(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Every metric that needs only the truth and a prediction."""
    compared = Truth(truth).compare(prediction)
    return {name: metric.measure(compared) for name, metric in METRICS.items() if name not in (LPIPS, WORSE)}


def test_the_share_of_frames_worse_than_copying() -> None:
    truth, prediction = pair(3, "uint8")
    reference = Truth(truth)
    copied, worse = reference.compare(prediction), np.clip(prediction.astype(int) + 90, 0, 255).astype(np.uint8)
    measure = METRICS[WORSE].measure
    assert measure(reference.compare(worse, copied=copied)) == 1
    assert measure(reference.compare(prediction, copied=copied)) == 0  # a tie is not worse
    assert measure(copied) == 0


@KINDS
@CHANNELS
@pytest.mark.parametrize(("metric", "data_range"), [("ssim", 1.0), ("ssim_published", 2.0)])
def test_ssim_matches_scikit_image(kind: str, channels: int, metric: str, data_range: float) -> None:
    truth, prediction = pair(channels, kind)
    expected = structural_similarity(unit(truth), unit(prediction), data_range=data_range, channel_axis=2)
    assert compare(truth, prediction)[metric] == pytest.approx(expected, abs=1e-12)


@KINDS
@pytest.mark.parametrize(("metric", "data_range"), [("ssim", 1.0), ("ssim_published", 2.0)])
def test_ssim_matches_torchmetrics(kind: str, metric: str, data_range: float) -> None:
    """torchmetrics does not use the sample covariance, so K2 is scaled to match. Its border windows are cropped."""
    truth, prediction = pair(3, kind)
    guess, real = (torch.from_numpy(unit(image)).permute(2, 0, 1)[None] for image in (prediction, truth))
    count = WINDOW**2
    _, whole = structural_similarity_index_measure(
        guess,
        real,
        gaussian_kernel=False,
        kernel_size=WINDOW,
        data_range=data_range,
        k2=0.03 * ((count - 1) / count) ** 0.5,
        return_full_image=True,
    )
    inner = slice(WINDOW // 2, -(WINDOW // 2))
    expected = whole[..., inner, inner].mean()
    assert compare(truth, prediction)[metric] == pytest.approx(float(expected), abs=1e-9)


@KINDS
@CHANNELS
def test_psnr_mse_and_mae_match_float64_and_torchmetrics(kind: str, channels: int) -> None:
    truth, prediction = pair(channels, kind)
    found = compare(truth, prediction)
    difference = unit(prediction) - unit(truth)
    assert found["mse"] == pytest.approx((difference**2).sum(), rel=1e-12)
    assert found["mae"] == pytest.approx(np.abs(difference).sum(), rel=1e-12)
    assert (found["mse_clipped"], found["mae_clipped"]) == pytest.approx((found["mse"], found["mae"]))
    assert found["psnr"] == pytest.approx(10 * np.log10(1 / np.mean(difference**2)), abs=1e-4)

    guess, real = (torch.from_numpy(unit(image)) for image in (prediction, truth))
    assert found["mse"] == pytest.approx(float(mean_squared_error(guess, real)) * truth.size)
    assert found["mae"] == pytest.approx(float(mean_absolute_error(guess, real)) * truth.size)
    assert found["psnr"] == pytest.approx(float(peak_signal_noise_ratio(guess, real, data_range=1.0)), abs=1e-4)


def test_psnr_of_pictures_matches_a_live_run() -> None:
    truth, prediction = pair(3, "uint8")
    assert compare(truth, prediction)["psnr"] == score.psnr(prediction, truth)


@KINDS
def test_an_exact_match_has_finite_scores(kind: str) -> None:
    truth, _ = pair(3, kind)
    found = compare(truth, truth if kind == "uint8" else unit(truth))
    assert found["psnr"] == pytest.approx(68.13, abs=0.01)
    assert (found["ssim"], found["mse"], found["mae"]) == pytest.approx((1, 0, 0))


def test_floats_out_of_range_are_clamped_for_psnr_ssim_and_the_clipped_errors_only() -> None:
    truth, prediction = pair(1, "float")
    wild = prediction * 1.5 - 0.2
    found, clamped = compare(truth, wild), compare(truth, np.clip(wild, 0, 1))
    assert [found[m] for m in ("psnr", "ssim", "ssim_published")] == [
        clamped[m] for m in ("psnr", "ssim", "ssim_published")
    ]
    assert found["mse"] == pytest.approx(((wild.astype(np.float64) - unit(truth)) ** 2).sum())
    assert found["mse"] > clamped["mse"]
    assert found["mae"] > clamped["mae"]
    for name in ("mse", "mae"):  # both conventions have their column
        assert found[f"{name}_clipped"] == clamped[f"{name}_clipped"] == pytest.approx(clamped[name])
