"""``benchmarks/stip_losses.py``: its recipes differ in the loss alone, and its scores."""

from __future__ import annotations

import dataclasses
import math
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from framecast.camera import Image
from framecast.training.discriminator import Discriminator

from .clips import write_clips  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


@pytest.fixture
def script(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("stip_losses")


def test_recipes_differ_in_the_loss_alone(script: ModuleType) -> None:
    recipes = [script.recipe(loss, Namespace(updates=90, batch=2)) for loss in script.LOSSES]
    assert [(one.adversarial, one.perceptual) for one in recipes] == [(0, 0), (0.001, 0), (0.001, 0.01)]
    assert len({dataclasses.replace(one, adversarial=0, perceptual=0) for one in recipes}) == 1
    assert (recipes[0].frames, recipes[0].sampling_rate, recipes[0].sampling_stop) == (10, 1 / 30, 30)


def test_scores_of_the_truth_of_blur_and_of_other_pictures(script: ModuleType) -> None:
    torch.manual_seed(3)
    judge = Discriminator(96, 128, 3, 4)
    frames = np.random.default_rng(3).integers(0, 256, (10, 96, 128, 3), np.uint8)
    truth = [*frames[script.GIVEN :]]
    blurred = [cv2.GaussianBlur(frame, (0, 0), 2) for frame in truth]

    def lpips(truth: Image, predictions: Sequence[Image]) -> list[float]:
        return [float(np.abs(truth.astype(float) - one).mean()) for one in predictions]

    exact, soft, other = (script.score([guess], [frames], judge, lpips) for guess in (truth, blurred, truth[::-1]))
    assert exact[1:] == pytest.approx((1, 1, 0, 0, 0))
    assert math.isnan(script.score([truth], [frames], judge)[3])
    dark = np.concatenate([frames[:-1], np.zeros_like(frames[:1])])  # a black frame has no sharpness to divide by
    assert script.score([truth], [dark], judge)[2] == pytest.approx(6 / 5, abs=0.05)
    assert exact[0] > 60
    assert soft[2] < 0.2
    assert other[2] == pytest.approx(1, abs=0.1)
    assert min(other[3:] + soft[3:]) > 0


@pytest.mark.slow
def test_a_run_prints_its_table_and_draws_a_moment(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = [write_clips(tmp_path / name, seed=seed) for name, seed in (("train", 0), ("val", 5))]
    monkeypatch.setattr(script.os, "nice", lambda more: more)
    options = ["--updates", "2", "--batch", "1", "--moments", "1"]
    where = ["--out", str(tmp_path / "runs"), "--picture", str(tmp_path / "moment.png")]
    monkeypatch.setattr(sys, "argv", ["stip_losses.py", *map(str, folders), *where, *options])
    script.main()
    rows = [line.split(" | ")[0] for line in capfd.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["| copy-last", *(f"| {loss}" for loss in script.LOSSES)]
    drawn = cv2.imread(str(tmp_path / "moment.png"))
    assert drawn is not None
    assert drawn.shape[1] >= 6 * 2 * 128
