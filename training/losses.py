"""The losses of the four papers, as plain functions of tensors.

All are computed in float32 at least, whatever autocast made of the prediction.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from framecast.errors import OptionError

FLOOR = (1 / 255) ** 2  # of the log-MSE: errors below one grey level count for little
EPSILON = 1e-12  # of the differential divergence, as released


def at_least_float32(x: Tensor) -> Tensor:
    """Widen what is narrower: differences of half-precision frames, and logarithms of them, lose too much."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error over all elements, a scalar: what ASTM, MAU, STAU and TAU minimise.

    Args:
        prediction: of any shape; patched or not makes no difference.
        truth: of the same shape.
    """
    return functional.mse_loss(at_least_float32(prediction), at_least_float32(truth))


def log_mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """``log(mse + (1/255)²)`` of each sample, [B]: still clips count as much as those where everything moves.

    Args:
        prediction: [B, …].
        truth: of the same shape.
    """
    errors = functional.mse_loss(at_least_float32(prediction), at_least_float32(truth), reduction="none")
    return torch.log(errors.flatten(1).mean(1) + FLOOR)


def differential_divergence(
    prediction: Tensor, truth: Tensor, temperature: float = 0.1, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """TAU's differential divergence regularisation: how differently the frames change, a scalar.

    ``p = softmax(Δŷ/τ)`` and ``q = softmax(Δy/τ)`` over the C·H·W values of each difference of consecutive frames; a
    term is ``p·log(p/(q + ε) + ε)``, ε = 1e-12. Zero for two frames or fewer, as released.

    Source: TAU (Tan et al., CVPR 2023), differential divergence regularization; reductions and ε as in OpenSTL.

    Args:
        prediction: [B, T, C, H, W], values in [0, 1].
        truth: of the same shape.
        temperature: τ, above 0.
        reduction: ``mean`` over all elements, as released; or ``sum`` over a sample's elements, as the paper writes it,
            averaged over the batch.

    Raises:
        OptionError: there is no such reduction.
    """
    if reduction not in ("mean", "sum"):
        raise OptionError(f"reduction must be mean or sum, not {reduction}")
    if prediction.shape[1] <= 2:
        return at_least_float32(prediction).new_zeros(())
    p = _change(prediction, temperature)
    q = _change(truth, temperature)
    terms = p * torch.log(p / (q + EPSILON) + EPSILON)
    return terms.mean() if reduction == "mean" else terms.sum() / len(terms)


def _change(frames: Tensor, temperature: float) -> Tensor:
    """[B, T, C, H, W] to [B, T-1, C·H·W]: each change as a distribution over its values."""
    return (at_least_float32(frames).diff(dim=1).flatten(2) / temperature).softmax(2)


def learned_perceptual(features_of_prediction: Tensor, features_of_truth: Tensor) -> Tensor:
    """STIP's learned perceptual term: the MSE of what its discriminator makes of both, a scalar.

    Source: STIP, Algorithm 1, weight 0.01 as released.

    Args:
        features_of_prediction: [B, T, D], as :class:`~framecast.training.discriminator.Discriminator` gives them.
        features_of_truth: of the same shape.
    """
    return mse(features_of_prediction, features_of_truth)


def adversarial(scores: Tensor) -> Tensor:
    """STIP's adversarial term for the predictor: binary cross-entropy of the predictions' scores against 1, a scalar.

    Source: STIP, Algorithm 1, weight 0.001 as released.

    Args:
        scores: [B] logits, as :class:`~framecast.training.discriminator.Discriminator` gives them.
    """
    return _cross_entropy(scores, 1)


def discrimination(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """The discriminator's own loss: binary cross-entropy of real frames against 1 plus predicted ones against 0.

    Args:
        real_scores: [B] logits.
        fake_scores: [B] logits, of detached predictions.
    """
    return _cross_entropy(real_scores, 1) + _cross_entropy(fake_scores, 0)


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    logits = at_least_float32(logits)
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
