"""Exports every configuration at full size and compares it with PyTorch: ``python benchmarks/parity.py [CONFIG…]``.

It takes 20 steps with random weights and carried state, on noise and on the demo clip. For comparison, it shows how far
PyTorch's float32 is from its float64 on the same noise. The exit code is 1 if an error is larger than allowed.
``make test-full`` runs it.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from _machine import header, script

from framecast.errors import ExportError
from framecast.export.exporter import export_config
from framecast.export.parity import random_frames
from framecast.models.configs import CONFIGS, build

STEPS = 20
SEED = 0


def main() -> None:
    """Print a row for each configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=list(CONFIGS), metavar="CONFIG")
    args = parser.parse_args()
    print(header())
    print(f"\nONNX Runtime against PyTorch, {STEPS} steps: largest absolute error, in units of the value range")
    print(f"{'config':12s} {'on noise':>9} {'on demo':>9} {'allowed':>9} {'rounding':>9} {'artifact':>10}", flush=True)
    failures = 0
    for config in args.configs:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "model.onnx"
            try:
                found = export_config(config, output, None, source="demo", frames=STEPS, seed=SEED)
            except ExportError as error:
                failures += 1
                print(f"{config:12s} {error}", flush=True)
                continue
            real = f"{found['real'].max:.1e}" if "real" in found else "–"
            size = f"{output.stat().st_size / 1e6:.1f} MB"
            noise, allowed = found["random"].max, found["random"].allowed
            row = f"{config:12s} {noise:9.1e} {real:>9} {allowed:9.0e} {rounding(config):9.1e} {size:>10}"
            print(row, flush=True)
    sys.exit(failures > 0)


@torch.inference_mode()
def rounding(config: str) -> float:
    """Return the largest difference between PyTorch in float32 and in float64, with the same weights and noise."""
    torch.manual_seed(SEED)
    model = build(config).eval()
    exact = copy.deepcopy(model).double()
    state, exact_state = model.init_state(), exact.init_state()
    worst = 0.0
    for frame in random_frames(model.frame_shape, STEPS, SEED):
        prediction, state = model.step(torch.from_numpy(frame), state)
        wanted, exact_state = exact.step(torch.from_numpy(frame).double(), exact_state)
        worst = float(np.max([worst, float((prediction - wanted).abs().max())]))
    return worst


if __name__ == "__main__":
    script(main)
