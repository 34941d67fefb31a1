"""Training's parts: streams are what a camera gives, and the score is the live one."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import framecast
from framecast.export.command import load_trained
from framecast.export.onnx import describe, save, to_onnx
from framecast.models.configs import build
from framecast.training import train
from framecast.training.data import stream
from framecast.training.evaluate import evaluate_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips of a sliding pattern."""
    scene = cv2.resize(np.random.default_rng(3).integers(0, 256, (12, 30, 3), dtype=np.uint8), (480, 192))
    (tmp_path / "clips").mkdir()
    for name, speed in (("a", 2), ("b", 3)):
        fourcc = cv2.VideoWriter.fourcc(*"MJPG")
        writer = cv2.VideoWriter(str(tmp_path / "clips" / f"{name}.avi"), fourcc, 25, (256, 192))
        for i in range(30):
            writer.write(np.ascontiguousarray(scene[:, speed * i : speed * i + 256]))
        writer.release()
    return tmp_path / "clips"


def test_streams_are_consecutive_and_repeatable() -> None:
    clip = np.stack([np.full((64, 80, 3), i, np.uint8) for i in range(120)])
    one, other = (stream([clip], (40, 32), np.random.default_rng(7)) for _ in range(2))
    starts = 0
    for _ in range(300):
        (frame, begins), (again, _) = next(one), next(other)
        assert frame.shape == (32, 40, 3)
        assert frame.dtype == np.uint8
        assert np.array_equal(frame, again)
        starts += begins
    assert starts > 1


def test_score_equals_that_of_a_live_run(folder: Path) -> None:
    model = build("stip-edge").eval()  # untrained: the motion prior
    quality = evaluate_folder(model, folder)
    assert quality.prediction > quality.copy_last + 3
    artifact = folder / "untrained.onnx"
    save(to_onnx(model, describe(model, "stip-edge")), artifact)
    with framecast.open(folder / "a.avi", model=artifact) as live:
        list(live)
        report = live.report()["psnr_db"]
    assert (report["prediction"], report["copy_last"]) == pytest.approx(quality.clips["a"], abs=0.02)


def test_training_runs_and_its_weights_can_be_exported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = ["--updates", "3", "--batch", "1", "--unroll", "2", "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr(sys, "argv", ["train", str(folder), "--out", str(out), "--val", str(folder), *options])
    train.main()
    assert '"updates"' in capsys.readouterr().out
    model, manifest = load_trained("stip-edge", out / "weights.safetensors")
    assert manifest.quality is not None
    assert "2 clips" in manifest.weights
    assert all(p.isfinite().all() for p in model.parameters())


def test_loss_ignores_what_cannot_be_foreseen() -> None:
    model = build("stip-edge").eval()
    frames = torch.rand(3, 1, *model.frame_shape)
    starts = torch.tensor([[True], [True], [True]])
    loss, state = train.loss_over(model, frames, starts, model.init_state(1))
    assert loss == 0
    assert state["started"].item() == 1
