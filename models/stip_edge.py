"""STIP for the edge: the STGRU core refines a motion prior, and the last frame is never thrown away.

As published, STIP paints every pixel anew, which at this size cannot even copy a frame exactly. Here the last frame is
pulled along the motion that brought it (constant velocity), and STIP's encoders, cells and decoders decide how far to
trust that: they correct the flow, blend with the plain last frame, and add a residual. Not a published network.
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

FLOW_UNIT = 4.0  # pixels: flows are divided by it where they are features
ERROR_UNIT = 0.25  # of the value range: differences between frames are divided by it where they are features
RESIDUAL_UNIT = 0.1  # of the value range: what the network adds is multiplied by it, so that it starts with small steps
TRUST = 1.5  # logit of the blend before training: mostly the extrapolated frame


class STIPEdge(STIP):
    """State: ``t1`` … ``tL`` as in STIP, the last frame, and ``started``, which is 0 until there has been one."""

    warmup = 2  # the first step knows no motion
    released: ClassVar[Released] = ()

    def __init__(self, config: STIPConfig) -> None:
        if config.patch % 2:
            raise OptionError(
                f"patch must be even for this network, whose flow has half the resolution, not {config.patch}"
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
            if name.endswith("bias") or name.startswith("head.4."):  # untrained, it is the motion prior
                nn.init.zeros_(parameter)
            elif "norm" not in name:
                nn.init.kaiming_normal_(parameter, a=0.2)
        self.state_shapes = {**self.state_shapes, "previous": self.frame_shape, "started": (1, 1, 1)}

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: see :meth:`StepModel.forward`."""
        patch = self.config.patch
        started = state["started"]
        previous = started * state["previous"] + (1 - started) * frame  # no motion into a black frame
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
