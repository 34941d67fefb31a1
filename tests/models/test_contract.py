"""What every network promises as a step, whatever paper it comes from."""

from __future__ import annotations

import pytest
import torch

from framecast.models.configs import build
from framecast.models.step import StepModel
from framecast.models.stip import STIP, STIPConfig

NETWORKS = {
    "stip": lambda: STIP(STIPConfig(height=32, width=48, patch=2, hidden=8, layers=2, stages=2)),
    "stip-edge": lambda: build("stip-edge"),
}


@pytest.fixture(params=NETWORKS)
def model(request: pytest.FixtureRequest) -> StepModel:
    torch.manual_seed(2)
    model: StepModel = NETWORKS[request.param]().eval()
    for parameter in model.parameters():
        if not parameter.any():  # zero on purpose before training: it would hide errors here
            torch.nn.init.normal_(parameter, std=0.02)
    return model


@torch.inference_mode()
def test_step_is_pure_and_keeps_its_shapes(model: StepModel) -> None:
    frame = torch.rand(2, *model.frame_shape)
    state = {name: torch.rand_like(value) for name, value in model.init_state(2).items()}
    before = {name: value.clone() for name, value in state.items()}
    prediction, new = model.step(frame, state)
    again, _ = model.step(frame, state)
    assert prediction.shape == (2, 1, *model.frame_shape)
    assert {k: tuple(v.shape[1:]) for k, v in new.items()} == {k: tuple(v) for k, v in model.state_shapes.items()}
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert torch.equal(prediction, again)
    assert prediction.isfinite().all()


@torch.inference_mode()
def test_batch_equals_each_alone(model: StepModel) -> None:
    frames = torch.rand(4, 2, *model.frame_shape)
    state, alone = model.init_state(2), [model.init_state(1), model.init_state(1)]
    for frame in frames:
        both, state = model.step(frame, state)
        for b in range(2):
            one, alone[b] = model.step(frame[b : b + 1], alone[b])
            # Noise is where warping is least well conditioned; a leak between cameras would be of order 1.
            assert (both[b] - one[0]).abs().max() < 2e-3


@torch.inference_mode()
def test_reset_is_all_zeros(model: StepModel) -> None:
    assert not any(value.any() for value in model.init_state().values())


@torch.inference_mode()
def test_edge_state_stays_bounded_however_long_the_stream() -> None:
    """The released merge is linear in T^1, and may let it grow without end; the edge configuration's cannot."""
    torch.manual_seed(6)
    model = build("stip-edge").eval()
    model.merge_t.weight.mul_(5)
    state = model.init_state()
    for _ in range(60):
        _, state = model.step(torch.rand(1, *model.frame_shape), state)
    assert all(state[name].abs().max() <= 1 for name in ("t1", "t2", "t3"))


@torch.inference_mode()
def test_edge_copies_before_it_knows_motion() -> None:
    model = build("stip-edge").eval()
    frame = torch.rand(1, *model.frame_shape)
    prediction, _ = model.step(frame, model.init_state())
    assert (prediction[:, 0] - frame).abs().max() < 1e-3  # untrained: no motion, no residual


@torch.inference_mode()
def test_edge_prior_follows_a_moving_scene() -> None:
    torch.manual_seed(4)
    model = build("stip-edge").eval()
    coarse = torch.rand(1, 3, 30, 40)
    scene = torch.nn.functional.interpolate(coarse, (240, 320), mode="bicubic", align_corners=False).clamp(0, 1)
    frames = [scene[..., 20 + i : 212 + i, 20 + 2 * i : 276 + 2 * i] for i in range(4)]  # pans by (2, 1) pixels a frame
    state = model.init_state()
    for frame in frames[:3]:
        prediction, state = model.step(frame, state)
    inner = (slice(None), slice(None), slice(16, -16), slice(16, -16))
    error, copying = ((x[inner] - frames[3][inner]).square().mean() for x in (prediction[:, 0], frames[2]))
    assert error < copying / 20
