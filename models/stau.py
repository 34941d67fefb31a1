"""STAU, and its ancestor MAU, as their authors released them.

Chang et al., "STAU: A SpatioTemporal-Aware Unit for Video Prediction and Beyond", 2022; Chang et al., "MAU: A
Motion-Aware Unit for Video Prediction and Beyond", NeurIPS 2021.

Each cell attends to its own last τ states (TAM) and to the layers below it (SAM), fuses the results with the current
states, and mixes the two. Where code and paper differ, the default is the released behaviour.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from framecast.errors import OptionError
from framecast.kernels.stau_attention.operator import stau_attention
from framecast.models.blocks import (
    ConvNorm,
    PatchedConfig,
    check_sizes,
    double,
    halve,
    merged,
    patchify,
    pointwise,
    unpatchify,
)
from framecast.models.step import History, Released, State, StepModel


@dataclass(frozen=True)
class STAUConfig(PatchedConfig):
    """Sizes and options of a STAU network; the defaults are the released ones.

    Raises:
        OptionError: no network can be built with these sizes.
    """

    tau: int = 5  # steps that TAM looks back
    theta: int = 5  # layers that SAM looks down
    residual: bool = False  # γ: add a cell's input S to its output
    scaled: bool = True  # divide the scores by √(C·H·W), as released; the paper does not
    recall: bool = False  # add the encoder's features in the decoder
    temporal_attention: bool = True  # TAM
    spatial_attention: bool = True  # SAM
    # TAM weighs states T by how S match, and SAM the reverse. False: T by T and S by S (T·T', S·S' in STAU's Table 7).
    correlated: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, {"tau": 1, "theta": 1})
        if not self.correlated and not (self.temporal_attention and self.spatial_attention):
            raise OptionError("correlated=false needs temporal_attention and spatial_attention")


@dataclass(frozen=True)
class MAUConfig(STAUConfig):
    """Sizes and options of a MAU network.

    Raises:
        OptionError: no network can be built with these options.
    """

    spatial_attention: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spatial_attention:
            raise OptionError("MAU has no attention over the layers (spatial_attention): use STAU")


class STAUCell(nn.Module):
    """One cell. Every state is [B, C, h, w]."""

    def __init__(self, config: STAUConfig) -> None:
        super().__init__()
        hidden, size = config.hidden, config.state_size

        def conv(outputs: int) -> ConvNorm:
            return ConvNorm(nn.Conv2d(hidden, outputs, config.kernel, padding=config.kernel // 2), (outputs, *size))

        self.config = config
        self.scale = 1 / math.sqrt(hidden * size[0] * size[1]) if config.scaled else 1.0
        if config.temporal_attention or config.spatial_attention:
            self.conv_t_next, self.conv_s_next = conv(hidden), conv(hidden)
        self.conv_t, self.conv_s = conv(3 * hidden), conv(3 * hidden)

    def forward(
        self,
        s: Tensor,
        t_past: Sequence[Tensor],
        s_past: Sequence[Tensor],
        t_layers: Sequence[Tensor],
        s_layers: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Advance both states.

        Args:
            s: output of the layer below.
            t_past: this layer's last τ states T, newest first.
            s_past: this layer's last τ inputs S, newest first; empty if TAM does not need them.
            t_layers: previous T of the layers in SAM's reach; this layer comes last.
            s_layers: current inputs S of the same layers.

        Returns:
            The new T and S.
        """
        t = t_past[0]
        fused_t, fused_s = t, s
        if self.config.temporal_attention or self.config.spatial_attention:
            t_next, s_next = self.conv_t_next(t), self.conv_s_next(s)  # t', s'
            keys, query = (s_past, s_next) if self.config.correlated else (t_past, t_next)
            if self.config.temporal_attention:
                fused_t = stau_attention(keys, t_past, query=query, gate=t_next, current=t, scale=self.scale)
            keys, query = (t_layers, t_next) if self.config.correlated else (s_layers, s_next)
            if self.config.spatial_attention:
                fused_s = stau_attention(keys, s_layers, query=query, gate=s_next, current=s, scale=self.scale)
        g_t, t_t, s_t = self.conv_t(fused_t).chunk(3, dim=1)
        g_s, t_s, s_s = self.conv_s(fused_s).chunk(3, dim=1)
        new_t = g_t.sigmoid() * t_t + (1 - g_t.sigmoid()) * t_s
        new_s = g_s.sigmoid() * s_s + (1 - g_s.sigmoid()) * s_t
        return new_t, new_s + s if self.config.residual else new_s


class STAU(StepModel):
    """STAU as a step.

    State: for each layer, its last τ states T (``t1`` … ``tL``), and its last τ inputs S (``s1`` … ``sL``) if they are
    TAM's keys.
    """

    released: ClassVar[Released] = (
        (r"cell_list\.(\d+)\.(conv_(?:t|s)(?:_next)?)\.0\.(\w+)", r"cells.\1.\2.conv.\3"),
        (r"cell_list\.(\d+)\.(conv_(?:t|s)(?:_next)?)\.1\.(\w+)", r"cells.\1.\2.norm.\3"),
        (r"encoders\.0\.encoder_t_conv-1\.(\w+)", r"first.\1"),
        # Their list begins with the first convolution, so their stage i is ours i − 1, as in their layer's name.
        (r"encoders\.\d+\.encoder_t(\d+)\.(\w+)", r"encoders.\1.0.\2"),
        (r"decoders\.(\d+)\.c_decoder\1\.(\w+)", r"decoders.\1.0.\2"),
        (r"srcnn\.0\.(\w+)", r"srcnn.\1"),
        (r"(?:merge|conv_last_sr)\.\w+", None),
    )

    def __init__(self, config: STAUConfig) -> None:
        super().__init__()
        hidden, stages = config.hidden, config.stages
        self.config = config
        self.first = nn.Conv2d(config.features, hidden, 1)
        self.encoders = nn.ModuleList(halve(hidden) for _ in range(stages))
        self.cells = nn.ModuleList(STAUCell(config) for _ in range(config.layers))
        self.decoders = nn.ModuleList(double(hidden, activate=i < stages - 1) for i in range(stages))
        self.srcnn: nn.Module = nn.Conv2d(hidden, config.features, 1)
        self.frame_shape = (config.channels, config.height, config.width)
        self.state_shapes = {}
        shape = (hidden, *config.state_size)
        layers = range(1, config.layers + 1)
        slots = config.tau if config.temporal_attention else 1
        self.histories = {f"t{k}": History(slots, shape) for k in layers}
        self.remembers = config.temporal_attention and config.correlated  # past inputs S are TAM's keys
        if self.remembers:
            self.histories |= {f"s{k}": History(slots, shape) for k in layers}
        self.warmup = slots

    def deployed(self) -> StepModel:
        """Return the same network with the linear layers at the decoder's end merged into one."""
        costlier = 5 * self.config.features > 9 * self.config.hidden  # per pixel: 9/4 h f merged, 9/4 h² + h f not
        if self.config.recall or not self.config.stages or costlier:
            return self  # recall adds features between the two layers
        network = copy.deepcopy(self)
        matrix, bias = pointwise(network.srcnn)
        network.decoders[-1], network.srcnn = merged([network.decoders[-1]], [matrix], bias), nn.Identity()
        return network

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: see :meth:`StepModel.forward`."""
        config = self.config
        features = [functional.leaky_relu(self.first(patchify(frame, config.patch)), 0.2)]
        for encoder in self.encoders:
            features.append(encoder(features[-1]))
        s = features[-1]
        written: State = {}
        t_layers: list[Tensor] = []
        s_layers: list[Tensor] = []
        for k, cell in enumerate(self.cells, start=1):
            t_past = self.past(state, f"t{k}")
            s_past = self.past(state, f"s{k}") if self.remembers else []
            t_layers.append(t_past[0])
            s_layers.append(s)
            reach = slice(-config.theta, None)
            t, s = cell(s, t_past, s_past, t_layers[reach], s_layers[reach])
            written[f"t{k}"] = t
            if self.remembers:
                written[f"s{k}"] = s_layers[-1]
        for i, decoder in enumerate(self.decoders):
            s = decoder(s)
            if config.recall:
                s = s + features[-2 - i]
        return unpatchify(self.srcnn(s), config.patch).unsqueeze(1), written


class MAU(STAU):
    """MAU as a step: STAU without attention over the layers."""

    def __init__(self, config: MAUConfig) -> None:
        super().__init__(config)
