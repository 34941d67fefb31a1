"""The form of a network for PyTorch on a GPU computes the same function, in any memory layout and order."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest
import torch

from framecast.kernels import switch
from framecast.kernels.layout import is_channels_last
from framecast.models.branch import Branch
from framecast.models.step import State, StepModel
from framecast.models.stip import STGRU, STIP
from framecast.runtime.engines.torch import layers_to_half

from ..networks import NETWORKS, make, small_edge  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

STIPS = [name for name in NETWORKS if "stip" in name]


class Recorded(Branch):
    """A branch without a CUDA stream, which records when it forks and joins."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextmanager
    def fork(self) -> Iterator[None]:
        self.events.append("fork")
        yield
        self.events.append("back")

    def join(self) -> None:
        self.events.append("join")


def random_state(model: StepModel, layout: torch.memory_format = torch.contiguous_format) -> State:
    state = {name: torch.rand_like(value) for name, value in model.init_state(2).items()}
    return {name: x.to(memory_format=layout) if x.dim() == 4 else x for name, x in state.items()}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", [*NETWORKS, "edge"])
@torch.inference_mode()
def test_it_is_the_same_function(name: str, channels_last: bool) -> None:
    model = (small_edge() if name == "edge" else make(name)).double()  # a warp amplifies float32's rounding
    form = copy.deepcopy(model).on_gpu(channels_last=channels_last).eval()
    if isinstance(form, STIP):
        form.branch = Recorded()
    assert form.channels_last == (channels_last and name in STIPS)
    frame, state = torch.rand(2, *model.frame_shape).double(), random_state(model)
    expected, new = model.step(frame, state)
    prediction, written = form.step(frame, state)
    assert torch.allclose(prediction, expected, rtol=0, atol=1e-9 * max(1, float(expected.abs().max())))
    assert all(torch.allclose(written[name], new[name], rtol=0, atol=1e-9) for name in new)


@pytest.mark.parametrize("name", STIPS)
@torch.inference_mode()
def test_only_layers_that_need_no_frame_run_on_the_branch(name: str) -> None:
    branch = Recorded()
    form = cast(STIP, make(name).on_gpu())
    form.branch = branch
    for k, cell in enumerate(cast("list[STGRU]", form.cells), start=1):
        cell.conv_t.register_forward_hook(lambda *_, k=k: branch.events.append(f"t{k}"))
        cell.conv_s.register_forward_hook(lambda *_, k=k: branch.events.append(f"s{k}"))
    form.step(torch.rand(1, *form.frame_shape), form.init_state())
    layers = range(1, len(form.cells) + 1)
    forked = ["fork", *(f"t{k}" for k in layers[1:]), "back"]
    assert branch.events == [*forked, "join", "t1", *(f"s{k}" for k in layers)]


@pytest.mark.parametrize("name", STIPS)
def test_a_failure_outside_the_branch_joins_it(name: str) -> None:
    """The branch must be joined, because in a capture an unjoined branch would hide the error."""
    branch = Recorded()
    form = cast(STIP, make(name).on_gpu())
    form.branch = branch

    def fail(*_: object) -> None:
        raise MemoryError("full")

    form.encoder_s.first.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        form.step(torch.rand(1, *form.frame_shape), form.init_state())
    assert branch.events == ["fork", "back", "join"]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", STIPS)
@torch.inference_mode()
def test_states_keep_their_layout_and_type(name: str, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With our operators, no step has to copy a state into another layout."""
    monkeypatch.setattr(switch, "DEVICES", frozenset({"cpu"}))
    monkeypatch.setattr(switch, "INSTALLED", True)
    model = make(name)
    form = copy.deepcopy(model).on_gpu(channels_last=True).eval()
    if half:
        layers_to_half(form)
    expected_state, state = random_state(model), random_state(model, torch.channels_last)
    expected_state = dict(state)
    for _ in range(3):
        frame = torch.rand(2, *model.frame_shape)
        expected, expected_state = model.step(frame, expected_state)
        prediction, state = form.step(frame, state)
        assert (prediction - expected).abs().max() < (2e-2 if half else 1e-4) * max(1, float(expected.abs().max()))
        for key, value in state.items():
            assert value.dtype == torch.float32
            if key.startswith("t"):
                assert is_channels_last(value)
