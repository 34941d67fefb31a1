"""ASTM: spatiotemporal memory cells over pairs of frames, with the EIFAG gate as the paper defines it.

EIFAG takes a weighted mean of the last τ cells. The weights are a softmax of each cell's agreement with the forget gate
(equations 7 and 8). In the authors' code the history is one list aliased τ times, so the gate has no effect there. This
module follows the paper. ``eifag=False`` computes what the authors' code does, which is also the basic model of the
paper's ablation.

The paper's tensors are [B, C, 2, h, w], two frames deep. Here they are [B, 2·C, h, w], so that each Conv3d is one
Conv2d.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from framecast.kernels.eifag.operator import eifag
from framecast.models.blocks import ConvNorm, PatchedConfig, check_sizes, patchify, unpatchify
from framecast.models.step import History, State, StepModel

FORGET_BIAS = 1.0


@dataclass(frozen=True)
class ASTMConfig(PatchedConfig):
    """Sizes and options of an ASTM network; the defaults are the paper's.

    Raises:
        OptionError: no network can be built with these sizes.
    """

    stages: int = 0
    tau: int = 5  # number of past cells that EIFAG averages
    eifag: bool = True  # False: T = C_{t-1}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, {"tau": 1})


class PairConv(nn.Conv3d):
    """A Conv3d over exactly two frames, padded to output two frames, computed as one Conv2d.

    A third of a depth-3 kernel's taps would see only padding. The other taps form the block kernel [[W1, W2],
    [W0, W1]], with one row per output frame. Channels are ordered (group, frame, channel), so that gates can be split,
    and states concatenated, along the channels.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, depth: int = 3, stride: int = 1, join: int = 1, split: int = 1
    ) -> None:
        """``join``: number of tensors that the input concatenates; ``split``: number that the output is split into."""
        half = kernel // 2
        super().__init__(
            inputs, outputs, (depth, kernel, kernel), stride=(1, stride, stride), padding=(depth // 2, half, half)
        )
        self.join, self.split = join, split

    def as_conv2d(self) -> nn.Conv2d:
        """Return the same function as a plain Conv2d, which does not rebuild its kernel on each call."""
        inputs, outputs = 2 * self.in_channels, 2 * self.out_channels
        kernel, (_, stride, _) = self.kernel_size[1], self.stride
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, device=self.weight.device)
        weight, bias = self._blocks()
        conv.weight, conv.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        return conv

    def forward(self, x: Tensor) -> Tensor:
        """[B, 2·I, h, w] to [B, 2·O, h, w]."""
        return functional.conv2d(x, *self._blocks(), stride=self.stride[1:], padding=self.kernel_size[1] // 2)

    def _blocks(self) -> tuple[Tensor, Tensor]:
        grouped = self.weight.reshape(
            self.split, -1, self.join, self.in_channels // self.join, *self.kernel_size
        )  # [s, O/s, j, I/j, D, k, k]
        middle = self.kernel_size[0] // 2
        before, now, after = (
            grouped[..., middle + d, :, :] if abs(d) <= middle else torch.zeros_like(grouped[..., 0, :, :])
            for d in (-1, 0, 1)
        )
        rows = [torch.stack(row, dim=3) for row in ((now, after), (before, now))]  # [s, O/s, j, 2, I/j, k, k] each
        weight = torch.stack(rows, dim=1)  # [s, 2, O/s, j, 2, I/j, k, k]
        shape = (2 * self.out_channels, 2 * self.in_channels, *self.kernel_size[1:])
        bias = cast(Tensor, self.bias).reshape(self.split, 1, -1).expand(-1, 2, -1)
        return weight.reshape(shape), bias.reshape(-1)


class ASTMCell(nn.Module):
    """One cell. Every state is [B, 2·C, h, w]."""

    def __init__(self, inputs: int, config: ASTMConfig) -> None:
        super().__init__()
        hidden = config.hidden

        def conv(source: int, gates: int, join: int = 1) -> ConvNorm:
            pair = PairConv(source, gates * hidden, config.kernel, join=join, split=gates)
            return ConvNorm(pair, (2 * gates * hidden, *config.state_size))

        self.conv_x, self.conv_h, self.conv_m = conv(inputs, 7), conv(hidden, 4), conv(hidden, 3)
        self.conv_o = conv(2 * hidden, 1, join=2)
        self.conv_last = PairConv(2 * hidden, hidden, 1, depth=1, join=2)

    def forward(
        self, x: Tensor, h: Tensor, cells: list[Tensor], m: Tensor, count: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Advance the states.

        Args:
            x: output of the layer below, or the encoded pair of frames.
            h: this layer's previous H.
            cells: this layer's past C, newest first.
            m: the memory M, from the layer below, or from the top layer of the previous step.
            count: steps since the reset, [B, 1, 1, 1]; None without EIFAG.

        Returns:
            The new H, C and M.
        """
        i_x, f_x, g_x, i_m_x, f_m_x, g_m_x, o_x = self.conv_x(x).chunk(7, dim=1)
        i_h, f_h, g_h, o_h = self.conv_h(h).chunk(4, dim=1)
        i_m, f_m, g_m = self.conv_m(m).chunk(3, dim=1)
        if count is not None:  # equations 7 and 8
            c = eifag(cells, count, i_x + i_h, f_x + f_h, g_x + g_h, forget_bias=FORGET_BIAS)
        else:
            c_forget = torch.sigmoid(f_x + f_h + FORGET_BIAS)
            c = torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h) + c_forget * cells[0]
        m_forget = torch.sigmoid(f_m_x + f_m + FORGET_BIAS)
        m = m_forget * m + torch.sigmoid(i_m_x + i_m) * torch.tanh(g_m_x + g_m)
        both = torch.cat([c, m], dim=1)
        h = torch.sigmoid(o_x + o_h + self.conv_o(both)) * torch.tanh(self.conv_last(both))
        return h, c, m


class ASTM(StepModel):
    """ASTM as a step.

    State: the hidden states ``h1`` … ``hL``; the last τ cells of each layer (``c1`` … ``cL``) and the number of steps
    so far (``count``, at most τ); the memory ``m``, which zigzags through the layers; and the last patched frame
    (``previous``).
    """

    def __init__(self, config: ASTMConfig) -> None:
        super().__init__()
        features, hidden, stages = config.features, config.hidden, config.stages
        self.config = config
        self.encoders = nn.ModuleList(
            nn.Sequential(PairConv(features, features, 3, stride=2), nn.ReLU()) for _ in range(stages)
        )
        self.cells = nn.ModuleList(ASTMCell(hidden if k else features, config) for k in range(config.layers))
        self.last = nn.Conv2d(2 * hidden, features, 1)  # the paper's Conv3d with depth 2 and temporal stride 2
        self.decoders = nn.ModuleList(
            nn.ConvTranspose2d(features, features, 3, stride=2, padding=1, output_padding=1) for _ in range(stages)
        )
        self.frame_shape = (config.channels, config.height, config.width)
        state = (2 * hidden, *config.state_size)
        layers = range(1, config.layers + 1)
        self.state_shapes = {
            **{f"h{k}": state for k in layers},
            "m": state,
            **({"count": (1, 1, 1)} if config.eifag else {}),
            "previous": (features, config.height // config.patch, config.width // config.patch),
        }
        slots = config.tau if config.eifag else 1
        self.histories = {f"c{k}": History(slots, state) for k in layers}
        self.warmup = max(2, slots)  # the first step sees a black previous frame

    def deployed(self) -> StepModel:
        """Return the same network with plain Conv2d in place of :class:`PairConv`."""
        network = copy.deepcopy(self)
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, PairConv):
                    setattr(parent, name, child.as_conv2d())
        return network

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: see :meth:`StepModel.forward`."""
        config = self.config
        current = patchify(frame, config.patch)
        x = torch.cat([state["previous"], current], dim=1)
        for encoder in self.encoders:
            x = encoder(x)
        count, m = state.get("count"), state["m"]
        written: State = {"previous": current}
        if count is not None:
            written["count"] = (count + 1).clamp(max=config.tau)
        for k, cell in enumerate(self.cells, start=1):
            x, c, m = cell(x, state[f"h{k}"], self.past(state, f"c{k}"), m, count)
            written |= {f"h{k}": x, f"c{k}": c}
        y = self.last(x)
        for i, decoder in enumerate(self.decoders):
            y = decoder(y)
            y = functional.relu(y) if i < config.stages - 1 else y
        return unpatchify(y, config.patch).unsqueeze(1), {**written, "m": m}
