"""Each loss compared with its equation, rewritten as float64 loops, on new random numbers in each run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.errors import OptionError
from framecast.training import losses
from framecast.training.objectives import over_sequences
from framecast.training.recipes import RECIPES

Array = NDArray[np.float64]


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    """A prediction with a gradient, and its ground truth, both from 0 to 1 like frames."""
    return torch.rand(shape, dtype=torch.float64, requires_grad=True), torch.rand(shape, dtype=torch.float64)


def array(tensor: Tensor) -> Array:
    return tensor.detach().numpy()


def mse_again(prediction: Array, truth: Array) -> float:
    squares = [(p - t) ** 2 for p, t in zip(prediction.flat, truth.flat, strict=True)]
    return math.fsum(squares) / len(squares)


def softmax_again(values: list[float]) -> list[float]:
    total = math.fsum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def divergence_again(prediction: Array, truth: Array, temperature: float) -> list[list[float]]:
    """TAU's terms p·log(p/(q + 1e-12) + 1e-12), one list for each sample."""
    samples = []
    for predicted, true in zip(prediction, truth, strict=True):
        terms = []
        for t in range(1, len(predicted)):
            p, q = (
                softmax_again([float(v) / temperature for v in (frames[t] - frames[t - 1]).flat])
                for frames in (predicted, true)
            )
            terms += [a * math.log(a / (b + 1e-12) + 1e-12) for a, b in zip(p, q, strict=True)]
        samples.append(terms)
    return samples


def cross_entropy_again(scores: Array, target: int) -> float:
    """Cross-entropy of probabilities, as in the papers: the mean of -log(p), or of -log(1 - p)."""
    probabilities = [1 / (1 + math.exp(-s)) for s in scores]
    return -math.fsum(math.log(p if target else 1 - p) for p in probabilities) / len(probabilities)


def test_mse() -> None:
    prediction, truth = pair(2, 3, 4, 5, 6)
    assert losses.mse(prediction, truth).item() == pytest.approx(mse_again(array(prediction), array(truth)), rel=1e-12)
    assert losses.mse(prediction, truth, "sum").item() == pytest.approx(
        60 * 6 * mse_again(array(prediction), array(truth)), rel=1e-12
    )
    assert losses.mse(truth, truth) == 0


def test_taus_objective_is_equation_6() -> None:
    """Both terms are sums over a clip. With the mean of one, the other would weigh thousands of times as much."""
    truth = torch.rand(2, 4, 1, 3, 5, dtype=torch.float64)
    prediction = torch.rand(2, 4, 1, 3, 5, dtype=torch.float64)
    found = over_sequences(RECIPES["tau"], prediction, truth).loss
    squares = math.fsum(float(d) ** 2 for d in (prediction - truth).flatten())
    terms = divergence_again(array(prediction), array(truth), 0.1)
    assert found.item() == pytest.approx((squares + 0.1 * math.fsum(itertools.chain(*terms))) / 2, rel=1e-9)


def test_log_mse_has_one_value_per_sample() -> None:
    prediction, truth = pair(3, 2, 4, 5)
    again = [math.log(mse_again(p, t) + 1 / 255**2) for p, t in zip(array(prediction), array(truth), strict=True)]
    assert losses.log_mse(prediction, truth).tolist() == pytest.approx(again, rel=1e-12)
    assert losses.log_mse(truth, truth).tolist() == pytest.approx([-2 * math.log(255)] * 3, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_differential_divergence(temperature: float) -> None:
    prediction, truth = pair(2, 4, 2, 3, 5)
    terms = divergence_again(array(prediction), array(truth), temperature)
    mean = losses.differential_divergence(prediction, truth, temperature)
    assert mean.item() == pytest.approx(math.fsum(itertools.chain(*terms)) / sum(map(len, terms)), rel=1e-9)
    total = losses.differential_divergence(prediction, truth, temperature, "sum")
    assert total.item() == pytest.approx(math.fsum(itertools.chain(*terms)) / len(terms), rel=1e-9)
    assert total > 0


def test_differential_divergence_keeps_its_epsilons_for_disjoint_distributions() -> None:
    prediction, truth = (torch.zeros(1, 3, 1, 1, 2, dtype=torch.float64) for _ in range(2))
    prediction[0, :, 0, 0, 0] = torch.tensor([0, 4, 0])  # p is (1, e^-40), q is (e^-40, 1); then swapped
    truth[0, :, 0, 0, 1] = torch.tensor([0, 4, 0])
    (terms,) = divergence_again(prediction.numpy(), truth.numpy(), 0.1)
    assert losses.differential_divergence(prediction, truth, reduction="sum").item() == pytest.approx(sum(terms))
    assert sum(terms) == pytest.approx(2 * 12 * math.log(10), rel=1e-4)  # without ε it would be 2·40


def test_differential_divergence_is_finite_if_a_probability_is_zero() -> None:
    prediction = torch.zeros(1, 3, 1, 1, 2)
    prediction[0, 1] = torch.tensor([0.0, 20.0])  # e^-200 is 0 in float32; a network's outputs are unbounded
    prediction.requires_grad_()
    loss = losses.differential_divergence(prediction, torch.rand(1, 3, 1, 1, 2))
    loss.backward()
    assert loss.isfinite()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_differential_divergence_is_zero_without_a_difference_in_changes(reduction: Literal["mean", "sum"]) -> None:
    prediction, truth = pair(2, 5, 1, 4, 4)
    same = losses.differential_divergence(truth, truth, reduction=reduction)
    assert same.item() == pytest.approx(0, abs=1e-8)
    brighter = losses.differential_divergence(truth + 0.3, truth, reduction=reduction)
    assert brighter.item() == pytest.approx(0, abs=1e-8)  # only changes from frame to frame count
    for frames in (1, 2):
        few = losses.differential_divergence(prediction[:, :frames], truth[:, :frames], reduction=reduction)
        assert few == 0
        (losses.mse(prediction, truth) + few).backward()
    assert losses.differential_divergence(prediction[:, :3], truth[:, :3], reduction=reduction) != 0


def test_learned_perceptual() -> None:
    predicted, true = pair(2, 3, 7)
    assert losses.learned_perceptual(predicted, true).item() == pytest.approx(
        mse_again(array(predicted), array(true)), rel=1e-12
    )


def test_adversarial_and_discrimination() -> None:
    real, fake = (3 * torch.randn(5, dtype=torch.float64) for _ in range(2))
    assert losses.adversarial(fake).item() == pytest.approx(cross_entropy_again(fake.numpy(), 1), rel=1e-12)
    again = cross_entropy_again(real.numpy(), 1) + cross_entropy_again(fake.numpy(), 0)
    assert losses.discrimination(real, fake).item() == pytest.approx(again, rel=1e-12)


def test_a_certain_discriminator_still_gives_the_predictor_a_gradient() -> None:
    scores = torch.full((2,), -200.0, requires_grad=True)  # a float32 sigmoid is 0 here, so its logarithm is infinite
    loss = losses.adversarial(scores)
    loss.backward()
    assert loss.item() == pytest.approx(200)
    assert scores.grad is not None
    assert scores.grad.tolist() == [-0.5, -0.5]


@pytest.mark.parametrize(
    "loss",
    [
        losses.mse,
        losses.log_mse,
        losses.learned_perceptual,
        losses.differential_divergence,
        lambda p, t: losses.differential_divergence(p, t, reduction="sum"),
        lambda p, t: losses.mse(p, t, "sum"),
        lambda p, t: losses.adversarial(p.flatten() - 0.5),
        lambda p, t: losses.discrimination(p.flatten() - 0.5, t.flatten() - p.flatten()),
    ],
)
def test_gradients(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert torch.autograd.gradcheck(loss, pair(2, 3, 1, 2, 3))


@pytest.mark.parametrize("loss", [losses.mse, losses.log_mse, losses.differential_divergence])
def test_half_precision_is_converted_to_float32_first(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    prediction, truth = (torch.rand(2, 4, 1, 8, 8) for _ in range(2))
    half = prediction.bfloat16().requires_grad_()
    value = loss(half, truth)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(prediction.bfloat16().float(), truth))
    value.sum().backward()
    assert half.grad is not None


def test_bad_reduction() -> None:
    prediction, truth = pair(1, 3, 1, 2, 2)
    with pytest.raises(OptionError, match=r"^reduction must be mean or sum, not none$"):
        losses.differential_divergence(prediction, truth, reduction="none")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(OptionError, match=r"^reduction must be mean or sum, not none$"):
        losses.mse(prediction, truth, "none")  # type: ignore[arg-type]  # on purpose
