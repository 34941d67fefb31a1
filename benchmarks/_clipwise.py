"""The published networks as their authors' code runs them: the baseline for our steps.

Every prediction takes a whole window of frames, from a zero state, in eager PyTorch: Conv3d over pairs of frames where
the release has it, layer norms as modules, histories as stacked lists, and every step decoded. The code was written
from the papers and a description of the releases. It copies none of their code and uses none of our networks' code.
Each network has only the released form, without our options. It takes our weights, under our names.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from framecast.models.step import StepModel


def clip_wise(network: StepModel, weights: Mapping[str, Tensor] | None = None) -> ClipWise | None:
    """Return the authors' form of one of our networks; None if it is not a published network.

    Args:
        network: supplies the configuration.
        weights: by our network's names (default: the network's own, shared, not copied).
    """
    kind = {"STIP": STIP, "STAU": STAU, "MAU": MAU, "ASTM": ASTM, "TAU": TAU}.get(type(network).__name__)
    if kind is None:
        return None
    with torch.device("meta"):
        rival = kind(network.config)
    ours = network.state_dict() if weights is None else weights
    shaped = {name: rival.released(ours[name], value.shape) for name, value in rival.state_dict().items()}
    rival.load_state_dict(shaped, assign=True)
    return rival.eval()


class ClipWise(nn.Module):
    """A network over a clip."""

    newest = -1  # index of the output that predicts the frame after the clip

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def released(self, weight: Tensor, shape: torch.Size) -> Tensor:
        """Convert one of our weights to its shape in the release."""
        if weight.shape == shape:
            return weight
        # A 1×1 Conv2d over two concatenated frames, [O, 2I, 1, 1], equals a Conv3d of depth 2, [O, I, 2, 1, 1].
        return cast(Tensor, weight.unflatten(1, (2, -1))).transpose(1, 2)

    def forward(self, clip: Tensor) -> Tensor:
        """Map frames [B, T, C, H, W] to predictions of the same shape. It cuts frames into patches and rejoins them."""
        batch, frames, channels, height, width = clip.shape
        p = self.config.patch
        h, w = height // p, width // p
        x = clip.reshape(batch, frames, channels, h, p, w, p).permute(0, 1, 4, 6, 2, 3, 5)
        y = self.predict(x.reshape(batch, frames, p * p * channels, h, w))
        y = y.reshape(batch, frames, p, p, channels, h, w).permute(0, 1, 4, 5, 2, 6, 3)
        return y.reshape(clip.shape)

    def predict(self, patches: Tensor) -> Tensor:
        """Map patches [B, T, F, H/p, W/p] to predictions of the same shape."""
        raise NotImplementedError

    def zeros(self, like: Tensor, *shape: int) -> Tensor:
        """Return the zero state before the first frame."""
        return torch.zeros(like.shape[0], *shape, *self.config.state_size, dtype=like.dtype, device=like.device)


def _down(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.LeakyReLU(0.2))


def _up(channels: int, activate: bool) -> nn.Sequential:
    up = nn.Sequential(nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1))
    return up.append(nn.LeakyReLU(0.2)) if activate else up


class STIPCell(nn.Module):
    """STIP's recurrent cell, STGRU."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        outputs, shape = 4 * config.hidden, (4 * config.hidden, *config.state_size)
        self.conv_t = nn.Conv2d(config.hidden, outputs, config.kernel, padding=config.kernel // 2)
        self.conv_s = nn.Conv2d(config.hidden, outputs, config.kernel, padding=config.kernel // 2)
        self.norm_t, self.norm_s = nn.LayerNorm(shape), nn.LayerNorm(shape)

    def forward(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        z_t, r_t, t_t, s_t = torch.chunk(self.norm_t(self.conv_t(t)), 4, dim=1)
        z_s, r_s, t_s, s_s = torch.chunk(self.norm_s(self.conv_s(s)), 4, dim=1)
        update, reset = torch.sigmoid(z_t + z_s + 1.0), torch.sigmoid(r_t + r_s)
        t_new, s_new = torch.tanh(t_t + reset * t_s), torch.tanh(s_s + reset * s_t)
        return (1 - update) * t_new + update * t, (1 - update) * s_new + update * s


class STIPEncoder(nn.Module):
    """Maps a pair of frames to features at every scale."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.first = nn.Conv3d(config.features, config.hidden, (2, 1, 1))
        self.stages = nn.ModuleList(_down(config.hidden) for _ in range(config.stages))

    def forward(self, pair: Tensor) -> list[Tensor]:
        x = nn.functional.leaky_relu(self.first(pair), 0.2).squeeze(2)
        scales = []
        for stage in self.stages:
            x = stage(x)
            scales.append(x)
        return scales


class STIPDecoder(nn.Module):
    """Maps a state to patches. It adds the encoder's features after all stages but the last."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_up(config.hidden, i < config.stages - 1) for i in range(config.stages))
        self.srcnn = nn.Conv2d(config.hidden, config.features, 1)
        self.weight = config.skip_weight

    def forward(self, x: Tensor, scales: list[Tensor]) -> Tensor:
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i < len(self.stages) - 1:
                x = x + self.weight * scales[-2 - i]
        return cast(Tensor, self.srcnn(x))


class STIP(ClipWise):
    """Two encoders, STGRU cells, two decoders. As in the release, the spatial decoder reads T, the temporal one S."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.encoder_s, self.encoder_t = STIPEncoder(config), STIPEncoder(config)
        self.merge_t = nn.Conv2d(2 * config.hidden, config.hidden, 1)
        self.cells = nn.ModuleList(STIPCell(config) for _ in range(config.layers))
        self.decoder_s, self.decoder_t = STIPDecoder(config), STIPDecoder(config)
        self.conv_last_sr = nn.Conv2d(2 * config.features, config.features, 1)

    def predict(self, patches: Tensor) -> Tensor:
        t = [self.zeros(patches, self.config.hidden) for _ in self.cells]
        before, outputs = torch.zeros_like(patches[:, 0]), []
        for i in range(patches.shape[1]):
            pair = torch.stack([before, patches[:, i]], dim=2)
            before = patches[:, i]
            scales_s, scales_t = self.encoder_s(pair), self.encoder_t(pair)
            s, t[0] = scales_s[-1], self.merge_t(torch.cat([t[0], scales_t[-1]], dim=1))
            for k, cell in enumerate(self.cells):
                t[k], s = cell(t[k], s)
            both = torch.cat([self.decoder_s(t[-1], scales_s), self.decoder_t(s, scales_t)], dim=1)
            outputs.append(self.conv_last_sr(both))
        return torch.stack(outputs, dim=1)


def _conv_norm(conv: nn.Module, shape: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.LayerNorm(shape)))


class STAUCell(nn.Module):
    """Attention over the last τ steps, and with ``spatial`` also over the layers below."""

    conv_t: nn.Sequential
    conv_t_next: nn.Sequential
    conv_s: nn.Sequential
    conv_s_next: nn.Sequential

    def __init__(self, config: Any, spatial: bool) -> None:
        super().__init__()
        hidden, self.spatial, self.residual = config.hidden, spatial, config.residual
        self.root = math.sqrt(hidden * math.prod(config.state_size))
        for name, n in {"conv_t": 3, "conv_t_next": 1, "conv_s": 3, "conv_s_next": 1}.items():
            conv = nn.Conv2d(hidden, n * hidden, config.kernel, padding=config.kernel // 2)
            setattr(self, name, _conv_norm(conv, (n * hidden, *config.state_size)))

    def attend(self, keys: Tensor, values: Tensor, query: Tensor, gate: Tensor, current: Tensor) -> Tensor:
        """Attend over keys and values [n, B, C, h, w]; return the current state fused with the result."""
        weights = torch.softmax((keys * query).sum(dim=(2, 3, 4)) / self.root, dim=0)
        found = (values * weights[..., None, None, None]).sum(dim=0)
        gate = torch.sigmoid(gate)
        return gate * current + (1 - gate) * found

    def forward(
        self, t: Tensor, s: Tensor, t_past: Tensor, s_past: Tensor, t_below: list[Tensor], s_below: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        t_next, s_next = self.conv_t_next(t), self.conv_s_next(s)
        fused_t = self.attend(s_past, t_past, s_next, t_next, t)
        fused_s = s
        if self.spatial:
            fused_s = self.attend(torch.stack(t_below), torch.stack(s_below), t_next, s_next, s)
        g_t, t_t, s_t = torch.chunk(self.conv_t(fused_t), 3, dim=1)
        g_s, t_s, s_s = torch.chunk(self.conv_s(fused_s), 3, dim=1)
        g_t, g_s = torch.sigmoid(g_t), torch.sigmoid(g_s)
        t_new, s_new = g_t * t_t + (1 - g_t) * t_s, g_s * s_s + (1 - g_s) * s_t
        return t_new, s_new + s if self.residual else s_new


class MAU(ClipWise):
    """One encoder, cells that each keep τ past states, and one decoder that reads only S."""

    spatial = False

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        hidden, stages = config.hidden, config.stages
        self.first = nn.Conv2d(config.features, hidden, 1)
        self.encoders = nn.ModuleList(_down(hidden) for _ in range(stages))
        self.cells = nn.ModuleList(STAUCell(config, self.spatial) for _ in range(config.layers))
        self.decoders = nn.ModuleList(_up(hidden, i < stages - 1) for i in range(stages))
        self.srcnn = nn.Conv2d(hidden, config.features, 1)

    def predict(self, patches: Tensor) -> Tensor:
        config, outputs = self.config, []
        zero = self.zeros(patches, config.hidden)
        t_past, s_past = ([[zero] * config.tau for _ in self.cells] for _ in "ts")
        for i in range(patches.shape[1]):
            s = nn.functional.leaky_relu(self.first(patches[:, i]), 0.2)
            for encoder in self.encoders:
                s = encoder(s)
            t_before, inputs = [past[-1] for past in t_past], []
            for k, cell in enumerate(self.cells):
                inputs.append(s)
                reach = slice(max(0, k + 1 - config.theta), k + 1)
                histories = torch.stack(t_past[k][-config.tau :]), torch.stack(s_past[k][-config.tau :])
                t, s = cell(t_before[k], s, *histories, t_before[reach], inputs[reach])
                t_past[k].append(t)
                s_past[k].append(inputs[-1])
            for decoder in self.decoders:
                s = decoder(s)
            outputs.append(self.srcnn(s))
        return torch.stack(outputs, dim=1)


class STAU(MAU):
    """MAU with additional attention over the layers."""

    spatial = True


class ASTMCell(nn.Module):
    """ASTM's cell: states are [B, C, 2, h, w], and every convolution is a Conv3d."""

    conv_x: nn.Sequential
    conv_h: nn.Sequential
    conv_m: nn.Sequential
    conv_o: nn.Sequential

    def __init__(self, inputs: int, config: Any) -> None:
        super().__init__()
        hidden, half = config.hidden, config.kernel // 2
        self.tau = config.tau
        for name, source, n in (("x", inputs, 7), ("h", hidden, 4), ("m", hidden, 3), ("o", 2 * hidden, 1)):
            conv = nn.Conv3d(source, n * hidden, (3, config.kernel, config.kernel), padding=(1, half, half))
            setattr(self, f"conv_{name}", _conv_norm(conv, (n * hidden, 2, *config.state_size)))
        self.conv_last = nn.Conv3d(2 * hidden, hidden, 1)

    def forward(self, x: Tensor, h: Tensor, past: list[Tensor], m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        i_x, f_x, g_x, i_m_x, f_m_x, g_m_x, o_x = torch.chunk(self.conv_x(x), 7, dim=1)
        i_h, f_h, g_h, o_h = torch.chunk(self.conv_h(h), 4, dim=1)
        i_m, f_m, g_m = torch.chunk(self.conv_m(m), 3, dim=1)
        forget = torch.sigmoid(f_x + f_h + 1.0)
        cells = torch.stack(past[-self.tau :])
        gathered = (torch.softmax(cells * forget, dim=0) * cells).sum(dim=0)  # EIFAG, as in the paper
        c = torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h) + forget * gathered
        m = torch.sigmoid(f_m_x + f_m + 1.0) * m + torch.sigmoid(i_m_x + i_m) * torch.tanh(g_m_x + g_m)
        both = torch.cat([c, m], dim=1)
        return torch.sigmoid(o_x + o_h + self.conv_o(both)) * torch.tanh(self.conv_last(both)), c, m


class ASTM(ClipWise):
    """Cells over pairs of frames, without an encoder, as in both published configurations. EIFAG follows the paper."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.cells = nn.ModuleList(
            ASTMCell(config.hidden if k else config.features, config) for k in range(config.layers)
        )
        self.last = nn.Conv3d(config.hidden, config.features, (2, 1, 1), stride=(2, 1, 1))

    def released(self, weight: Tensor, shape: torch.Size) -> Tensor:
        if len(shape) == 4 and weight.shape != shape:  # a norm's weight: ours is [n·2·C, h, w], gate by gate
            split = cast(Tensor, weight.unflatten(0, (-1, 2, self.config.hidden)))
            return split.transpose(1, 2).reshape(shape)
        return super().released(weight, shape)

    def predict(self, patches: Tensor) -> Tensor:
        zero = self.zeros(patches, self.config.hidden, 2)
        h, m, past = [zero for _ in self.cells], zero, [[zero] for _ in self.cells]
        before, outputs = torch.zeros_like(patches[:, 0]), []
        for i in range(patches.shape[1]):
            x = torch.stack([before, patches[:, i]], dim=2)
            before = patches[:, i]
            for k, cell in enumerate(self.cells):
                h[k], c, m = cell(x, h[k], past[k], m)
                past[k].append(c)
                x = h[k]
            outputs.append(self.last(x).squeeze(2))
        return torch.stack(outputs, dim=1)


class TAUConv(nn.Module):
    """Conv 3×3, GroupNorm, SiLU; ``scale`` 0.5 halves the size, 2 doubles it by pixel shuffle."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * outputs if scale == 2 else outputs, 3, 2 if scale == 0.5 else 1, padding=1)
        self.shuffle = nn.PixelShuffle(2) if scale == 2 else nn.Identity()
        self.norm, self.act = nn.GroupNorm(2, outputs), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.norm(self.shuffle(self.conv(x)))))


class TAUAttention(nn.Module):
    """The temporal attention unit: statical and dynamical attention."""

    def __init__(self, d: int) -> None:
        super().__init__()
        squeezed = d // max(d // 16, 4)
        self.proj_1, self.proj_2, self.act = nn.Conv2d(d, d, 1), nn.Conv2d(d, d, 1), nn.GELU()
        self.spatial = nn.Sequential(
            OrderedDict(
                conv0=nn.Conv2d(d, d, 5, padding=2, groups=d),
                conv_spatial=nn.Conv2d(d, d, 7, padding=9, dilation=3, groups=d),
                conv1=nn.Conv2d(d, d, 1),
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dynamical = nn.Sequential(
            nn.Linear(d, squeezed, bias=False), nn.ReLU(), nn.Linear(squeezed, d, bias=False), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> Tensor:
        u = self.act(self.proj_1(z))
        weight = self.dynamical(self.pool(u).flatten(1))[:, :, None, None]
        return cast(Tensor, self.proj_2(weight * self.spatial(u) * u)) + z


class TAUBlock(nn.Module):
    """A layer of the translator."""

    def __init__(self, config: Any, inputs: int, outputs: int) -> None:
        super().__init__()
        wide = config.mlp_ratio * inputs
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(inputs)
        self.attention = TAUAttention(inputs)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Conv2d(inputs, wide, 1),
                dwconv=nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
                act=nn.GELU(),
                fc2=nn.Conv2d(wide, inputs, 1),
            )
        )
        self.layer_scale_1, self.layer_scale_2 = (nn.Parameter(torch.empty(inputs)) for _ in range(2))
        self.reduction = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1[:, None, None] * self.attention(self.norm1(x))
        x = x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))
        return cast(Tensor, self.reduction(x))


class TAU(ClipWise):
    """Predicts T frames from the T before them: encodes all, decodes all."""

    newest = 0

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        hidden, layers = config.hidden_spatial, range(config.encoder_layers)
        self.encoder = nn.ModuleList(
            TAUConv(hidden if i else config.channels, hidden, 0.5 if i % 2 else 1) for i in layers
        )
        self.decoder = nn.ModuleList(TAUConv(hidden, hidden, 1 if i % 2 else 2) for i in layers)
        self.readout = nn.Conv2d(hidden, config.channels, 1)
        ends = config.frames * hidden
        widths = [ends, *[config.hidden_temporal] * (config.translator_layers - 1), ends]
        self.blocks = nn.ModuleList(TAUBlock(config, *pair) for pair in pairwise(widths))

    def forward(self, clip: Tensor) -> Tensor:
        batch, frames = clip.shape[:2]
        skip = x = self.encoder[0](clip.flatten(0, 1))
        for layer in self.encoder[1:]:
            x = layer(x)
        x = x.reshape(batch, -1, *x.shape[2:])
        for block in self.blocks:
            x = block(x)
        x = x.reshape(batch * frames, -1, *x.shape[2:])
        for layer in self.decoder[:-1]:
            x = layer(x)
        return cast(Tensor, self.readout(self.decoder[-1](x + skip))).reshape(clip.shape)
