"""TAU: the Temporal Attention Unit's network, as released in OpenSTL, as a stream.

The published network maps a clip of T frames to the next T. Only its translator mixes frames. A step therefore encodes
the newest frame, takes the other T − 1 embeddings from its state, and decodes only the requested frames. The prediction
is the same, with less computation. Where release and paper differ, the release is the default, and the paper an option.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from framecast.errors import OptionError
from framecast.models.blocks import check_sizes, mixing, pointwise
from framecast.models.step import History, Released, State, StepModel

_UPSAMPLES = ("shuffle", "transpose")


@dataclass(frozen=True)
class TAUConfig:
    """Sizes of a TAU network; the release's names are in brackets.

    Raises:
        OptionError: no network can be built with these sizes.
    """

    height: int
    width: int
    channels: int
    frames: int  # T, number of input frames and of predicted frames
    hidden_spatial: int  # channels of a frame's embedding (hid_S)
    hidden_temporal: int  # channels between the translator's layers (hid_T)
    encoder_layers: int  # also the number of decoder layers (N_S)
    translator_layers: int  # (N_T)
    outputs: int = 1  # K, how many of the T predicted frames to decode; no parameter depends on it
    mlp_ratio: int = 8
    # Stochastic depth in training: the rate rises from 1 % in the first block to this value in the last.
    # 0 turns it off (the release would still start at 1 %).
    drop_path: float = 0.0
    spatial_attention: bool = True  # SA; False is the paper's ablation
    dynamical_attention: bool = True  # DA; False is the paper's ablation
    upsample: str = "shuffle"  # as released: conv and pixel shuffle; "transpose": ConvTranspose, as in the paper

    def __post_init__(self) -> None:
        minimums = {"channels": 1, "frames": 2, "hidden_spatial": 2, "hidden_temporal": 4, "encoder_layers": 2}
        check_sizes(self, {**minimums, "translator_layers": 2, "mlp_ratio": 1})
        scale = 2 ** (self.encoder_layers // 2)
        rules = (
            (self.encoder_layers % 2 == 0, f"encoder_layers must be even, not {self.encoder_layers}"),
            (self.hidden_spatial % 2 == 0, f"hidden_spatial must be even, not {self.hidden_spatial}"),  # GroupNorm's 2
            (
                min(self.height, self.width) > 0 and self.height % scale == self.width % scale == 0,
                f"height and width must be multiples of {scale}, not {self.height} and {self.width}",
            ),
            (1 <= self.outputs <= self.frames, f"outputs must be 1 to {self.frames} (frames), not {self.outputs}"),
            (0 <= self.drop_path < 1, f"drop_path must be 0 or more and below 1, not {self.drop_path}"),
            (self.upsample in _UPSAMPLES, f"upsample must be {' or '.join(_UPSAMPLES)}, not {self.upsample!r}"),
        )
        for kept, message in rules:
            if not kept:
                raise OptionError(message)

    @property
    def features(self) -> int:
        """Channels of all T embeddings: the translator's input and output."""
        return self.frames * self.hidden_spatial

    @property
    def embedding_size(self) -> tuple[int, int]:
        """Height and width of an embedding."""
        scale = 2 ** (self.encoder_layers // 2)
        return self.height // scale, self.width // scale


class ConvSC(nn.Module):
    """Layer of encoder or decoder: 3×3 convolution that may halve or double the size, GroupNorm of 2 groups, SiLU."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool = False, double: str | None = None) -> None:
        """``double``: how to double the size, see ``TAUConfig.upsample``; None to keep it."""
        super().__init__()
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        if double == "transpose":
            self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        else:
            self.conv = nn.Conv2d(inputs, 4 * outputs if double else outputs, 3, stride=2 if halve else 1, padding=1)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)  # as released
        nn.init.zeros_(cast(Tensor, self.conv.bias))
        self.norm = nn.GroupNorm(2, outputs)
        self.shuffle = double == "shuffle"

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, …]."""
        x = self.conv(x)
        return functional.silu(self.norm(functional.pixel_shuffle(x, 2) if self.shuffle else x))


class TemporalAttention(nn.Module):
    """Temporal Attention Unit: spatial (paper: statical) and dynamical attention both multiply the features u.

    The frames of a clip are stacked as channels, so attention over channels is attention over time.
    """

    def __init__(self, config: TAUConfig, features: int) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(features, features, 1)
        self.proj_2 = nn.Conv2d(features, features, 1)
        self.spatial: nn.Sequential | None = None
        self.dynamical: nn.Sequential | None = None
        if config.spatial_attention:  # a 21×21 convolution, factorised: near, far, and across channels
            self.spatial = nn.Sequential(
                OrderedDict(
                    conv0=nn.Conv2d(features, features, 5, padding=2, groups=features),
                    conv_spatial=nn.Conv2d(features, features, 7, padding=9, dilation=3, groups=features),
                    conv1=nn.Conv2d(features, features, 1),
                )
            )
        if config.dynamical_attention:
            squeezed = features // max(features // 16, 4)  # as released: 16 in every published network
            self.dynamical = nn.Sequential(
                nn.Linear(features, squeezed, bias=False),
                nn.ReLU(),
                nn.Linear(squeezed, features, bias=False),
                nn.Sigmoid(),
            )

    def forward(self, z: Tensor) -> Tensor:
        """[B, D, h, w] to the same."""
        return self.change(z) + z

    def change(self, z: Tensor) -> Tensor:
        """Return the residual to add to z."""
        u: Tensor = functional.gelu(self.proj_1(z))
        attended = u
        if self.spatial is not None:
            attended = self.spatial(u) * attended
        if self.dynamical is not None:
            attended = self.dynamical(u.mean((2, 3)))[:, :, None, None] * attended
        return self.proj_2(attended)  # type: ignore[no-any-return]


class Block(nn.Module):
    """A layer of the translator: attention and MLP as residuals, then a change of the number of channels if needed."""

    def __init__(self, config: TAUConfig, inputs: int, outputs: int, drop_path: float) -> None:
        super().__init__()
        hidden = config.mlp_ratio * inputs
        self.norm1 = nn.BatchNorm2d(inputs)
        self.attention = TemporalAttention(config, inputs)
        self.norm2 = nn.BatchNorm2d(inputs)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Conv2d(inputs, hidden, 1),
                dwconv=nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
                act=nn.GELU(),
                fc2=nn.Conv2d(hidden, inputs, 1),
            )
        )
        for conv in self.mlp:  # as released: normal by fan-out. The attention has PyTorch's own initialisation there.
            if isinstance(conv, nn.Conv2d):
                fan_out = math.prod(conv.kernel_size) * conv.out_channels // conv.groups
                nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
                nn.init.zeros_(cast(Tensor, conv.bias))
        self.layer_scale_1 = nn.Parameter(torch.full((inputs,), 1e-2))
        self.layer_scale_2 = nn.Parameter(torch.full((inputs,), 1e-2))
        self.reduction = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] to [B, outputs, h, w]."""
        x = x + self.dropped(self.layer_scale_1[:, None, None] * self.attention(self.norm1(x)))
        x = x + self.dropped(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))
        return self.reduction(x)  # type: ignore[no-any-return]

    def dropped(self, residual: Tensor) -> Tensor:
        """In training, drop the residual of some samples, and scale up the others to compensate (stochastic depth)."""
        if not self.training or self.drop_path == 0:
            return residual
        kept = residual.new_empty(residual.shape[0], 1, 1, 1).bernoulli_(1 - self.drop_path)
        return residual * kept / (1 - self.drop_path)


class DeployedBlock(nn.Module):
    """A :class:`Block` in ``eval`` mode in the form for export: cheaper, and equal except for rounding.

    Batch norms and layer scales are folded into the neighbouring convolutions. If the block outputs fewer channels than
    it processes, the MLP's last layer outputs only those. In the last block, those are the channels for the decoder.
    """

    def __init__(self, block: Block, wanted: int | None = None) -> None:
        """``wanted``: number of output channels to keep, the first ones (default: all)."""
        super().__init__()
        self.attention, self.mlp = copy.deepcopy(block.attention), copy.deepcopy(block.mlp)
        scales = [block.layer_scale_1.double(), block.layer_scale_2.double()]

        factor, offset = _affine(block.norm1)
        matrix, bias = pointwise(block.attention.proj_1)
        self.attention.proj_1 = mixing(matrix * factor, bias + matrix @ offset, block.layer_scale_1)
        # With z = factor·x + offset, x + scale·(change + z) = kept·x + scale·(change + offset).
        matrix, bias = pointwise(block.attention.proj_2)
        matrix, bias = scales[0][:, None] * matrix, scales[0] * (bias + offset)
        self.attention.proj_2 = mixing(matrix, bias, block.layer_scale_1)
        self.kept = nn.Parameter((1 + scales[0] * factor).to(block.layer_scale_1)[:, None, None])

        factor, offset = _affine(block.norm2)
        matrix, bias = pointwise(block.mlp.get_submodule("fc1"))
        self.mlp.fc1 = mixing(matrix * factor, bias + matrix @ offset, block.layer_scale_2)
        matrix, bias = pointwise(block.mlp.get_submodule("fc2"))
        matrix, bias = scales[1][:, None] * matrix, scales[1] * bias
        self.before: nn.Module = nn.Identity()
        self.after: nn.Module = nn.Identity()
        if isinstance(block.reduction, nn.Conv2d):
            reduced, constant = (value[:wanted] for value in pointwise(block.reduction))
            if len(reduced) < len(matrix):
                matrix, bias = reduced @ matrix, reduced @ bias + constant
                self.before = mixing(reduced, None, block.layer_scale_2)
            else:
                self.after = mixing(reduced, constant, block.layer_scale_2)
        self.mlp.fc2 = mixing(matrix, bias, block.layer_scale_2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] to [B, outputs, h, w], or to the first ``wanted`` channels."""
        x = self.kept * x + self.attention.change(x)
        return self.after(self.before(x) + self.mlp(x))  # type: ignore[no-any-return]


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the factor and the offset that a batch norm applies to each channel in ``eval`` mode, float64."""
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    factor = norm.weight.double() / (variance + norm.eps).sqrt()
    return factor, norm.bias.double() - factor * mean


class TAU(StepModel):
    """TAU as a step (Tan et al., "Temporal Attention Unit", CVPR 2023).

    State: for each of the T − 1 frames before the newest, its embedding, [B, hid_S, h, w], and the output of the
    encoder's first layer, which skips to the decoder, [B, hid_S, H, W]. Both are zeros for frames not yet seen.

    The release upsamples by convolution and pixel shuffle, the paper by transposed convolution: ``TAUConfig.upsample``.
    Streaming needs ``eval`` mode: in training mode, batch normalisation ties the samples of a batch together.
    """

    released: ClassVar[Released] = (
        (r"enc\.enc\.(\d+)\.conv\.(conv|norm)\.(\w+)", r"encoder.\1.\2.\3"),
        (r"dec\.dec\.(\d+)\.conv\.(conv|norm)\.(?:0\.)?(\w+)", r"decoder.\1.\2.\3"),
        (r"dec\.readout\.(\w+)", r"readout.\1"),
        (r"hid\.enc\.(\d+)\.(reduction\.\w+)", r"blocks.\1.\2"),
        (r"hid\.enc\.(\d+)\.block\.(layer_scale_[12]|norm[12]\.\w+)", r"blocks.\1.\2"),
        (r"hid\.enc\.(\d+)\.block\.attn\.(proj_[12]\.\w+)", r"blocks.\1.attention.\2"),
        (r"hid\.enc\.(\d+)\.block\.attn\.spatial_gating_unit\.(conv\w+\.\w+)", r"blocks.\1.attention.spatial.\2"),
        (r"hid\.enc\.(\d+)\.block\.attn\.spatial_gating_unit\.fc\.([02]\.\w+)", r"blocks.\1.attention.dynamical.\2"),
        (r"hid\.enc\.(\d+)\.block\.mlp\.(?:dwconv\.)?(\w+\.\w+)", r"blocks.\1.mlp.\2"),
    )

    def __init__(self, config: TAUConfig) -> None:
        super().__init__()
        self.config = config
        hidden, layers = config.hidden_spatial, range(config.encoder_layers)
        self.encoder = nn.ModuleList(ConvSC(hidden if i else config.channels, hidden, halve=i % 2 == 1) for i in layers)
        self.decoder = nn.ModuleList(
            ConvSC(hidden, hidden, double=config.upsample if i % 2 == 0 else None) for i in layers
        )
        self.readout = nn.Conv2d(hidden, config.channels, 1)
        inner = config.translator_layers - 1
        widths = [config.features, *[config.hidden_temporal] * inner, config.features]
        rates = [config.drop_path and 0.01 + (config.drop_path - 0.01) * j / inner for j in range(inner + 1)]
        self.blocks = nn.ModuleList(
            Block(config, inputs, outputs, rate)
            for (inputs, outputs), rate in zip(pairwise(widths), rates, strict=True)
        )
        self.frame_shape = (config.channels, config.height, config.width)
        self.outputs = config.outputs
        self.warmup = config.frames
        self.state_shapes = {}
        self.histories = {
            "embedding": History(config.frames - 1, (hidden, *config.embedding_size)),
            "skip": History(config.frames - 1, (hidden, config.height, config.width)),
        }

    def deployed(self) -> StepModel:
        """Return the same network in ``eval`` mode, with the translator's blocks as :class:`DeployedBlock`."""
        network = copy.deepcopy(self)
        *others, last = (cast(Block, block) for block in self.blocks)
        wanted = self.outputs * self.config.hidden_spatial
        network.blocks = nn.ModuleList([*(DeployedBlock(block) for block in others), DeployedBlock(last, wanted)])
        return network

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: see :meth:`StepModel.forward`."""
        embedding, skip = self.encode(frame)
        embeddings = [*reversed(self.past(state, "embedding")), embedding]
        skips = [*reversed(self.past(state, "skip")), skip]
        return self.predict(embeddings, skips), {"embedding": embedding, "skip": skip}

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode each of the frames [B, C, H, W] to an embedding [B, hid_S, h, w] and a skip [B, hid_S, H, W]."""
        first, *others = self.encoder
        x: Tensor = first(frames)
        skip = x
        for layer in others:
            x = layer(x)
        return x, skip

    def predict(self, embeddings: list[Tensor], skips: list[Tensor]) -> Tensor:
        """Predict K frames, [B, K, C, H, W], from embeddings and skips of the last T frames, oldest first."""
        hidden, wanted = self.config.hidden_spatial, self.outputs
        x = torch.cat(embeddings, dim=1)  # [B, T·hid_S, h, w]
        for block in self.blocks:
            x = block(x)
        # As released, output frame i uses the skip of input frame i: the next frame uses the oldest skip.
        skip = torch.stack(skips[:wanted], dim=1).flatten(0, 1)  # [B·K, hid_S, H, W]
        x = x[:, : wanted * hidden].reshape(-1, hidden, *self.config.embedding_size)  # [B·K, hid_S, h, w]
        *others, last = self.decoder
        for layer in others:
            x = layer(x)
        decoded: Tensor = self.readout(last(x + skip))
        return decoded.reshape(-1, wanted, *self.frame_shape)
