"""The error of ``torch:fp16`` against float32: every configuration over 20 real frames, within the GPU check's limits.

The network has the engine's form: that for a GPU, with :func:`layers_to_half`. The CPU emulates convolutions and fully
connected layers as tensor cores compute them: inputs and outputs are rounded to float16, and products are summed in
float32. A CPU's own half convolutions are slow and round differently.

The weights are random except for ``stip-edge``. Errors are in units of the value range; each rollout has its own state.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from framecast.camera import open_source
from framecast.export.exporter import real_frames
from framecast.export.load_network import load_network
from framecast.export.onnx import describe
from framecast.kernels import switch
from framecast.models.configs import CONFIGS, build
from framecast.models.step import StepModel
from framecast.runtime.engines.torch import layers_to_half
from framecast.runtime.shipped import shipped

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# Sizes at which a step is cheap. At full size the errors are larger.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "stip-ucf": {"height": 64, "width": 64},
    "stip-h36m": {"height": 128, "width": 128},
    "stip-4k": {"height": 128, "width": 128},
    "stau-mnist": {},
    "stau-kitti": {"height": 64, "width": 64},
    "stau-town": {"height": 128, "width": 128},
    "mau-mnist": {},
    "astm-mnist": {"height": 16, "width": 16},
    "astm-kth": {"height": 16, "width": 16},
    "tau-mnist": {"height": 16, "width": 16},
    "tau-kth": {"height": 16, "width": 16},
    "tau-taxibj": {"height": 16, "width": 16},
    "tau-caltech": {"height": 16, "width": 16},
    "stip-mini": {},
    "stau-mini": {},
    "mau-mini": {},
    "astm-mini": {"height": 16, "width": 16},
    "tau-mini": {"height": 16, "width": 16},
    "stip-edge": {},
}
QUICK = {
    "stip-ucf",
    "stau-mnist",
    "astm-mnist",
    "tau-taxibj",
    "stip-edge",
}  # the others take longer, to tell little more
# ASTM's cells forget very little, so the rounding of all steps adds up (in float32 too). The error grows with the
# stream: both configurations reach 0.2 after 100 steps at 16×16.
TOO_FAR = {"astm-kth": "at full size the error is 2.4e-2 by step 20, above the limit of 2e-2: run it in float32"}


def network(config: str, changes: Mapping[str, Any]) -> StepModel:
    if config in shipped() and not changes:
        return load_network(shipped()[config])[0]
    torch.manual_seed(0)
    return build(config, changes).eval()


def in_half(model: StepModel) -> StepModel:
    """The engine's form for a GPU in fp16, with emulated layers."""
    form = copy.deepcopy(model).on_gpu(channels_last=True).eval()
    layers_to_half(form)
    found = [
        layer for layer in form.modules() if any(p.dtype == torch.float16 for p in layer.parameters(recurse=False))
    ]
    assert found
    for layer in found:
        assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
        layer.float()  # the weights are already rounded to float16
        layer.register_forward_pre_hook(
            lambda _, given: tuple(value.float() for value in given)
        )  # after their rounding
        layer.register_forward_hook(
            lambda _, given, gave: gave.half(), prepend=True
        )  # before any conversion to float32
    return form


def frames(config: str, model: StepModel) -> list[Tensor]:
    with open_source("demo") as source:
        if CONFIGS[config].data.is_picture:
            taken = (frame.image for frame in islice(source, 20))
            return [torch.from_numpy(frame) for frame in real_frames(taken, describe(model, config))]
        channels, *size = model.frame_shape  # crowd flows; two channels of a picture stand in for them
        images = [cv2.resize(frame.image, size[::-1], interpolation=cv2.INTER_AREA) for frame in islice(source, 20)]
    return [torch.from_numpy(np.float32(image[None, ..., :channels] / 255)).movedim(3, 1) for image in images]


@torch.inference_mode()
def error(config: str, changes: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> float:
    """The largest error over the rollout."""
    model = network(config, changes)
    form = in_half(model)
    exact, state, worst = model.init_state(), form.init_state(), 0.0
    for frame in frames(config, model):
        expected, exact = model.step(frame, exact)
        with monkeypatch.context() as patch:
            patch.setattr(switch, "DEVICES", frozenset({"cpu"}))  # use our operators, which accept float16
            patch.setattr(switch, "INSTALLED", True)
            prediction, state = form.step(frame, state)
        assert all(value.dtype == torch.float32 for value in (prediction, *state.values()))
        worst = float(np.max([worst, float((prediction - expected).abs().max())]))  # max drops NaN
    return worst


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, float]:
    """The GPU check's limit for each configuration."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import _gpu_variants

    return {name: max(_gpu_variants.ALLOWED["fp16"], 10 * entry.tolerance) for name, entry in CONFIGS.items()}


def test_nan_in_only_the_last_frame_is_detected(allowed: Mapping[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = in_half, 0

    def broken(model: StepModel) -> StepModel:
        form = original(model)
        step = form.step

        def last_is_nan(*arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
            nonlocal calls
            calls += 1
            prediction, state = step(*arguments)
            return (prediction * torch.nan if calls == 20 else prediction), state

        monkeypatch.setattr(form, "step", last_is_nan)
        return form

    monkeypatch.setitem(globals(), "in_half", broken)
    assert not error("mau-mnist", SMALL["mau-mnist"], monkeypatch) <= allowed["mau-mnist"]
    assert calls == 20


def test_every_configuration_has_a_small_size() -> None:
    assert list(SMALL) == list(CONFIGS)


@pytest.mark.parametrize(
    "config", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SMALL]
)
def test_the_error_is_within_the_limit(
    config: str, allowed: Mapping[str, float], monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    found = error(config, SMALL[config], monkeypatch)
    record_property("error", found)
    assert 1e-6 < found <= allowed[config]  # the lower bound shows that the form really rounds


@pytest.mark.slow
@pytest.mark.timeout(1800)  # on one slow core
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, marks=pytest.mark.xfail(reason=TOO_FAR[config], strict=True))
        if config in TOO_FAR
        else config
        for config, changes in SMALL.items()
        if changes
    ],
)
def test_the_error_is_within_the_limit_at_full_size(
    config: str, allowed: Mapping[str, float], monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    found = error(config, {}, monkeypatch)
    record_property("error", found)
    assert found <= allowed[config]
