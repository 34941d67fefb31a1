"""Recognise an action early: a network's states become the input of a small classifier (STAU, section 4.3.1).

python examples/early_action.py 150        number of updates; a minute or two on one core

The task is made up: a square swings to and fro, up and down, or runs along a circle, in one of two directions. A
small STAU learns to predict such videos. Then its weights stay: it sees only the first frames, and predicts the others.
A small network of 3D convolutions classifies the states after all steps. Needs the extra 'models' (torch).
"""

import sys

import torch
from torch import Tensor, nn

from framecast.models.stau import STAU, STAUConfig

SIZE, FRAMES, BATCH = 32, 20, 16
ACTIONS = ("left and right", "up and down", "clockwise", "anticlockwise")


def videos(count: int) -> tuple[Tensor, Tensor]:
    """Draw videos, [T, N, 1, H, W], 0 to 1, and their actions, [N]."""
    actions = torch.randint(len(ACTIONS), (count,))
    period, phase = torch.empty(count).uniform_(16, 28), torch.empty(count).uniform_(0, 2 * torch.pi)
    angle = 2 * torch.pi * torch.arange(FRAMES)[:, None] / period + phase  # [T, N]
    turn = torch.where(actions == 3, -1.0, 1.0)
    x, y = angle.cos() * (actions != 1), (turn * angle).sin() * (actions != 0)
    centre = torch.empty(2, count).uniform_(-3, 3) + (SIZE - 1) / 2
    grid = torch.arange(SIZE)
    inside = [
        (2.5 - (grid - (centre[i] + 8 * way)[..., None]).abs()).clamp(0, 1)  # soft edges: fractions of a pixel count
        for i, way in enumerate((y, x))
    ]
    return (inside[0][..., :, None] * inside[1][..., None, :])[:, :, None], actions


def watch(network: STAU, frames: Tensor, given: int) -> tuple[Tensor, Tensor]:
    """Predict each next frame, from the true frames and then from the predictions.

    Returns:
        The predictions, [T − 1, N, 1, H, W], and the last layer's states T after each step, [N, C, T − 1, h, w].
    """
    state = network.init_state(frames.shape[1])
    predictions: list[Tensor] = []
    states: list[Tensor] = []
    for t in range(FRAMES - 1):
        prediction, state = network.step(frames[t] if t < given else predictions[-1], state)
        predictions.append(prediction[:, 0])
        states.append(network.past(state, f"t{network.config.layers}")[0])
    return torch.stack(predictions), torch.stack(states, dim=2)


def classifier(channels: int) -> nn.Module:
    """Return a network from states to a score for each action."""
    return nn.Sequential(
        nn.BatchNorm3d(channels),
        *(nn.Conv3d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2)),
        *(nn.Conv3d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d((4, 1, 1))),
        *(nn.Flatten(), nn.Linear(4 * 32, len(ACTIONS))),
    )


torch.manual_seed(1)
updates = int(sys.argv[1])
network = STAU(STAUConfig(SIZE, SIZE, 1, hidden=16, layers=2, kernel=3, stages=2))
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
for _ in range(updates):
    frames = videos(BATCH)[0]
    loss = (watch(network, frames, FRAMES)[0] - frames[1:]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"prediction: MSE {loss.item():.4f}, of copying {(frames[1:] - frames[:-1]).square().mean().item():.4f}")

network.eval().requires_grad_(False)
judge = classifier(network.config.hidden)
optimizer = torch.optim.Adam(judge.parameters(), lr=2e-3)
for _ in range(updates):
    frames, actions = videos(BATCH)
    first = int(torch.randint(2, FRAMES, ()))
    loss = nn.functional.cross_entropy(judge(watch(network, frames, first)[1]), actions)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

judge.eval()
frames, actions = videos(400)
with torch.inference_mode():
    for seen in (2, 4, 6, 10, FRAMES - 1):
        right = judge(watch(network, frames, seen)[1]).argmax(dim=1) == actions
        print(f"after {seen:2d} of {FRAMES} frames: {right.float().mean().item():.0%} right (guessing: 25%)")
