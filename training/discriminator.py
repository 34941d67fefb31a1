"""STIP's discriminator: tells real frames from predicted ones."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from framecast.errors import OptionError
from framecast.models.blocks import patchify
from framecast.training.losses import at_least_float32

HIDDEN = 64
GROUPS = 4


class Discriminator(nn.Module):
    """A stack of convolutions that halve a patched frame until about one pixel is left, then a linear and a sigmoid.

    There are ⌊log2 h⌋ stages, where h is the patched frame's height (8 for 256). Each is a 3×3 convolution with stride
    2, a GroupNorm of 4 groups, and the activation. It scores every frame on its own. Patches are in the order of the
    released code (:func:`~framecast.models.blocks.patchify`), and the parameters have its names. The width is our
    choice: every convolution has 64 output channels.

    Source: STIP, Tables I and II; activation and averaging over time as in the released code.

    Args:
        height: height of a frame in pixels, a multiple of ``patch`` and at least twice as large.
        width: width of a frame in pixels; the same limits apply.
        channels: channels of a frame.
        patch: side of a patch in pixels.
        activation: ``relu`` as in the released code, ``leaky_relu`` (slope 0.2) as in the paper.

    Raises:
        OptionError: the frames do not fit these limits, or there is no such activation.
    """

    def __init__(
        self,
        height: int,
        width: int,
        channels: int,
        patch: int,
        activation: Literal["relu", "leaky_relu"] = "relu",
    ) -> None:
        super().__init__()
        if min(channels, patch) < 1:
            raise OptionError(f"channels and patch must be at least 1, not {channels} and {patch}")
        if height % patch or width % patch or min(height, width) < 2 * patch:
            sizes = f"not {height} and {width}"
            raise OptionError(f"height and width must be multiples of {patch}, and at least {2 * patch}, {sizes}")
        if activation not in ("relu", "leaky_relu"):
            raise OptionError(f"activation must be relu or leaky_relu, not {activation}")
        self.patch = patch
        rows, columns = height // patch, width // patch
        self.main = nn.Sequential()
        for stage in range(rows.bit_length() - 1):  # ⌊log2 rows⌋
            inputs = HIDDEN if stage else channels * patch**2
            names = ("conv_{}", "gn_{}", "act_{}") if stage else ("0", "1", "2")
            conv, norm, act = (name.format(stage) for name in names)
            self.main.add_module(conv, nn.Conv2d(inputs, HIDDEN, 3, stride=2, padding=1))
            self.main.add_module(norm, nn.GroupNorm(GROUPS, HIDDEN))
            self.main.add_module(act, nn.ReLU() if activation == "relu" else nn.LeakyReLU(0.2))
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
        self.linear = nn.Sequential(nn.Linear(HIDDEN * rows * columns, 1))  # the losses apply the sigmoid

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Score sequences, [B, T, C, H, W].

        The released code averages the probabilities of a sequence's frames and takes the cross-entropy of the average.
        Probabilities saturate in float32. This method therefore returns the logit of the same average:
        ``log Σ σ(l_t) − log Σ σ(−l_t)``, where l are the frames' logits. They are equal, because the mean of σ(−l) is 1
        minus the mean of σ(l).

        Returns:
            scores: [B] logits; their sigmoid is the mean over time of each frame's probability of being real.
            features: [B, T, D], the last stage's output for each frame, flattened; this is the linear layer's input.
        """
        patches = patchify(frames.flatten(0, 1), self.patch)
        features = self.main(patches).flatten(1).unflatten(0, frames.shape[:2])
        logits = at_least_float32(self.linear(features)[..., 0])  # [B, T]
        real, fake = (torch.logsumexp(functional.logsigmoid(sign * logits), 1) for sign in (1, -1))
        return real - fake, features
