"""The losses of the four papers, as plain functions of tensors.

All of them compute in float32 or wider, even if autocast made the prediction narrower.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from framecast.errors import OptionError

FLOOR = (1 / 255) ** 2  # floor of the log-MSE, so that errors below one grey level hardly matter
EPSILON = 1e-12  # ε of the differential divergence, as in the released code


def at_least_float32(x: Tensor) -> Tensor:
    """Widen narrower tensors: differences of half-precision frames, and their logarithms, lose too much precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def mse(prediction: Tensor, truth: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Return the squared error, a scalar. ASTM, MAU, STAU and TAU minimise it.

    Args:
        prediction: [B, …]; patches make no difference.
        truth: the same shape.
        reduction: ``mean`` over all elements; or ``sum`` over a sample's elements, averaged over the batch, as in
            equation 6 of TAU's paper.

    Raises:
        OptionError: there is no such reduction.
    """
    _check(reduction)
    loss = functional.mse_loss(at_least_float32(prediction), at_least_float32(truth), reduction=reduction)
    return loss if reduction == "mean" else loss / len(prediction)


def log_mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return ``log(mse + (1/255)²)`` of each sample, [B]. Still clips count as much as clips full of motion.

    Args:
        prediction: [B, …].
        truth: the same shape.
    """
    errors = functional.mse_loss(at_least_float32(prediction), at_least_float32(truth), reduction="none")
    return torch.log(errors.flatten(1).mean(1) + FLOOR)


def differential_divergence(
    prediction: Tensor, truth: Tensor, temperature: float = 0.1, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Return TAU's differential divergence regularisation, a scalar: how differently the frames change.

    ``p = softmax(Δŷ/τ)`` and ``q = softmax(Δy/τ)`` are over the C·H·W values of each difference of consecutive frames.
    A term is ``p·log(p/(q + ε) + ε)``, with ε = 1e-12. As in the released code, it is zero for two frames or fewer.

    Source: TAU (Tan et al., CVPR 2023), differential divergence regularization; reductions and ε as in OpenSTL.

    Args:
        prediction: [B, T, C, H, W], values in [0, 1].
        truth: the same shape.
        temperature: τ, above 0.
        reduction: ``mean`` over all elements, as in the released code; or ``sum`` over a sample's elements, averaged
            over the batch, as in the paper.

    Raises:
        OptionError: there is no such reduction.
    """
    _check(reduction)
    if prediction.shape[1] <= 2:
        return at_least_float32(prediction).new_zeros(())
    p = _change(prediction, temperature)
    q = _change(truth, temperature)
    terms = p * torch.log(p / (q + EPSILON) + EPSILON)
    return terms.mean() if reduction == "mean" else terms.sum() / len(terms)


def _check(reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise OptionError(f"reduction must be mean or sum, not {reduction}")


def _change(frames: Tensor, temperature: float) -> Tensor:
    """Convert [B, T, C, H, W] to [B, T-1, C·H·W]: each change as a distribution over its values."""
    return (at_least_float32(frames).diff(dim=1).flatten(2) / temperature).softmax(2)


def learned_perceptual(features_of_prediction: Tensor, features_of_truth: Tensor) -> Tensor:
    """Return STIP's learned perceptual term, a scalar: the MSE between the discriminator's features of both.

    Source: STIP, Algorithm 1; the weight is 0.01 in the released code.

    Args:
        features_of_prediction: [B, T, D], from :class:`~framecast.training.discriminator.Discriminator`.
        features_of_truth: the same shape.
    """
    return mse(features_of_prediction, features_of_truth)


def adversarial(scores: Tensor) -> Tensor:
    """Return STIP's adversarial term for the predictor, a scalar: binary cross-entropy of its scores against 1.

    Source: STIP, Algorithm 1; the weight is 0.001 in the released code.

    Args:
        scores: [B] logits of the predictions, from :class:`~framecast.training.discriminator.Discriminator`.
    """
    return _cross_entropy(scores, 1)


def discrimination(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Return the discriminator's loss: binary cross-entropy of real frames against 1 plus predicted ones against 0.

    Args:
        real_scores: [B] logits.
        fake_scores: [B] logits, of detached predictions.
    """
    return _cross_entropy(real_scores, 1) + _cross_entropy(fake_scores, 0)


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    logits = at_least_float32(logits)
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
