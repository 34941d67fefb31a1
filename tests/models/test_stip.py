"""STIP matches its published sizes and cost, and a clip-wise forward written from the equations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from framecast.models.blocks import patchify, unpatchify
from framecast.models.configs import CONFIGS, build
from framecast.models.stip import STIP, STIPConfig

# Beside this file; pytest's importlib mode puts no folder of tests on the path.
from .clipwise import (  # noqa: TID252
    ClipWise,
    Shapes,
    clip_gmacs,
    count,
    difference,
    load,
    parameters,
    random_weights,
    stream,
)

# Parameters in the released checkpoint, parameters used, GMAC per frame.
PUBLISHED = {
    "stip-ucf": (18_054_212, 17_913_860, 6.887),
    "stip-h36m": (18_072_464, 17_932_112, 8.076),
    "stip-4k": (22_358_848, 22_218_496, 32.33),
}
SMALL = STIPConfig(height=32, width=48, patch=2, hidden=8, layers=3, stages=3)
SHAPES = {
    "small": SMALL,
    "one-stage": STIPConfig(height=12, width=8, patch=1, channels=2, hidden=5, layers=1, kernel=3, stages=1),
    "four-stages": STIPConfig(height=96, width=144, patch=3, channels=1, hidden=6, layers=2, kernel=1, stages=4),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "without-forget-bias": {"forget_bias": 0.0},
    "forget-bias": {"forget_bias": -2.5},
    "unswapped": {"swapped": False},
    "first-skip": {"first_skip": True},
    "skip-weight": {"skip_weight": 0.7},
    "without-sted": {"sted": False},
    "without-sted-unswapped": {"sted": False, "swapped": False},
    "without-mgir": {"mgir": False},
    "paper": {"forget_bias": 0.0, "swapped": False, "first_skip": True},
    "without-either": {"sted": False, "mgir": False, "first_skip": True},
}


def released_shapes(config: STIPConfig) -> Shapes:
    """Every key of STIPHR's state_dict with its shape. Without STED, there are only the encoder and decoder for S."""
    shapes: Shapes = {}
    hidden, features, kernel = config.hidden, config.features, config.kernel

    def add(name: str, *weight: int, bias: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = (bias,)

    for k in range(config.layers):
        for which in "ts":
            name = f"cell_list.{k}.conv_{which}"
            add(f"{name}.0", 4 * hidden, hidden, kernel, kernel, bias=4 * hidden)
            shapes[f"{name}.1.weight"] = shapes[f"{name}.1.bias"] = (4 * hidden, *config.state_size)
        add(f"cell_list.{k}.conv_last", hidden, 2 * hidden, 1, 1, bias=hidden)
    for which in "st" if config.sted else "s":
        add(f"{which}_encoder3d.encoder3d_{which}_conv-1", hidden, features, 2, 1, 1, bias=hidden)
        for i in range(config.stages):
            add(f"{which}_encoders.{i}.encoder_{which}{i}", hidden, hidden, 3, 3, bias=hidden)
            add(f"{which}_decoders.{i}.{which}_decoder{i}", hidden, hidden, 3, 3, bias=hidden)
        add(f"{which}_srcnn.0", features, hidden, 1, 1, bias=features)
    add("merge_t", hidden, 2 * hidden, 1, 1, bias=hidden)
    add("merge", hidden, 2 * hidden, 1, 1, bias=hidden)
    add("conv_last_sr", features, 2 * features, 1, 1, bias=features)
    return shapes


def unused(config: STIPConfig) -> set[str]:
    names = [*(f"cell_list.{k}.conv_last" for k in range(config.layers)), "merge"]
    return {f"{name}.{part}" for name in names for part in ("weight", "bias")}


class Clip(ClipWise):
    """The published forward, with the released keys."""

    config: STIPConfig

    def encode(self, pair: Tensor, which: str) -> list[Tensor]:
        """The features e0, e1, … of a pair [B, F, 2, H, W], finest first."""
        name = f"{which}_encoder3d.encoder3d_{which}_conv-1"
        x = F.leaky_relu(F.conv3d(pair, self.w[f"{name}.weight"], self.w[f"{name}.bias"]), 0.2).squeeze(2)
        scales = []
        for i in range(self.config.stages):
            x = F.leaky_relu(self.conv(x, f"{which}_encoders.{i}.encoder_{which}{i}", stride=2, padding=1), 0.2)
            scales.append(x)
        return scales

    def decode(self, x: Tensor, scales: list[Tensor], which: str) -> Tensor:
        last = self.config.stages - 1
        weight = self.config.skip_weight if self.config.mgir else 0.0
        if self.config.first_skip:
            x = x + weight * scales[last]
        for i in range(last):
            x = F.leaky_relu(self.up(x, f"{which}_decoders.{i}.{which}_decoder{i}"), 0.2)
            x = x + weight * scales[last - 1 - i]
        x = self.up(x, f"{which}_decoders.{last}.{which}_decoder{last}")
        return self.conv(x, f"{which}_srcnn.0")

    def cell(self, t: Tensor, s: Tensor, k: int) -> tuple[Tensor, Tensor]:
        of_t = self.conv_norm(t, f"cell_list.{k}.conv_t").chunk(4, dim=1)
        of_s = self.conv_norm(s, f"cell_list.{k}.conv_s").chunk(4, dim=1)
        z = torch.sigmoid(of_t[0] + of_s[0] + self.config.forget_bias)
        r = torch.sigmoid(of_t[1] + of_s[1])
        t_candidate = torch.tanh(of_t[2] + r * of_s[2])
        s_candidate = torch.tanh(of_s[3] + r * of_t[3])
        return (1 - z) * t_candidate + z * t, (1 - z) * s_candidate + z * s

    def predict(self, frames: list[Tensor]) -> list[Tensor]:
        config, outputs = self.config, []
        t_states = [self.zeros(frames[0], config.hidden) for _ in range(config.layers)]
        frames = [torch.zeros_like(frames[0]), *frames]
        temporal = "t" if config.sted else "s"
        for i in range(1, len(frames)):
            pair = torch.stack(frames[i - 1 : i + 1], dim=2)
            scales_s = self.encode(pair, "s")
            scales_t = self.encode(pair, "t") if config.sted else scales_s
            s = scales_s[-1]
            t_states[0] = self.conv(torch.cat([t_states[0], scales_t[-1]], dim=1), "merge_t")
            for k in range(config.layers):
                t_states[k], s = self.cell(t_states[k], s, k)
            into_s, into_t = (t_states[-1], s) if config.swapped else (s, t_states[-1])
            decoded = [self.decode(into_s, scales_s, "s"), self.decode(into_t, scales_t, temporal)]
            outputs.append(self.conv(torch.cat(decoded, dim=1), "conv_last_sr"))
        return outputs


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    released, used, _ = PUBLISHED[name]
    with torch.device("meta"):
        model = build(name)
    assert isinstance(model, STIP)
    assert parameters(model) == used == CONFIGS[name].parameters
    shapes = released_shapes(model.config)
    assert count(shapes) == released
    assert count({key: shapes[key] for key in unused(model.config)}) == released - used


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cost(name: str) -> None:
    with torch.device("meta"):
        config = cast(STIPConfig, build(name).config)
    window = CONFIGS[name].window
    gmacs = clip_gmacs(Clip, config, released_shapes(config), window)
    assert gmacs / window == pytest.approx(PUBLISHED[name][2], rel=0.01)
    assert CONFIGS[name].window_gmacs == pytest.approx(gmacs, rel=0.01)


def test_patch_order_is_space_to_depth() -> None:
    frame = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    patches = patchify(frame, 2)
    for row in range(2):
        for column in range(2):
            for c in range(3):
                assert torch.equal(patches[:, (row * 2 + column) * 3 + c], frame[:, c, row::2, column::2])
    assert torch.equal(unpatchify(patches, 2), frame)


@pytest.mark.parametrize("name", SHAPES)
def test_step_equals_the_released_clip_wise_forward(name: str, tmp_path: Path) -> None:
    config = SHAPES[name]
    weights = random_weights(released_shapes(config))
    model = STIP(config)
    assert set(load(model, weights, tmp_path).unused) == unused(config)
    clip = torch.rand(2, 14, *model.frame_shape)
    assert difference(stream(model, clip), Clip(config, weights)(clip)) <= 1e-5


@pytest.mark.parametrize("name", OPTIONS)
def test_options_equal_their_equations_and_change_the_output(name: str, tmp_path: Path) -> None:
    config = replace(SMALL, **OPTIONS[name])
    released = random_weights(released_shapes(SMALL))
    weights = {key: released[key] for key in released_shapes(config)}
    model = STIP(config)
    load(model, weights, tmp_path)
    clip = torch.rand(2, 12, *model.frame_shape, dtype=torch.float64)
    predictions = stream(model.double(), clip)
    assert difference(predictions, Clip(config, weights)(clip)) <= 1e-10
    assert difference(predictions, Clip(SMALL, released)(clip)) > 1e-3


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_only_sted_changes_the_count(changes: dict[str, float]) -> None:
    with torch.device("meta"):
        model = build("stip-ucf", changes)
    # The second encoder and decoder: the first layer and srcnn, both 1×1, and eight stages of 3×3, all with biases.
    second = (2 * 12 + 1) * 64 + (64 + 1) * 12 + 8 * (9 * 64 + 1) * 64
    assert parameters(model) == 17_913_860 - (0 if changes.get("sted", True) else second)
