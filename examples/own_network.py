"""Your own network, in one file: write a step in PyTorch, export it, and run it like any other model.

python examples/own_network.py own.onnx && framecast run demo --model own.onnx        needs the extra 'models'
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from framecast.export.onnx import describe, to_onnx
from framecast.graph.artifact import save
from framecast.models.step import State, StepModel


class Own(StepModel):
    """Adds to the newest frame a convolution of that frame and the one before."""

    frame_shape = (3, 192, 256)  # C, H, W; values 0 to 1
    warmup = 2  # the first step has no previous frame

    def __init__(self) -> None:
        super().__init__()
        self.state_shapes = {"previous": self.frame_shape}
        self.change = nn.Conv2d(6, 3, 5, padding=2, bias=False)
        nn.init.zeros_(self.change.weight)
        with torch.no_grad():  # untrained: every pixel keeps changing, at half its speed
            for channel in range(3):
                self.change.weight[channel, channel, 2, 2] = 0.5
                self.change.weight[channel, channel + 3, 2, 2] = -0.5

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: the prediction [B, 1, C, H, W], and the new state."""
        prediction = frame + self.change(torch.cat([frame, state["previous"]], dim=1))
        return prediction.unsqueeze(1), {"previous": frame}


network = Own().eval()
save(to_onnx(network, describe(network, "own", weights="set by hand")), Path(sys.argv[1]))
