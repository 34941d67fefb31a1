"""STIP's discriminator compared with its layers rewritten in float64; its names, sizes and saturation."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.errors import OptionError
from framecast.training import losses
from framecast.training.discriminator import Discriminator

Array = NDArray[np.float64]


def halve_again(x: Array, weight: Array, bias: Array) -> Array:
    """3×3 convolution of [C, H, W], stride 2, padding 1."""
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.empty((len(weight), -(-height // 2), -(-width // 2)))
    for row in range(out.shape[1]):
        for column in range(out.shape[2]):
            window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            out[:, row, column] = [(kernel * window).sum() + b for kernel, b in zip(weight, bias, strict=True)]
    return out


def normalise_again(x: Array, weight: Array, bias: Array) -> Array:
    """GroupNorm of [C, H, W] in 4 groups."""
    groups = [(g - g.mean()) / np.sqrt(g.var() + 1e-5) for g in np.split(x, 4)]
    return np.concatenate(groups) * weight[:, None, None] + bias[:, None, None]


def patchify_again(frame: Array, patch: int) -> Array:
    channels, height, width = frame.shape
    out = np.empty((channels * patch**2, height // patch, width // patch))
    for row in range(patch):
        for column in range(patch):
            for c in range(channels):
                out[(row * patch + column) * channels + c] = frame[c, row::patch, column::patch]
    return out


def forward_again(model: Discriminator, frames: Array, slope: float) -> tuple[Array, Array]:
    """Each sequence's mean probability [B], and the features [B, T, D]."""
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    stages = [("main.0", "main.1"), *((f"main.conv_{i}", f"main.gn_{i}") for i in range(1, len(model.main) // 3))]
    probabilities, features = [], []
    for sequence in frames:
        seen, scores = [], []
        for frame in sequence:
            x = patchify_again(frame, model.patch)
            for conv, norm in stages:
                x = halve_again(x, weights[f"{conv}.weight"], weights[f"{conv}.bias"])
                x = normalise_again(x, weights[f"{norm}.weight"], weights[f"{norm}.bias"])
                x = np.where(x > 0, x, slope * x)
            seen.append(x.reshape(-1))
            logit = weights["linear.0.weight"][0] @ seen[-1] + weights["linear.0.bias"][0]
            scores.append(1 / (1 + np.exp(-logit)))
        probabilities.append(np.mean(scores))
        features.append(seen)
    return np.array(probabilities), np.array(features)


def randomised(model: Discriminator) -> Discriminator:
    """The model in float64. Biases and norm weights are random, because their initial 0 and 1 would hide errors."""
    for parameter in model.double().parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 0.5)
    return model


@pytest.mark.parametrize(("activation", "slope"), [("relu", 0.0), ("leaky_relu", 0.2)])
def test_matches_its_layers(activation: Literal["relu", "leaky_relu"], slope: float) -> None:
    model = randomised(Discriminator(14, 22, 3, 2, activation))  # 7×11 patches: not a power of two; two stages
    frames = torch.rand(2, 3, 3, 14, 22, dtype=torch.float64)
    scores, features = model(frames)
    probabilities, features_again = forward_again(model, frames.numpy(), slope)
    assert scores.shape == (2,)
    assert features.detach().numpy() == pytest.approx(features_again, rel=1e-9, abs=1e-12)
    assert torch.sigmoid(scores).detach().numpy() == pytest.approx(probabilities, rel=1e-9)
    # The losses are computed from averaged probabilities.
    bce = -np.log(probabilities).mean()
    assert losses.adversarial(scores).item() == pytest.approx(bce, rel=1e-9)
    assert losses.discrimination(scores, scores).item() == pytest.approx(
        bce - np.log(1 - probabilities).mean(), rel=1e-9
    )


def sequence_of(logits: Tensor) -> tuple[Discriminator, Tensor]:
    """A discriminator with these logits for the frames of a sequence, and such a sequence."""

    class Given(torch.nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return logits[None, :, None]

    model = Discriminator(4, 4, 1, 1)
    model.add_module("linear", Given())
    return model, torch.zeros(1, len(logits), 1, 4, 4)


@pytest.mark.parametrize("logits", [[-200.0, -150.0], [150.0, 200.0], [-40.0, 40.0], [-100.0, 0.0, 100.0], [30.0]])
def test_averaging_is_exact_for_saturated_probabilities(logits: list[float]) -> None:
    given = torch.tensor(logits, requires_grad=True)
    model, frames = sequence_of(given)
    score, _ = model(frames)
    assert score.dtype == torch.float32
    exact = np.array(logits, np.longdouble)
    real = np.exp(-np.logaddexp(0, -exact)).mean()
    fake = np.exp(-np.logaddexp(0, exact)).mean()
    assert losses.adversarial(score).item() == pytest.approx(float(-np.log(real)), rel=1e-5)
    loss = losses.discrimination(score, score)
    assert loss.item() == pytest.approx(float(-np.log(real) - np.log(fake)), rel=1e-5)
    loss.backward()
    assert given.grad is not None
    assert given.grad.isfinite().all()


def test_names_and_sizes_for_the_published_frame() -> None:
    model = Discriminator(512, 512, 3, 2)  # UCF Sports, 256×256 patched
    names = {re.sub(r"\.(weight|bias)$", "", name) for name in model.state_dict()}
    stages = range(1, 8)
    assert names == {"main.0", "main.1", "linear.0", *(f"main.{kind}_{i}" for kind in ("conv", "gn") for i in stages)}
    assert model.main[0].weight.shape == (64, 12, 3, 3)
    assert all(getattr(model.main, f"conv_{i}").weight.shape == (64, 64, 3, 3) for i in stages)
    assert all(norm.num_groups == 4 for norm in model.modules() if isinstance(norm, torch.nn.GroupNorm))
    assert model.linear[0].weight.shape == (1, 64)


@pytest.mark.parametrize(("height", "width", "depth"), [(2, 2, 1), (3, 40, 1), (34, 60, 5), (63, 5, 5), (64, 64, 6)])
def test_any_size(height: int, width: int, depth: int) -> None:
    model = Discriminator(height, width, 1, 1)
    assert len(model.main) == 3 * depth
    scores, features = model(torch.rand(2, 1, 1, height, width))
    assert scores.shape == (2,)
    assert features.shape[:2] == (2, 1)


def test_learns_to_tell_real_from_fake_in_a_few_updates() -> None:
    model = Discriminator(16, 16, 1, 2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    real, fake = torch.rand(4, 2, 1, 16, 16), torch.full((4, 2, 1, 16, 16), 0.5)
    before = losses.discrimination(model(real)[0], model(fake)[0]).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss = losses.discrimination(model(real)[0], model(fake)[0])
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * before
    assert model(real)[0].min() > model(fake)[0].max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((15, 16, 3, 2), "height and width must be multiples of 2, and at least 4, not 15 and 16"),
        ((16, 2, 3, 2), "height and width must be multiples of 2, and at least 4, not 16 and 2"),
        ((16, 16, 0, 2), "channels and patch must be at least 1, not 0 and 2"),
        ((16, 16, 3, 0), "channels and patch must be at least 1, not 3 and 0"),
        ((16, 16, 3, 2, "gelu"), "activation must be relu or leaky_relu, not gelu"),
    ],
)
def test_bad_options(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}$"):
        Discriminator(*arguments)
