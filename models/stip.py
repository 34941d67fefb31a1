"""STIP, as its authors released it.

Chang et al., "STIP: A SpatioTemporal Information-Preserving and Perception-Augmented Model for High-Resolution Video
Prediction", 2022.

Two encoders (spatial, temporal) feed a stack of STGRU cells. Two decoders, with residuals from the encoders (MGIR),
give the next frame. Where the released code and the paper differ, the default is the released behaviour.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from framecast.kernels.layout import as_channels_last
from framecast.kernels.stgru_gates.operator import stgru_gates
from framecast.models.blocks import PatchedConfig, check_sizes, double, halve, merged, patchify, pointwise, unpatchify
from framecast.models.branch import Branch
from framecast.models.step import Released, State, StepModel


@dataclass(frozen=True)
class STIPConfig(PatchedConfig):
    """Sizes and options of a STIP network; the defaults are the released ones.

    The paper has ``forget_bias=0, swapped=False, first_skip=True``.

    Raises:
        OptionError: no network can be built with these sizes.
    """

    channels: int = 3
    layers: int = 16
    stages: int = 4
    skip_weight: float = 0.1  # λ of MGIR, equation 3
    first_skip: bool = False  # also add the coarsest features, before a decoder's first stage
    swapped: bool = True  # the spatial decoder reads T, and the temporal one S; each keeps its own encoder's skips
    forget_bias: float = 1.0  # of the update gate
    sted: bool = True  # separate encoders and decoders for S and T; False: both share one of each
    mgir: bool = True  # skip connections from the encoders
    bounded: bool = False  # tanh after the merge; without it T^1 is linear in itself and may grow without bound

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, {"stages": 1})


class STGRU(nn.Module):
    """A spatiotemporal GRU cell: the temporal state T and the spatial state S gate each other."""

    added_t: Tensor | None
    added_s: Tensor | None

    def __init__(self, config: STIPConfig) -> None:
        super().__init__()
        shape = (4 * config.hidden, *config.state_size)
        self.conv_t = nn.Conv2d(config.hidden, 4 * config.hidden, config.kernel, padding=config.kernel // 2)
        self.norm_t = nn.LayerNorm(shape)
        self.conv_s = nn.Conv2d(config.hidden, 4 * config.hidden, config.kernel, padding=config.kernel // 2)
        self.norm_s = nn.LayerNorm(shape)
        self.forget_bias = config.forget_bias
        self.register_parameter("added_t", None)
        self.register_parameter("added_s", None)

    def biases_to_gates(self) -> None:
        """Let the gates add the convolutions' biases, which otherwise takes a separate pass."""
        self.added_t, self.conv_t.bias = self.conv_t.bias, None
        self.added_s, self.conv_s.bias = self.conv_s.bias, None

    def forward(self, t: Tensor, s: Tensor, convolved: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Advance both states, [B, C, h, w] each. ``convolved`` is ``conv_t(t)`` if it has been computed already."""
        return stgru_gates(
            self.conv_t(t) if convolved is None else convolved,
            self.norm_t.weight,
            self.norm_t.bias,
            self.conv_s(s),
            self.norm_s.weight,
            self.norm_s.bias,
            t,
            s,
            forget_bias=self.forget_bias,
            eps=self.norm_t.eps,
            added_t=self.added_t,
            added_s=self.added_s,
        )


class Encoder(nn.Module):
    """Encodes both patched frames to features at every scale, finest first.

    The released first layer is a Conv3d of depth 2 without padding over the two frames. That is a 1×1 Conv2d over both.
    """

    def __init__(self, inputs: int, config: STIPConfig) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, config.hidden, 1)
        self.stages = nn.ModuleList(halve(config.hidden) for _ in range(config.stages))

    def forward(self, frames: Tensor) -> list[Tensor]:
        """[B, 2F, H/p, W/p] to e0 … e(n-1), [B, C, H/(p·2^(i+1)), …]."""
        features = functional.leaky_relu(self.first(frames), 0.2)
        scales = []
        for stage in self.stages:
            features = stage(features)
            scales.append(features)
        return scales


class Decoder(nn.Module):
    """Decodes a hidden state to the patched size, and adds the encoder's features on the way (MGIR, equation 3)."""

    def __init__(self, outputs: int, config: STIPConfig) -> None:
        super().__init__()
        last = config.stages - 1
        self.stages = nn.ModuleList(double(config.hidden, activate=i < last) for i in range(config.stages))
        self.srcnn: nn.Module = nn.Conv2d(config.hidden, outputs, 1)
        self.skip_weight = config.skip_weight
        self.skips_from = (0 if config.first_skip else 1) if config.mgir else config.stages

    def forward(self, hidden: Tensor, scales: list[Tensor]) -> Tensor:
        """[B, C, h, w] to [B, outputs, H/p, W/p]."""
        for i, (stage, skip) in enumerate(zip(self.stages, reversed(scales), strict=True)):
            if i >= self.skips_from:
                hidden = hidden + self.skip_weight * skip
            hidden = stage(hidden)
        return self.srcnn(hidden)  # type: ignore[no-any-return]


class STIP(StepModel):
    """STIP as a step. State: the temporal states ``t1`` … ``tL``, [B, C, h, w] each, and the last patched frame."""

    warmup = 2  # the first step sees a black previous frame
    # The gates read float16, and encoders, decoders and S may stay float16. T is carried, so it stays float32.
    halves = r"cells\..*|encoder_[st]\..*|decoder_[st]\.stages\..*"
    released: ClassVar[Released] = (
        (r"cell_list\.(\d+)\.conv_([ts])\.0\.(\w+)", r"cells.\1.conv_\2.\3"),
        (r"cell_list\.(\d+)\.conv_([ts])\.1\.(\w+)", r"cells.\1.norm_\2.\3"),
        (r"cell_list\.\d+\.conv_last\..+", None),
        (r"([ts])_encoder3d\.encoder3d_\1_conv-1\.(\w+)", r"encoder_\1.first.\2"),
        (r"([ts])_encoders\.(\d+)\.encoder_\1\2\.(\w+)", r"encoder_\1.stages.\2.0.\3"),
        (r"([ts])_decoders\.(\d+)\.\1_decoder\2\.(\w+)", r"decoder_\1.stages.\2.0.\3"),
        (r"([ts])_srcnn\.0\.(\w+)", r"decoder_\1.srcnn.\2"),
        (r"(merge_t|conv_last_sr)\.(\w+)", r"\1.\2"),
        (r"merge\.\w+", None),
    )

    def __init__(self, config: STIPConfig, inputs: int | None = None, outputs: int | None = None) -> None:
        """``inputs``, ``outputs``: channels into the encoders and out of the decoders (default: patched frames)."""
        super().__init__()
        self.config = config
        self.branch: Branch | None = None
        hidden = config.hidden
        inputs = inputs or 2 * config.features
        outputs = outputs or config.features
        self.encoder_s = Encoder(inputs, config)
        self.merge_t = nn.Conv2d(2 * hidden, hidden, 1)
        self.cells = nn.ModuleList(STGRU(config) for _ in range(config.layers))
        self.decoder_s = Decoder(outputs, config)
        if config.sted:
            self.encoder_t = Encoder(inputs, config)
            self.decoder_t = Decoder(outputs, config)
        self.conv_last_sr: nn.Module = nn.Conv2d(2 * outputs, outputs, 1)
        self.frame_shape = (config.channels, config.height, config.width)
        self.state_shapes = {
            **{f"t{k + 1}": (hidden, *config.state_size) for k in range(config.layers)},
            "previous": (config.features, config.height // config.patch, config.width // config.patch),
        }

    def deployed(self) -> StepModel:
        """Return the same network with the linear layers at the end of both decoders merged into one."""
        network = copy.deepcopy(self)
        decoders = [network.decoder_s, network.decoder_t if self.config.sted else network.decoder_s]
        last, bias = pointwise(network.conv_last_sr)
        matrices = []
        for decoder, half in zip(decoders, last.chunk(2, dim=1), strict=True):
            matrix, offset = pointwise(decoder.srcnn)
            matrices.append(half @ matrix)
            bias = bias + half @ offset
        network.conv_last_sr = merged([decoder.stages[-1] for decoder in decoders], matrices, bias)
        for decoder in decoders:
            decoder.stages[-1], decoder.srcnn = nn.Identity(), nn.Identity()
        return network

    def on_gpu(self, *, branch: bool = False, channels_last: bool = False) -> StepModel:
        """See :meth:`StepModel.on_gpu`. The branch computes the cells' convolutions of the previous step's states."""
        network = cast(STIP, self.deployed())
        network.branch, network.channels_last = Branch() if branch else None, channels_last
        for cell in cast("list[STGRU]", network.cells):
            cell.biases_to_gates()
        for parameter in network.parameters() if channels_last else ():
            parameter.data = as_channels_last(parameter.data)  # weights of convolutions and layer norms
        return network

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: see :meth:`StepModel.forward`."""
        current = patchify(frame, self.config.patch)
        decoded, new = self.advance(torch.cat([state["previous"], current], dim=1), state)
        return unpatchify(decoded, self.config.patch).unsqueeze(1), {**new, "previous": current}

    def advance(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Run encoders, cells and decoders: [B, inputs, H/p, W/p] to [B, outputs, H/p, W/p] and new ``t1`` … ``tL``."""
        convolved = self._convolved(state)
        try:
            scales_s = self.encoder_s(inputs)
            scales_t = self.encoder_t(inputs) if self.config.sted else scales_s
            t = self.merge_t(torch.cat([state["t1"], scales_t[-1]], dim=1))
            t = torch.tanh(t) if self.config.bounded else t
        finally:
            if self.branch is not None:
                self.branch.join()
        s = scales_s[-1]
        new: State = {}
        for k, cell in enumerate(self.cells, start=1):
            t, s = cell(t if k == 1 else state[f"t{k}"], s, convolved.get(k))
            new[f"t{k}"] = t
        if self.config.swapped:
            s, t = t, s
        decoder_t = self.decoder_t if self.config.sted else self.decoder_s
        return self.conv_last_sr(torch.cat([self.decoder_s(s, scales_s), decoder_t(t, scales_t)], dim=1)), new

    def _convolved(self, state: State) -> dict[int, Tensor]:
        """Return the branch's results by cell: the temporal convolutions that need no result of this step."""
        if self.branch is None:
            return {}
        with self.branch.fork():
            cells = cast("list[STGRU]", self.cells)
            return {k: cell.conv_t(state[f"t{k}"]) for k, cell in enumerate(cells, start=1) if k > 1}
