"""STIP against the paper's sizes, and against a clip-wise forward written straight from the released equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from framecast.models.blocks import patchify, unpatchify
from framecast.models.configs import CONFIGS, build
from framecast.models.stip import STIP, STIPConfig

SMALL = STIPConfig(height=64, width=96, patch=2, hidden=8, layers=3, stages=3)


@pytest.mark.parametrize(
    ("name", "used"), [("stip-ucf", 17_913_860), ("stip-h36m", 17_932_112), ("stip-4k", 22_218_496)]
)
def test_published_sizes(name: str, used: int) -> None:
    with torch.device("meta"):
        model = build(name)
    assert sum(p.numel() for p in model.parameters()) == used == CONFIGS[name].parameters


@pytest.mark.parametrize("name", CONFIGS)
def test_table_counts_its_parameters(name: str) -> None:
    with torch.device("meta"):
        model = build(name)
    assert sum(p.numel() for p in model.parameters()) == CONFIGS[name].parameters


def test_patch_order_is_space_to_depth() -> None:
    frame = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    patches = patchify(frame, 2)
    for row in range(2):
        for column in range(2):
            for c in range(3):
                assert torch.equal(patches[:, (row * 2 + column) * 3 + c], frame[:, c, row::2, column::2])
    assert torch.equal(unpatchify(patches, 2), frame)


def released_clip(model: STIP, clip: Tensor) -> Tensor:
    """The authors' clip-wise forward, [B, T, C, H, W] to T predictions: nothing of ours but the weights."""
    p, w = model.config.patch, {k: v.double() for k, v in model.state_dict().items()}
    layers, stages = model.config.layers, model.config.stages

    def conv(x: Tensor, name: str, **kw: int) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **kw)

    def encode(pair: Tensor, which: str) -> list[Tensor]:  # pair [B, F, 2, h, w]
        first = w[f"encoder_{which}.first.weight"]
        features = first.shape[1] // 2
        kernel = torch.stack([first[:, :features], first[:, features:]], dim=2)  # Conv3d (2,1,1), no padding
        x = F.leaky_relu(F.conv3d(pair, kernel, w[f"encoder_{which}.first.bias"]), 0.2).squeeze(2)
        out = []
        for i in range(stages):
            x = F.leaky_relu(conv(x, f"encoder_{which}.stages.{i}.0", stride=2, padding=1), 0.2)
            out.append(x)
        return out

    def decode(x: Tensor, e: list[Tensor], which: str) -> Tensor:
        for i in range(stages):
            name = f"decoder_{which}.stages.{i}.0"
            x = F.conv_transpose2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=2, padding=1, output_padding=1)
            if i < stages - 1:
                x = F.leaky_relu(x, 0.2) + 0.1 * e[stages - 2 - i]
        return conv(x, f"decoder_{which}.srcnn")

    def norm(x: Tensor, name: str) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        variance = x.var((1, 2, 3), keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(variance + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    batch, frames, channels, height, width = clip.shape
    grid = clip.double().reshape(batch, frames, channels, height // p, p, width // p, p)
    patched = grid.permute(0, 1, 4, 6, 2, 3, 5).reshape(batch, frames, -1, height // p, width // p)
    h, v = model.config.state_size
    t_states = [torch.zeros(batch, model.config.hidden, h, v, dtype=torch.float64) for _ in range(layers)]
    before = torch.zeros_like(patched[:, 0])
    outputs = []
    for i in range(frames):
        pair = torch.stack([before, patched[:, i]], dim=2)
        before = patched[:, i]
        e_s, e_t = encode(pair, "s"), encode(pair, "t")
        s = e_s[-1]
        t_states[0] = conv(torch.cat([t_states[0], e_t[-1]], 1), "merge_t")
        for k in range(layers):
            pad = model.config.kernel // 2
            z_t, r_t, t_t, s_t = norm(conv(t_states[k], f"cells.{k}.conv_t", padding=pad), f"cells.{k}.norm_t").chunk(
                4, 1
            )
            z_s, r_s, t_s, s_s = norm(conv(s, f"cells.{k}.conv_s", padding=pad), f"cells.{k}.norm_s").chunk(4, 1)
            z, r = torch.sigmoid(z_t + z_s + 1.0), torch.sigmoid(r_t + r_s)
            t_new, s_new = torch.tanh(t_t + r * t_s), torch.tanh(s_s + r * s_t)
            t_states[k], s = (1 - z) * t_new + z * t_states[k], (1 - z) * s_new + z * s
        both = torch.cat([decode(t_states[-1], e_s, "s"), decode(s, e_t, "t")], 1)  # swapped, as released
        y = conv(both, "conv_last_sr").reshape(batch, p, p, channels, height // p, width // p)
        outputs.append(y.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels, height, width))
    return torch.stack(outputs, dim=1)


def test_step_equals_the_released_clip_wise_forward() -> None:
    torch.manual_seed(1)
    model = STIP(SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    clip = torch.rand(2, 12, *model.frame_shape)
    with torch.inference_mode():
        expected = released_clip(model, clip)
        state = model.init_state(2)
        for i in range(clip.shape[1]):
            prediction, state = model.step(clip[:, i], state)
            scale = expected[:, i].abs().max()
            assert (prediction[:, 0] - expected[:, i]).abs().max() <= 1e-5 * max(1, scale)
