"""LPIPS: used only if its packages and weights are installed, and given its input format. The network is not tested."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from framecast.evaluation.perceptual import WEIGHTS, find_lpips


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Install a fake lpips, whose distance is the mean of (a − b) · (1, 10, 100) by channel.

    Returns the path where AlexNet's weights belong.
    """

    class LPIPS(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            assert (net, verbose) == ("alex", False)
            assert weights.read_bytes() == b"whole"

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return ((a - b) * torch.tensor([1.0, 10.0, 100.0])[:, None, None]).mean((1, 2, 3), keepdim=True)

    module: Any = ModuleType("lpips")
    module.LPIPS = LPIPS
    monkeypatch.setitem(sys.modules, "lpips", module)
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = tmp_path / "checkpoints" / WEIGHTS
    weights.parent.mkdir()
    return weights


@pytest.mark.parametrize("missing", ["lpips", "torchvision", "torch"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, stand_in: Path, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    found = find_lpips()
    assert isinstance(found, str)
    assert f"{missing} is not installed (pip install lpips torchvision)" in found


def test_a_torchvision_of_another_torch_is_named(
    monkeypatch: pytest.MonkeyPatch, stand_in: Path, tmp_path: Path
) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.version, "cuda", None)
    found = find_lpips()
    assert isinstance(found, str)
    assert f"does not fit torch {torch.__version__} (operator torchvision::nms does not exist; pip install" in found
    assert found.endswith("whl/cpu)")


def test_missing_and_damaged_weights_are_named(stand_in: Path) -> None:
    found = find_lpips()
    assert isinstance(found, str)
    assert str(stand_in.parent) in found
    assert f"download https://download.pytorch.org/models/{WEIGHTS}" in found
    stand_in.write_bytes(b"cut")
    found = find_lpips()
    assert isinstance(found, str)
    assert "download it again" in found


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_passed_as_rgb_from_minus_one_to_one(stand_in: Path, channels: int) -> None:
    stand_in.write_bytes(b"whole")
    judge = find_lpips()
    assert callable(judge)
    rng = np.random.default_rng()
    truth = rng.integers(0, 256, (8, 9, channels), np.uint8)
    guess, wild = rng.integers(0, 256, truth.shape, np.uint8), rng.normal(0.5, 1, truth.shape)
    expected = []
    for image in (guess / 255, wild.clip(0, 1)):
        difference = 2 * (image - truth / 255) * np.array([100, 10, 1])  # BGR
        expected.append(difference.mean())
    assert judge(truth, [guess, wild]) == pytest.approx(expected, rel=1e-4)
