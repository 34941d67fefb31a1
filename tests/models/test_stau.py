"""STAU and MAU match their published sizes and cost, and a clip-wise forward written from the equations."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from framecast.errors import OptionError
from framecast.models.configs import CONFIGS, build
from framecast.models.stau import MAU, STAU, MAUConfig, STAUConfig

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

# Parameters in the released checkpoint, parameters used, GMAC per frame, and our config.
PUBLISHED = {
    "stau-mnist": (4_483_588, 4_475_329, 0.934, STAUConfig(64, 64, 1)),
    "stau-kitti": (18_588_568, 18_580_291, 4.698, STAUConfig(128, 160, 3, layers=16, stages=3, residual=True)),
    "stau-town": (
        21_785_824,
        21_772_912,
        10.683,
        STAUConfig(1088, 1920, 3, patch=4, layers=16, stages=4, residual=True),
    ),
    "mau-mnist": (4_483_588, 4_475_329, 0.934, MAUConfig(64, 64, 1)),
}
SMALL = STAUConfig(height=16, width=24, channels=3, patch=2, hidden=8, layers=7, stages=1)  # more layers than θ
SHAPES = {
    "small": SMALL,
    "few-layers": STAUConfig(height=24, width=16, channels=1, hidden=6, layers=2, kernel=3, stages=3),
    "no-stages": STAUConfig(height=5, width=7, channels=2, hidden=5, layers=3, kernel=1, stages=0),
    "two-stages": STAUConfig(height=12, width=20, channels=1, hidden=4, layers=1, stages=2),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "residual": {"residual": True},
    "unscaled": {"scaled": False},
    "recall": {"recall": True},
    "recall-two-stages": {"recall": True, "stages": 2, "patch": 1},
    "without-tam": {"temporal_attention": False},
    "without-sam": {"spatial_attention": False},
    "without-both": {"temporal_attention": False, "spatial_attention": False},
    "tau-1": {"tau": 1},
    "tau-3": {"tau": 3},
    "tau-7": {"tau": 7},
    "theta-1": {"theta": 1},
    "theta-3": {"theta": 3},
    "theta-6": {"theta": 6},
    "uncorrelated": {"correlated": False, "theta": 3},
    "all": {"residual": True, "scaled": False, "recall": True, "tau": 2, "theta": 2},
}


def released_shapes(config: STAUConfig) -> Shapes:
    """Every key of the authors' state_dict with its shape; without both attentions, only the remaining keys."""
    shapes: Shapes = {}
    hidden, features, kernel = config.hidden, config.features, config.kernel

    def add(name: str, *weight: int, bias: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = (bias,)

    gates = {"conv_t": 3, "conv_t_next": 1, "conv_s": 3, "conv_s_next": 1}
    if not (config.temporal_attention or config.spatial_attention):
        gates = {"conv_t": 3, "conv_s": 3}
    for k in range(config.layers):
        for conv, n in gates.items():
            name = f"cell_list.{k}.{conv}"
            add(f"{name}.0", n * hidden, hidden, kernel, kernel, bias=n * hidden)
            shapes[f"{name}.1.weight"] = shapes[f"{name}.1.bias"] = (n * hidden, *config.state_size)
    add("encoders.0.encoder_t_conv-1", hidden, features, 1, 1, bias=hidden)
    for i in range(config.stages):
        add(f"encoders.{i + 1}.encoder_t{i}", hidden, hidden, 3, 3, bias=hidden)
        add(f"decoders.{i}.c_decoder{i}", hidden, hidden, 3, 3, bias=hidden)
    add("srcnn.0", features, hidden, 1, 1, bias=features)
    add("merge", hidden, 2 * hidden, 1, 1, bias=hidden)
    add("conv_last_sr", features, 2 * features, 1, 1, bias=features)
    return shapes


UNUSED = {f"{name}.{part}" for name in ("merge", "conv_last_sr") for part in ("weight", "bias")}


class Clip(ClipWise):
    """The published forward, with the released keys."""

    config: STAUConfig

    def attend(self, keys: list[Tensor], values: list[Tensor], query: Tensor) -> Tensor:
        """Σ_j softmax_j(⟨key_j, query⟩ · scale) · value_j, with one weight for each sample and j."""
        scores = torch.stack([torch.einsum("bchw,bchw->b", key, query) for key in keys])  # [n, B]
        weights = torch.softmax(scores / (math.sqrt(query[0].numel()) if self.config.scaled else 1), dim=0)
        return torch.einsum("nb,nbchw->bchw", weights, torch.stack(values))

    def cell(
        self, k: int, t_history: list[Tensor], s_history: list[Tensor], t_below: list[Tensor], s_below: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The new T and S of layer k.

        Inputs are its histories (oldest first) and, for layer k and those below, the previous step's T and their S.
        """
        config, name = self.config, f"cell_list.{k}"
        t, s = t_history[-1], s_below[-1]
        t_fused, s_fused = t, s
        if config.temporal_attention or config.spatial_attention:
            t_next, s_next = (self.conv_norm(x, f"{name}.conv_{which}_next") for x, which in ((t, "t"), (s, "s")))
        if config.temporal_attention:
            gate = torch.sigmoid(t_next)
            keys, query = (s_history, s_next) if config.correlated else (t_history, t_next)
            t_fused = gate * t + (1 - gate) * self.attend(keys[-config.tau :], t_history[-config.tau :], query)
        if config.spatial_attention:
            gate, first = torch.sigmoid(s_next), max(k - config.theta + 1, 0)
            keys, query = (t_below, t_next) if config.correlated else (s_below, s_next)
            s_fused = gate * s + (1 - gate) * self.attend(keys[first:], s_below[first:], query)
        of_t = self.conv_norm(t_fused, f"{name}.conv_t").chunk(3, dim=1)
        of_s = self.conv_norm(s_fused, f"{name}.conv_s").chunk(3, dim=1)
        t_gate, s_gate = torch.sigmoid(of_t[0]), torch.sigmoid(of_s[0])
        t_new = t_gate * of_t[1] + (1 - t_gate) * of_s[1]
        s_new = s_gate * of_s[2] + (1 - s_gate) * of_t[2]
        return t_new, s_new + s if config.residual else s_new

    def predict(self, frames: list[Tensor]) -> list[Tensor]:
        config, outputs = self.config, []
        t_histories, s_histories = (
            [[self.zeros(frames[0], config.hidden)] * config.tau for _ in range(config.layers)] for _ in "ts"
        )
        for frame in frames:
            scales = [F.leaky_relu(self.conv(frame, "encoders.0.encoder_t_conv-1"), 0.2)]
            for i in range(config.stages):
                x = self.conv(scales[-1], f"encoders.{i + 1}.encoder_t{i}", stride=2, padding=1)
                scales.append(F.leaky_relu(x, 0.2))
            t_below = [history[-1] for history in t_histories]  # all states are from the previous step
            s_below = [scales[-1]]
            for k in range(config.layers):
                t, s = self.cell(k, t_histories[k], s_histories[k], t_below[: k + 1], s_below)
                t_histories[k].append(t)
                s_histories[k].append(s_below[k])  # the layer's input
                s_below.append(s)
            x = s_below[-1]
            for i in range(config.stages):
                x = self.up(x, f"decoders.{i}.c_decoder{i}")
                x = F.leaky_relu(x, 0.2) if i < config.stages - 1 else x
                x = x + scales[-2 - i] if config.recall else x
            outputs.append(self.conv(x, "srcnn.0"))
        return outputs


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    released, used, _, config = PUBLISHED[name]
    with torch.device("meta"):
        model = build(name)
    assert isinstance(model, MAU if name.startswith("mau") else STAU)
    assert model.config == config
    assert parameters(model) == used == CONFIGS[name].parameters
    shapes = released_shapes(config)
    assert count(shapes) == released
    assert count({key: shapes[key] for key in UNUSED}) == released - used


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cost(name: str) -> None:
    _, _, published, config = PUBLISHED[name]
    window = CONFIGS[name].window
    gmacs = clip_gmacs(Clip, config, released_shapes(config), window)
    assert gmacs / window == pytest.approx(published, rel=0.01)
    assert CONFIGS[name].window_gmacs == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize("network", ["stau", "mau"])
@pytest.mark.parametrize("name", SHAPES)
def test_step_equals_the_released_clip_wise_forward(name: str, network: str, tmp_path: Path) -> None:
    config = SHAPES[name]
    weights = random_weights(released_shapes(config))
    model = STAU(config) if network == "stau" else MAU(mau(config))
    assert set(load(model, weights, tmp_path).unused) == UNUSED
    clip = torch.rand(2, 14, *model.frame_shape)
    assert difference(stream(model, clip), Clip(model.config, weights)(clip)) <= 1e-5


@pytest.mark.parametrize("name", OPTIONS)
def test_options_equal_their_equations_and_change_the_output(name: str, tmp_path: Path) -> None:
    config = replace(SMALL, **OPTIONS[name])
    base = replace(SMALL, stages=config.stages, patch=config.patch)
    released = random_weights(released_shapes(base))
    weights = {key: released[key] for key in released_shapes(config)}
    model = STAU(config)
    load(model, weights, tmp_path)
    clip = torch.rand(2, 14, *model.frame_shape, dtype=torch.float64)
    predictions = stream(model.double(), clip)  # unscaled scores magnify float32's rounding
    assert difference(predictions, Clip(config, weights)(clip)) <= 1e-10
    assert difference(predictions, Clip(base, released)(clip)) > 1e-3


def mau(config: STAUConfig) -> MAUConfig:
    return MAUConfig(**{**asdict(config), "spatial_attention": False})


def test_mau_is_stau_without_the_spatial_attention(tmp_path: Path) -> None:
    assert MAUConfig(64, 64, 1) == mau(STAUConfig(64, 64, 1))
    weights = random_weights(released_shapes(SMALL))
    one, other = MAU(mau(SMALL)), STAU(replace(SMALL, spatial_attention=False))
    for model in (one, other):
        load(model, weights, tmp_path)
    clip = torch.rand(2, 12, *one.frame_shape)
    assert torch.equal(stream(one, clip), stream(other, clip))


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_options_have_only_the_parameters_they_use(changes: dict[str, Any]) -> None:
    config = replace(STAUConfig(64, 64, 1), **{**changes, "stages": 2, "patch": 1})
    with torch.device("meta"):
        model = STAU(config)
    # conv_t_next and conv_s_next in each of 4 layers: 5×5 with a bias, plus the layer norm.
    attention = 4 * 2 * ((25 * 64 + 1) * 64 + 2 * 64 * 16 * 16)
    both = config.temporal_attention or config.spatial_attention
    assert parameters(model) == 4_475_329 - (0 if both else attention)


@pytest.mark.parametrize("missing", ["temporal_attention", "spatial_attention"])
def test_uncorrelated_attention_needs_both(missing: str) -> None:
    with pytest.raises(OptionError, match="correlated=false needs temporal_attention and spatial_attention"):
        STAUConfig(64, 64, 1, correlated=False, **{missing: False})
