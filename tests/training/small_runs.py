"""Small runs, and a full disk, to test what training keeps. The fixture ``make`` makes a run's settings."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from framecast.training.settings import Settings
from framecast.training.train import Progress, Training

Make = Callable[..., Settings]

EDGE = {"height": 48, "width": 64, "hidden": 8, "layers": 1}
STIP = {"height": 32, "width": 32, "hidden": 8, "layers": 1, "stages": 1}
TAU = {"frames": 3, "hidden_spatial": 4, "hidden_temporal": 8, "encoder_layers": 2, "translator_layers": 2}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    # configuration, its options, changes to its recipe, data
    "streams": ("stip-edge", EDGE, {"batch": 2, "lr": 1e-2}, "clips"),
    "adversarial": ("stip-ucf", STIP, {"ema": 0.5}, "clips"),
    "sampled": ("mau-mnist", {"hidden": 4, "layers": 1}, {"batch": 2}, "digits"),
    "clips": ("tau-mnist", {**TAU, "drop_path": 0.5}, {"batch": 2}, "digits"),
}


def nothing(_: Progress) -> None:
    """Ignore the progress."""


def train(settings: Settings, stop_after: int | None = None) -> Training:
    training = Training(settings, print)
    finished = training.go(nothing, lambda: training.trainer.updates == stop_after)
    assert finished == (stop_after is None)
    return training


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit the size of files, so that writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as in a new Python; Triton's compiler handles it once it has run
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
