"""ASTM matches its published sizes and cost, and the paper's clip-wise forward on pairs of frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from framecast.models.astm import ASTM, ASTMConfig, PairConv
from framecast.models.configs import CONFIGS, build

# Beside this file; pytest's importlib mode puts no folder of tests on the path.
from .clipwise import ClipWise, Shapes, clip_gmacs, difference, parameters, random_weights, stream  # noqa: TID252

# Parameters, GMAC per frame, and our config.
PUBLISHED = {
    "astm-mnist": (22_019_088, 9.26, ASTMConfig(64, 64, channels=1, patch=4)),
    "astm-kth": (23_638_080, 10.08, ASTMConfig(128, 128, channels=1, patch=8)),
}
SMALL = ASTMConfig(height=8, width=12, channels=1, patch=2, hidden=6, layers=3)
SHAPES = {
    "small": SMALL,
    "one-stage": ASTMConfig(height=12, width=20, channels=3, patch=2, hidden=4, layers=2, kernel=3, stages=1),
    "two-stages": ASTMConfig(height=16, width=12, channels=3, patch=1, hidden=5, layers=1, kernel=1, stages=2),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "without-eifag": {"eifag": False},
    "without-eifag-tau": {"eifag": False, "tau": 2},  # without EIFAG, tau has no effect
    "tau-1": {"tau": 1},
    "tau-3": {"tau": 3},
    "tau-8": {"tau": 8},
}


def shapes_of(config: ASTMConfig) -> Shapes:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in ASTM(config).state_dict().items()}


def pairs(x: Tensor, groups: int) -> Tensor:
    """Convert our (group, frame, channel) order to the paper's: [groups·2·C, h, w] to [groups·C, 2, h, w]."""
    split: Tensor = x.unflatten(0, (groups, 2, -1))
    return split.transpose(1, 2).flatten(0, 1)


def ours(x: Tensor, groups: int) -> Tensor:
    """The inverse of :func:`pairs` for a batch: [B, groups·C, 2, h, w] to [B, groups·2·C, h, w]."""
    split: Tensor = x.unflatten(1, (groups, -1))
    return split.transpose(2, 3).flatten(1, 3)


class Clip(ClipWise):
    """The paper's forward: tensors are [B, C, 2, h, w], and convolutions over both frames are Conv3d."""

    config: ASTMConfig

    def conv3d(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight, bias = self.w[f"{name}.weight"], self.w[f"{name}.bias"]
        return F.conv3d(x, weight, bias, (1, stride, stride), tuple(size // 2 for size in weight.shape[2:]))

    def gates(self, x: Tensor, name: str, n: int) -> tuple[Tensor, ...]:
        x = self.conv3d(x, f"{name}.conv")
        weight, bias = (pairs(self.w[f"{name}.norm.{part}"], n) for part in ("weight", "bias"))
        return self.norm(x, weight, bias).chunk(n, dim=1)

    def recall(self, history: list[Tensor], forget: Tensor) -> Tensor:
        """Equation 7: the forget gate's attention over the last τ cells; without EIFAG, the last cell."""
        if not self.config.eifag:
            return history[-1]
        cells = torch.stack(history[-self.config.tau :])
        return (torch.softmax(cells * forget, dim=0) * cells).sum(0)

    def cell(self, k: int, x: Tensor, h: Tensor, history: list[Tensor], m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        name = f"cells.{k}"
        of_x = self.gates(x, f"{name}.conv_x", 7)
        of_h = self.gates(h, f"{name}.conv_h", 4)
        of_m = self.gates(m, f"{name}.conv_m", 3)
        forget = torch.sigmoid(of_x[1] + of_h[1] + 1.0)
        recalled = forget * self.recall(history, forget)
        c = torch.sigmoid(of_x[0] + of_h[0]) * torch.tanh(of_x[2] + of_h[2]) + recalled
        m = torch.sigmoid(of_x[4] + of_m[1] + 1.0) * m + torch.sigmoid(of_x[3] + of_m[0]) * torch.tanh(
            of_x[5] + of_m[2]
        )
        both = torch.cat([c, m], dim=1)
        (of_both,) = self.gates(both, f"{name}.conv_o", 1)
        h = torch.sigmoid(of_x[6] + of_h[3] + of_both) * torch.tanh(self.conv3d(both, f"{name}.conv_last"))
        return h, c, m

    def predict(self, frames: list[Tensor]) -> list[Tensor]:
        config, outputs = self.config, []
        zero = self.zeros(frames[0], config.hidden, 2)
        h, m = [zero] * config.layers, zero
        histories = [[zero] for _ in range(config.layers)]
        last = self.w["last.weight"].unflatten(1, (2, -1)).transpose(1, 2)  # [F, C, 2, 1, 1]
        before = torch.zeros_like(frames[0])
        for frame in frames:
            x, before = torch.stack([before, frame], dim=2), frame
            for i in range(config.stages):
                x = F.relu(self.conv3d(x, f"encoders.{i}.0", stride=2))
            for k in range(config.layers):
                x, c, m = self.cell(k, x, h[k], histories[k], m)
                h[k] = x
                histories[k].append(c)
            y = F.conv3d(x, last, self.w["last.bias"], stride=(2, 1, 1)).squeeze(2)
            for i in range(config.stages):
                y = self.up(y, f"decoders.{i}")
                y = F.relu(y) if i < config.stages - 1 else y
            outputs.append(y)
        return outputs


def filled(config: ASTMConfig, weights: dict[str, Tensor]) -> ASTM:
    model = ASTM(config).eval()
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    expected, _, config = PUBLISHED[name]
    with torch.device("meta"):
        model = build(name)
        without = build(name, {"eifag": False})
    assert isinstance(model, ASTM)
    assert model.config == config
    assert parameters(model) == parameters(without) == expected == CONFIGS[name].parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cost(name: str) -> None:
    _, published, config = PUBLISHED[name]
    window = CONFIGS[name].window
    gmacs = clip_gmacs(Clip, config, shapes_of(config), window)
    assert gmacs / window == pytest.approx(published, rel=0.01)
    assert CONFIGS[name].window_gmacs == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize("eifag", [True, False], ids=["eifag", "basic"])
@pytest.mark.parametrize("name", SHAPES)
def test_step_equals_the_clip_wise_forward(name: str, eifag: bool) -> None:
    config = replace(SHAPES[name], eifag=eifag)
    weights = random_weights(shapes_of(config))
    model = filled(config, weights)
    clip = torch.rand(2, 14, *model.frame_shape)
    assert difference(stream(model, clip), Clip(config, weights)(clip)) <= 1e-5


@pytest.mark.parametrize("name", OPTIONS)
def test_options_equal_their_equations_and_change_the_output(name: str) -> None:
    config = replace(SMALL, **OPTIONS[name])
    weights = random_weights(shapes_of(SMALL))  # the same for all options
    model = filled(config, weights)
    clip = torch.rand(2, 14, *model.frame_shape, dtype=torch.float64)
    predictions = stream(model.double(), clip)
    assert difference(predictions, Clip(config, weights)(clip)) <= 1e-10
    assert difference(predictions, Clip(SMALL, weights)(clip)) > 1e-3


@pytest.mark.parametrize("name", SHAPES)
def test_deployed_is_the_same_without_a_conv3d(name: str) -> None:
    config = SHAPES[name]
    model = filled(config, random_weights(shapes_of(config)))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    deployed = model.deployed()
    assert not any(isinstance(module, nn.Conv3d) for module in deployed.modules())
    assert sum(isinstance(module, PairConv) for module in model.modules()) == 5 * config.layers + config.stages
    clip = torch.rand(2, 12, *model.frame_shape)
    assert difference(stream(deployed, clip), stream(model, clip)) <= 1e-6
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("split", [1, 2])
@pytest.mark.parametrize("join", [1, 2])
@pytest.mark.parametrize(("depth", "kernel"), [(3, 5), (3, 1), (1, 1), (1, 3)])
def test_a_pair_conv_equals_a_conv3d_of_two_frames(depth: int, kernel: int, join: int, split: int, stride: int) -> None:
    pair = PairConv(4, 6, kernel, depth=depth, stride=stride, join=join, split=split).double()
    x = torch.rand(2, 4, 2, 10, 8, dtype=torch.float64)
    padding = (depth // 2, kernel // 2, kernel // 2)
    with torch.inference_mode():
        expected = ours(F.conv3d(x, pair.weight, pair.bias, (1, stride, stride), padding), split)
        for conv in (pair, pair.as_conv2d()):
            result = conv(ours(x, join))
            assert result.shape == (2, 12, 10 // stride, 8 // stride)
            assert (result - expected).abs().max() <= 1e-12
