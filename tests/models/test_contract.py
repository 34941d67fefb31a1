"""The contract of a step, which every network keeps."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from framecast.models.configs import build
from framecast.models.step import State, StepModel
from framecast.models.stip import STIP, STIPConfig

from ..networks import NETWORKS, make, small_edge  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)


@pytest.fixture(params=[*NETWORKS, "edge"])
def model(request: pytest.FixtureRequest) -> StepModel:
    return small_edge() if request.param == "edge" else make(request.param)


def random_state(model: StepModel, batch: int) -> State:
    return {name: torch.rand_like(value) for name, value in model.init_state(batch).items()}


@torch.inference_mode()
def test_step_is_pure_and_keeps_its_shapes(model: StepModel) -> None:
    frame = torch.rand(2, *model.frame_shape)
    state = random_state(model, 2)
    before = {name: value.clone() for name, value in state.items()}
    prediction, new = model.step(frame, state)
    again, _ = model.step(frame, state)
    assert prediction.shape == (2, model.outputs, *model.frame_shape)
    assert {name: value.shape for name, value in new.items()} == {name: value.shape for name, value in state.items()}
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert torch.equal(prediction, again)
    assert prediction.isfinite().all()


@torch.inference_mode()
def test_histories_shift_by_one_without_a_copy(model: StepModel) -> None:
    state = random_state(model, 1)
    _, new = model.step(torch.rand(1, *model.frame_shape), state)
    for name, history in model.histories.items():
        for age in range(1, history.slots):
            assert new[f"{name}.{age}"].data_ptr() == state[f"{name}.{age - 1}"].data_ptr()
    assert set(new) == {*model.state_shapes, *(f"{n}.{a}" for n, h in model.histories.items() for a in range(h.slots))}


@torch.inference_mode()
def test_deployed_is_the_same_function(model: StepModel) -> None:
    model = model.double()  # a warp amplifies float32's rounding
    deployed = model.deployed().eval()
    frame, state = torch.rand(2, *model.frame_shape).double(), random_state(model, 2)
    expected, new = model.step(frame, state)
    prediction, written = deployed.step(frame, state)
    assert torch.allclose(prediction, expected, rtol=0, atol=1e-9 * max(1, float(expected.abs().max())))
    assert all(torch.allclose(written[name], new[name], rtol=0, atol=1e-9) for name in new)
    assert not any(isinstance(module, torch.nn.Conv3d) for module in deployed.modules())


@torch.inference_mode()
def test_batch_equals_each_sample_alone(model: StepModel) -> None:
    model = model.double()  # float32's rounding depends on the batch
    frames = torch.rand(12, 2, *model.frame_shape, dtype=torch.float64)
    state, alone = model.init_state(2), [model.init_state(1), model.init_state(1)]
    for frame in frames:
        both, state = model.step(frame, state)
        for b in range(2):
            one, alone[b] = model.step(frame[b : b + 1], alone[b])
            assert (both[b] - one[0]).abs().max() < 1e-7 * max(1.0, float(one.abs().max()))


@torch.inference_mode()
def test_a_rollout_does_not_change_its_state(model: StepModel) -> None:
    """Steps ahead leave the state unchanged bit for bit, and so are later predictions from it."""
    frames = torch.rand(7, 1, *model.frame_shape)
    state = model.init_state()
    for frame in frames[:6]:
        prediction, state = model.step(frame, state)
    before = {name: value.clone() for name, value in state.items()}
    expected, _ = model.step(frames[6], state)
    branch = state
    for _ in range(6):
        prediction, branch = model.step(prediction[:, 0], branch)
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert torch.equal(model.step(frames[6], state)[0], expected)


@torch.inference_mode()
def test_reset_is_all_zeros(model: StepModel) -> None:
    assert not any(value.any() for value in model.init_state().values())


@torch.inference_mode()
@pytest.mark.parametrize("bounded", [False, True])
def test_the_released_merge_can_grow_without_bound(bounded: bool) -> None:
    """The cell is linear in T^1. If it amplifies T^1, the state grows until it is NaN, and the predictor resets."""
    config = STIPConfig(height=16, width=16, patch=2, hidden=4, layers=1, stages=2, bounded=bounded)
    model = STIP(config).eval()
    model.merge_t.weight[:, :4] = 3 * torch.eye(4)[:, :, None, None]
    model.get_parameter("cells.0.norm_t.bias")[:4] = 9  # saturates z, so that the cell keeps its state
    state = model.init_state()
    for _ in range(120):
        _, state = model.step(torch.rand(1, *model.frame_shape), state)
    assert bool(state["t1"].isfinite().all()) == bounded
    assert not bounded or state["t1"].abs().max() <= 1
    assert cast(STIPConfig, build("stip-edge").config).bounded


@torch.inference_mode()
def test_stip_edge_copies_the_first_frame() -> None:
    model = build("stip-edge").eval()
    frame = torch.rand(1, *model.frame_shape)
    prediction, _ = model.step(frame, model.init_state())
    assert (prediction[:, 0] - frame).abs().max() < 1e-3  # untrained: no motion, no residual


@torch.inference_mode()
def test_stip_edge_prior_follows_a_moving_scene() -> None:
    model = build("stip-edge").eval()
    coarse = torch.rand(1, 3, 30, 40)
    scene = torch.nn.functional.interpolate(coarse, (240, 320), mode="bicubic", align_corners=False).clamp(0, 1)
    frames = [
        scene[..., 20 + i : 212 + i, 20 + 2 * i : 276 + 2 * i] for i in range(4)
    ]  # pans by (2, 1) pixels per frame
    state = model.init_state()
    for frame in frames[:3]:
        prediction, state = model.step(frame, state)
    inner = (slice(None), slice(None), slice(16, -16), slice(16, -16))
    error, copying = ((x[inner] - frames[3][inner]).square().mean() for x in (prediction[:, 0], frames[2]))
    assert error < copying / 20
