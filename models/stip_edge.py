"""STIP for the edge: the STGRU core refines a motion prior, so the prediction starts from the last frame.

The published STIP draws every pixel from its features. A network of this size that did the same could not even copy a
frame exactly. This network instead warps the last frame along its motion so far (constant velocity). STIP's encoders,
cells and decoders correct the flow, blend the result with the last frame itself, and add a residual. Not a published
network.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from framecast.errors import OptionError
from framecast.models.blocks import patchify, unpatchify
from framecast.models.motion import LucasKanade, Warp, enlarge
from framecast.models.step import Released, State
from framecast.models.stip import STIP, STIPConfig

FLOW_UNIT = 4.0  # pixels: divides a flow to make it a feature
ERROR_UNIT = 0.25  # of the value range: divides a frame difference to make it a feature
RESIDUAL_UNIT = 0.1  # of the value range: scales the residual, so that training starts with small steps
TRUST = 1.5  # logit of the blend before training: the warped frame dominates


class STIPEdge(STIP):
    """State: ``t1`` … ``tL`` as in STIP, the last frame, and ``started``: 0 before the first frame, then 1."""

    warmup = 2  # the first step has no motion
    released: ClassVar[Released] = ()

    def __init__(self, config: STIPConfig) -> None:
        if config.patch % 2:
            raise OptionError(
                f"patch must be even, not {config.patch}, because this network's flow has half the resolution"
            )
        flow = 2 * (config.patch // 2) ** 2  # the flow is kept at half resolution
        inputs = 3 * config.features + flow
        super().__init__(config, inputs=inputs, outputs=config.hidden)
        hidden = config.hidden
        self.flow = LucasKanade(config.height, config.width)
        self.warp = Warp(config.height, config.width)
        self.detail = nn.Sequential(nn.Conv2d(inputs, hidden, 1), nn.LeakyReLU(0.2))
        self.split = (flow, config.patch**2, config.features)
        self.head = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(hidden, sum(self.split), 3, padding=1),
        )
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or name.startswith("head.4."):  # untrained, the network is the motion prior
                nn.init.zeros_(parameter)
            elif "norm" not in name:
                nn.init.kaiming_normal_(parameter, a=0.2)
        self.state_shapes = {**self.state_shapes, "previous": self.frame_shape, "started": (1, 1, 1)}

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: see :meth:`StepModel.forward`."""
        patch = self.config.patch
        started = state["started"]
        previous = started * state["previous"] + (1 - started) * frame  # no motion on the first step
        flow = self.flow(frame, previous)
        moved, aligned = self.warp(torch.cat([frame, previous], dim=1), enlarge(flow, 2)).chunk(2, dim=1)
        views = torch.cat([frame - 0.5, (frame - aligned) / ERROR_UNIT, (moved - frame) / ERROR_UNIT], dim=1)
        inputs = torch.cat([patchify(views, patch), patchify(flow / FLOW_UNIT, patch // 2)], dim=1)
        core, new = self.advance(inputs, state)
        correction, blend, residual = self.head(core + self.detail(inputs)).split(self.split, dim=1)
        moved = self.warp(frame, enlarge(flow + unpatchify(correction, patch // 2), 2))
        trust = torch.sigmoid(unpatchify(blend, patch) + TRUST)
        prediction = frame + trust * (moved - frame) + RESIDUAL_UNIT * unpatchify(residual, patch)
        return prediction.unsqueeze(1), {**new, "previous": frame, "started": torch.ones_like(started)}
