"""Every network can learn: it overfits two sequences and then predicts them much better than copying does."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from framecast.models.astm import ASTM, ASTMConfig
from framecast.models.configs import build
from framecast.models.stau import MAU, STAU, MAUConfig, STAUConfig
from framecast.models.step import StepModel
from framecast.models.stip import STIP, STIPConfig
from framecast.models.tau import TAU, TAUConfig
from framecast.training.batches import Batch
from framecast.training.recipes import Recipe
from framecast.training.trainer import Trainer

GIVEN = 4
UPDATES = {"stip-edge": 40}  # its motion prior is a good start, and its updates are the slowest; the others need 100

NETWORKS: dict[str, Callable[[], StepModel]] = {
    "stip": lambda: STIP(STIPConfig(24, 24, 1, patch=2, hidden=8, layers=2, stages=1)),
    "stip-edge": lambda: build("stip-edge", {"height": 48, "width": 64, "hidden": 8, "layers": 1}),
    "stau": lambda: STAU(STAUConfig(24, 24, 1, hidden=8, layers=2, stages=1)),
    "mau": lambda: MAU(MAUConfig(24, 24, 1, hidden=8, layers=2, stages=1)),
    "astm": lambda: ASTM(ASTMConfig(16, 16, 1, patch=2, hidden=8, layers=2)),
    "tau": lambda: TAU(TAUConfig(24, 24, 1, GIVEN, 8, 16, 2, 3, outputs=GIVEN)),
}


def sliding(shape: tuple[int, int, int], count: int) -> Batch:
    """Two soft patterns that slide in different directions."""
    channels, height, width = shape
    rng = np.random.default_rng(5)
    starts = np.zeros((count, 2), bool)
    starts[0] = True
    sequences = []
    for dy, dx in ((2, 1), (-1, 3)):
        coarse = rng.integers(0, 256, (4, 6, channels), dtype=np.uint8)
        scene = cv2.resize(coarse, (width, height)).reshape(height, width, channels)
        sequences.append([np.roll(scene, (t * dy, t * dx), (0, 1)) for t in range(count)])
    return Batch(np.stack(sequences, axis=1), starts, ((0, 0), (0, 0)))


QUICK = "stip-edge"  # the others take long and rarely tell anything: make test-slow


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in NETWORKS]
)
def test_learns_to_beat_copying(name: str) -> None:
    torch.manual_seed(0)
    model, updates = NETWORKS[name](), UPDATES.get(name, 100)
    batch = sliding(model.frame_shape, 2 * GIVEN)
    frames = torch.from_numpy(batch.frames).float() / 255
    last = frames[GIVEN - 1].expand_as(frames[GIVEN:]) if isinstance(model, TAU) else frames[:-1]
    copied = float((frames[-len(last) :] - last).square().mean())
    trainer = Trainer(model, Recipe("sequences", updates, 2, 5e-3, given=GIVEN, predicted=GIVEN))
    losses = [trainer.update(batch, n / updates).loss for n in range(updates)]
    assert losses[-1] < 0.7 * min(copied, losses[0])
