"""TAU matches its published sizes and cost, and a clip-wise forward written from the equations."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from framecast.errors import OptionError
from framecast.models.step import StepModel
from framecast.models.tau import TAU, Block, TAUConfig

# Config, parameters, and GMAC per clip (T frames to T frames).
PUBLISHED = {
    "mnist": (TAUConfig(64, 64, 1, 10, 64, 512, 4, 8), 44_656_001, 15.894),
    "kth": (TAUConfig(128, 128, 1, 10, 64, 256, 2, 6), 14_955_201, 73.56),
    "taxibj": (TAUConfig(32, 32, 2, 4, 32, 256, 2, 8), 9_545_442, 2.487),
    "caltech": (TAUConfig(128, 160, 3, 10, 64, 256, 2, 6), 14_956_483, 92.2),
}
SMALL = TAUConfig(16, 24, 1, 5, 8, 16, 4, 3)
SMALLS = {
    "ns4": SMALL,
    "ns2": replace(SMALL, encoder_layers=2),
    "odd": TAUConfig(10, 14, 3, 3, 6, 21, 2, 2, mlp_ratio=3),
    "odd-ns4": TAUConfig(12, 20, 2, 7, 2, 70, 4, 4, mlp_ratio=5),
    "no-reduction": replace(SMALL, hidden_temporal=40),  # equals T·hid_S, so the channels do not change
}
VARIANTS = {
    "without-sa": replace(SMALL, spatial_attention=False),
    "without-da": replace(SMALL, dynamical_attention=False),
    "without-both": replace(SMALL, spatial_attention=False, dynamical_attention=False),
    "transpose": replace(SMALL, upsample="transpose"),
}


def dims(config: TAUConfig) -> list[int]:
    """Channels of each block of the translator, and of its output."""
    ends = config.frames * config.hidden_spatial
    return [ends, *[config.hidden_temporal] * (config.translator_layers - 1), ends]


def released_shapes(config: TAUConfig) -> dict[str, tuple[int, ...]]:
    """Every key of OpenSTL's state_dict, with its shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    hidden = config.hidden_spatial

    def add(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    def batch_norm(name: str, d: int) -> None:
        add(name, d)
        shapes.update({f"{name}.running_mean": (d,), f"{name}.running_var": (d,), f"{name}.num_batches_tracked": ()})

    for i in range(config.encoder_layers):
        add(f"enc.enc.{i}.conv.conv", hidden, hidden if i else config.channels, 3, 3)
        add(f"enc.enc.{i}.conv.norm", hidden)
        if i % 2 == 0 and config.upsample == "shuffle":
            add(f"dec.dec.{i}.conv.conv.0", 4 * hidden, hidden, 3, 3)
        else:  # transposed convolutions were never released; here they are named like the other layers
            add(f"dec.dec.{i}.conv.conv", hidden, hidden, 3, 3)
        add(f"dec.dec.{i}.conv.norm", hidden)
    add("dec.readout", config.channels, hidden, 1, 1)
    widths = dims(config)
    for j, (d, after) in enumerate(pairwise(widths)):
        block = f"hid.enc.{j}.block"
        for k in (1, 2):
            shapes[f"{block}.layer_scale_{k}"] = (d,)
            batch_norm(f"{block}.norm{k}", d)
            add(f"{block}.attn.proj_{k}", d, d, 1, 1)
        unit = f"{block}.attn.spatial_gating_unit"
        if config.spatial_attention:
            add(f"{unit}.conv0", d, 1, 5, 5)
            add(f"{unit}.conv_spatial", d, 1, 7, 7)
            add(f"{unit}.conv1", d, d, 1, 1)
        if config.dynamical_attention:
            squeezed = d // max(d // 16, 4)
            shapes[f"{unit}.fc.0.weight"] = (squeezed, d)
            shapes[f"{unit}.fc.2.weight"] = (d, squeezed)
        wide = config.mlp_ratio * d
        add(f"{block}.mlp.fc1", wide, d, 1, 1)
        add(f"{block}.mlp.dwconv.dwconv", wide, 1, 3, 3)
        add(f"{block}.mlp.fc2", d, wide, 1, 1)
        if d != after:
            add(f"hid.enc.{j}.reduction", after, d, 1, 1)
    return shapes


def ours(key: str) -> str:
    """Our name for a released key, by the only rule that matches it."""
    names = [match.expand(to) for rule, to in TAU.released if to and (match := re.fullmatch(rule, key))]
    assert len(names) == 1, key
    return names[0]


def random_weights(config: TAUConfig) -> dict[str, Tensor]:
    """Random weights by released key, none so small that it could hide an error."""
    weights = {}
    for key, shape in released_shapes(config).items():
        if key.endswith("num_batches_tracked"):
            weights[key] = torch.tensor(7)
        elif key.endswith("running_var") or ("norm" in key and key.endswith("weight")):
            weights[key] = torch.rand(shape) + 0.5
        elif "layer_scale" in key:
            weights[key] = torch.randn(shape)
        elif key.endswith("weight"):
            weights[key] = torch.randn(shape) / math.sqrt(math.prod(shape[1:]))
        else:  # biases and running means
            weights[key] = torch.randn(shape) * 0.3
    return weights


def build(config: TAUConfig, weights: dict[str, Tensor]) -> TAU:
    model = TAU(config).eval()
    model.load_state_dict({ours(key): value for key, value in weights.items()})
    return model


class Clip:
    """The published forward of a whole clip. Of our code it uses only the configuration."""

    def __init__(self, config: TAUConfig, weights: dict[str, Tensor]) -> None:
        self.config = config
        self.w = {key: value.double() for key, value in weights.items()}

    def conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
        weight, bias = self.w[f"{name}.weight"], self.w[f"{name}.bias"]
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups=x.shape[1] // weight.shape[1])

    def conv_sc(self, x: Tensor, name: str, sampling: str = "") -> Tensor:
        if sampling == "up" and self.config.upsample == "transpose":
            w, b = self.w[f"{name}.conv.weight"], self.w[f"{name}.conv.bias"]
            x = F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1)
        elif sampling == "up":
            x = F.pixel_shuffle(self.conv(x, f"{name}.conv.0", padding=1), 2)
        else:
            x = self.conv(x, f"{name}.conv", stride=2 if sampling == "down" else 1, padding=1)
        x = F.group_norm(x, 2, self.w[f"{name}.norm.weight"], self.w[f"{name}.norm.bias"], 1e-5)
        return x * torch.sigmoid(x)

    def batch_norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            self.w[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    def attention(self, z: Tensor, name: str) -> Tensor:
        u = F.gelu(self.conv(z, f"{name}.proj_1"))
        unit, weighed = f"{name}.spatial_gating_unit", u
        if self.config.spatial_attention:
            near = self.conv(u, f"{unit}.conv0", padding=2)
            far = self.conv(near, f"{unit}.conv_spatial", padding=9, dilation=3)
            weighed = self.conv(far, f"{unit}.conv1") * weighed
        if self.config.dynamical_attention:
            pooled = F.adaptive_avg_pool2d(u, 1).flatten(1)
            squeezed = F.relu(F.linear(pooled, self.w[f"{unit}.fc.0.weight"]))
            weighed = torch.sigmoid(F.linear(squeezed, self.w[f"{unit}.fc.2.weight"]))[:, :, None, None] * weighed
        return self.conv(weighed, f"{name}.proj_2") + z

    def mlp(self, x: Tensor, name: str) -> Tensor:
        x = self.conv(self.conv(x, f"{name}.fc1"), f"{name}.dwconv.dwconv", padding=1)
        return self.conv(F.gelu(x), f"{name}.fc2")

    def translate(self, x: Tensor) -> Tensor:
        """Run the translator: [B, T·hid_S, h, w] to the same shape."""
        for j in range(self.config.translator_layers):
            name = f"hid.enc.{j}.block"
            scale_1, scale_2 = (self.w[f"{name}.layer_scale_{k}"].view(1, -1, 1, 1) for k in (1, 2))
            x = x + scale_1 * self.attention(self.batch_norm(x, f"{name}.norm1"), f"{name}.attn")
            x = x + scale_2 * self.mlp(self.batch_norm(x, f"{name}.norm2"), f"{name}.mlp")
            if f"hid.enc.{j}.reduction.weight" in self.w:
                x = self.conv(x, f"hid.enc.{j}.reduction")
        return x

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        skip = x = self.conv_sc(x, "enc.enc.0.conv")
        for i in range(1, self.config.encoder_layers):
            x = self.conv_sc(x, f"enc.enc.{i}.conv", "down" if i % 2 else "")
        return x, skip

    def decode(self, x: Tensor, skip: Tensor) -> Tensor:
        last = self.config.encoder_layers - 1
        for i in range(last):
            x = self.conv_sc(x, f"dec.dec.{i}.conv", "" if i % 2 else "up")
        return self.conv(self.conv_sc(x + skip, f"dec.dec.{last}.conv"), "dec.readout")

    def __call__(self, clip: Tensor, unseen: int = 0) -> Tensor:
        """[B, T, C, H, W] to the same shape. The first ``unseen`` frames have zeros as embedding and skip."""
        batch, frames, channels, height, width = clip.shape
        embedding, skip = self.encode(clip.double().view(batch * frames, channels, height, width))
        seen = (torch.arange(frames, device=clip.device) >= unseen).repeat(batch).view(-1, 1, 1, 1)
        embedding, skip = embedding * seen, skip * seen
        hidden = self.translate(embedding.view(batch, -1, *embedding.shape[2:]))
        return self.decode(hidden.reshape(embedding.shape), skip).view(clip.shape)


def difference(value: Tensor, expected: Tensor) -> float:
    """The largest error, relative to max(1, the largest expected value)."""
    return float((value - expected).abs().max()) / max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    config, parameters, _ = PUBLISHED[name]
    for outputs in (1, 2, config.frames):
        with torch.device("meta"):
            model = TAU(replace(config, outputs=outputs))
        assert sum(p.numel() for p in model.parameters()) == parameters
        assert not model.state_shapes
        assert model.warmup == config.frames
        assert model.outputs == outputs


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cost(name: str) -> None:
    config, _, gmac = PUBLISHED[name]
    weights = {key: torch.empty(shape, device="meta") for key, shape in released_shapes(config).items()}
    clip = torch.empty(1, config.frames, config.channels, config.height, config.width, device="meta")
    with FlopCounterMode(display=False) as counter:
        Clip(config, weights)(clip)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=0.01)


@pytest.mark.parametrize("outputs", [1, 3, 4])
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_deployed_form_costs_less(name: str, outputs: int) -> None:
    def cost(model: StepModel) -> int:
        with FlopCounterMode(display=False) as counter:
            model.step(torch.empty(1, *model.frame_shape), model.init_state())
        flops: int = counter.get_total_flops()
        return flops

    with torch.device("meta"):
        model = TAU(replace(PUBLISHED[name][0], outputs=outputs))
        assert cost(model.deployed()) < cost(model)


@pytest.mark.parametrize(
    "config", [*(entry[0] for entry in PUBLISHED.values()), *SMALLS.values()], ids=[*PUBLISHED, *SMALLS]
)
def test_every_released_key_maps_to_ours(config: TAUConfig) -> None:
    with torch.device("meta"):
        model = TAU(config)
    released = released_shapes(config)
    mapped = {ours(key): shape for key, shape in released.items()}
    assert len(mapped) == len(released)
    assert mapped == {key: tuple(value.shape) for key, value in model.state_dict().items()}


@torch.inference_mode()
@pytest.mark.parametrize("outputs", ["one", "some", "all"])
@pytest.mark.parametrize("config", SMALLS.values(), ids=SMALLS)
@pytest.mark.parametrize("deployed", [False, True], ids=["trained", "deployed"])
def test_step_equals_the_released_clip_wise_forward(config: TAUConfig, outputs: str, deployed: bool) -> None:
    frames = config.frames
    config = replace(config, outputs={"one": 1, "some": (frames + 1) // 2, "all": frames}[outputs])
    weights = random_weights(config)
    trained, reference = build(config, weights), Clip(config, weights)
    model = trained.deployed() if deployed else trained
    stream = torch.rand(2, 14 + frames - 1, *model.frame_shape)
    state = model.init_state(2)
    for i in range(stream.shape[1]):
        prediction, state = model.step(stream[:, i], state)
        unseen = max(frames - 1 - i, 0)
        window = torch.cat([torch.zeros_like(stream[:, :unseen]), stream[:, max(i + 1 - frames, 0) : i + 1]], dim=1)
        expected = reference(window, unseen)[:, : config.outputs]
        assert prediction.shape == expected.shape
        assert difference(prediction, expected) <= 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("name", VARIANTS)
def test_options_equal_their_equations_and_change_the_output(name: str) -> None:
    config = VARIANTS[name]
    weights = random_weights(config)
    model, reference = build(config, weights), Clip(config, weights)
    clip = torch.rand(2, config.frames, *model.frame_shape)
    state = model.init_state(2)
    for i in range(config.frames):
        prediction, state = model.step(clip[:, i], state)
    assert difference(prediction, reference(clip)[:, :1]) <= 1e-5
    # Both have the same weights for the layers that they share.
    full = Clip(SMALL, {**random_weights(SMALL), **weights})
    assert difference(prediction, full(clip)[:, :1]) > 1e-3


@pytest.mark.parametrize("config", [PUBLISHED["mnist"][0], SMALL], ids=["mnist", "small"])
def test_options_have_only_the_parameters_they_use(config: TAUConfig) -> None:
    def count(**options: Any) -> int:
        with torch.device("meta"):
            model = TAU(replace(config, **options))
        return sum(p.numel() for p in model.parameters())

    # Depthwise 5×5 and 7×7, then 1×1, with biases; two linear layers without biases; 3×3 with a quarter of the outputs.
    spatial = sum((5 * 5 + 1) * d + (7 * 7 + 1) * d + (d + 1) * d for d in dims(config)[:-1])
    dynamical = sum(2 * d * (d // max(d // 16, 4)) for d in dims(config)[:-1])
    upsample = config.encoder_layers // 2 * 3 * (9 * config.hidden_spatial**2 + config.hidden_spatial)
    everything = count()
    assert everything - count(spatial_attention=False) == spatial
    assert everything - count(dynamical_attention=False) == dynamical
    assert everything - count(spatial_attention=False, dynamical_attention=False) == spatial + dynamical
    assert everything - count(upsample="transpose") == upsample


def test_drop_path_is_for_training_only() -> None:
    model = TAU(replace(SMALL, drop_path=0.5))
    plain = build(SMALL, random_weights(SMALL))
    model.load_state_dict(plain.state_dict())
    rates = [block.drop_path for block in model.blocks]
    assert rates == pytest.approx([0.01, 0.255, 0.5])
    assert not any(block.drop_path for block in plain.blocks)
    frame, state = torch.rand(2, *model.frame_shape), model.init_state(2)
    with torch.inference_mode():
        assert torch.equal(model.eval()(frame, state)[0], plain(frame, state)[0])
    block = Block(SMALL, 8, 8, drop_path=0.5).train()
    residuals = torch.ones(64, 3, 1, 1)
    assert set(block.dropped(residuals).flatten().tolist()) == {0.0, 2.0}  # fails once in 2**63 runs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 18}, "multiples of 4, not 18 and 24"),
        ({"width": 26}, "multiples of 4, not 16 and 26"),
        ({"outputs": 0}, "outputs must be 1 to 5"),
        ({"outputs": 6}, "outputs must be 1 to 5"),
        ({"frames": 1}, "frames must be at least 2"),
        ({"encoder_layers": 3}, "encoder_layers must be even"),
        ({"translator_layers": 1}, "translator_layers must be at least 2"),
        ({"hidden_spatial": 7}, "hidden_spatial must be even"),
        ({"hidden_temporal": 0}, "hidden_temporal must be at least 4"),
        ({"mlp_ratio": 0}, "mlp_ratio must be at least 1"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"drop_path": 1.0}, "drop_path must be"),
        ({"upsample": "nearest"}, "shuffle or transpose, not 'nearest'"),
    ],
)
def test_impossible_networks_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as refused:
        replace(SMALL, **options)
    assert "\n" not in str(refused.value)


def test_initial_weights_have_openstls_spread() -> None:
    """Truncated normal .02 in encoder and decoder, normal by fan-out in the MLPs, PyTorch's own elsewhere."""
    torch.manual_seed(1)
    model: Any = TAU(TAUConfig(16, 16, 16, 4, 32, 64, 4, 3))
    for layer in (*model.encoder, *model.decoder):
        assert layer.conv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.conv.bias.any()
    for block in model.blocks:
        for name, fan_out in (("fc1", 8 * len(block.layer_scale_1)), ("dwconv", 9), ("fc2", len(block.layer_scale_1))):
            conv = block.mlp.get_submodule(name)
            assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
            assert not conv.bias.any()
        projection = block.attention.proj_1
        assert projection.weight.std().item() == pytest.approx((3 * projection.in_channels) ** -0.5, rel=0.05)
        assert projection.bias.any()
