"""Cost of a frame by number of past frames: a step, compared with recomputing the window as published.

``python benchmarks/flat.py [MODEL…] [--past 1 2 4 8 16 32]``: exports networks with random weights (as fast as
trained ones) and runs them in ONNX Runtime. "Step" is one step after the given number of past frames. "Window" starts
from a zero state each time. For the recurrent networks, it runs the same graph over those frames from a reset. For TAU,
it is the published form as torch exports it, which always encodes T frames and decodes T.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _machine import header, script
from torch import nn

from framecast.export.onnx import describe, quiet, to_onnx
from framecast.export.parity import random_frames
from framecast.graph.artifact import save
from framecast.models.configs import build
from framecast.models.tau import TAU
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import open_engine
from framecast.runtime.stepper import Stepper

MODELS = ("stip-ucf", "stau-mnist", "mau-mnist", "astm-mnist", "tau-mnist")
PAST = (1, 2, 4, 8, 16, 32)
SECONDS = 5.0  # time limit per model and number of past frames


def main() -> None:
    """Print two lines for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--past", nargs="+", type=int, default=PAST, help="numbers of past frames")
    args = parser.parse_args()
    print(header())
    print("\nms a frame (median), by past frames")
    print(f"{'model':12s} {'':8s}" + "".join(f"{n:>9d}" for n in args.past), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            measure(name, args.past, Path(folder))


def measure(name: str, past: list[int], folder: Path) -> None:
    """Print a model's lines. Step and window alternate, so that slow phases of the machine affect both."""
    torch.manual_seed(0)
    model = build(name).eval()
    save(to_onnx(model, describe(model, name)), folder / "step.onnx")
    medians: dict[str, list[float]] = {"step": [], "window": []}
    with open_engine(folder / "step.onnx") as engine:
        frames = list(random_frames(engine.manifest.frame, max(past) + 1, seed=0))
        clip = clip_wise(model, folder / "clip.onnx") if isinstance(model, TAU) else None
        stepper = Stepper(engine)
        stepped(stepper, frames)  # binds the buffers and touches their memory
        for count in past:
            times: dict[str, list[float]] = {"step": [], "window": []}
            begun = time.perf_counter()
            while len(times["step"]) < 3 or (len(times["step"]) < 15 and time.perf_counter() - begun < SECONDS):
                whole, last = stepped(stepper, frames[: count + 1])
                times["step"].append(last)
                times["window"].append(clip() if clip else whole)
            for line, values in times.items():
                medians[line].append(1e3 * float(np.median(values)))
    for line, values in medians.items():
        label = name if line == "step" else ""
        print(f"{label:12s} {line:8s}" + "".join(f"{value:9.2f}" for value in values), flush=True)


def stepped(stepper: Stepper, frames: list[Tensor]) -> tuple[float, float]:
    """Return the seconds of all steps from a reset, and of the last one."""
    stepper.reset()
    begun = time.perf_counter()
    for frame in frames:
        last = time.perf_counter()
        stepper.step(frame)
    ended = time.perf_counter()
    return ended - begun, ended - last


def clip_wise(model: TAU, path: Path) -> Callable[[], float]:
    """Export TAU as published (T frames to T frames); return a function that runs it once and returns the seconds."""

    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = type(model)(dataclasses.replace(model.config, outputs=model.config.frames))
            self.model.load_state_dict(model.state_dict())

        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            embeddings, skips = self.model.encode(clip[0])
            return self.model.predict(list(embeddings.split(1)), list(skips.split(1)))

    clip = np.random.default_rng(0).random((1, model.config.frames, *model.frame_shape), np.float32)
    with quiet():
        given = (torch.from_numpy(clip),)
        torch.onnx.export(Clip().eval(), given, path, input_names=["clip"], dynamo=True, verbose=False)
    import onnxruntime  # after framecast, which turns its telemetry off

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as in the engine
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run() -> float:
        begun = time.perf_counter()
        session.run(None, {"clip": clip})
        return time.perf_counter() - begun

    return run


if __name__ == "__main__":
    script(main)
