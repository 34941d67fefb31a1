"""Every configuration at its full size, exported and held against PyTorch: ``python benchmarks/parity.py [CONFIG…]``.

Random weights, 20 steps with the state carried, on noise and on the demo clip. Ends with exit code 1 if an error is
above what is allowed. ``make test-full`` runs it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from _machine import header

from framecast.errors import ExportError
from framecast.export.command import export_config
from framecast.models.configs import CONFIGS

STEPS = 20


def main() -> None:
    """Print a row for each configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=list(CONFIGS), metavar="CONFIG")
    args = parser.parse_args()
    print(header())
    print(f"\nONNX Runtime against PyTorch, {STEPS} steps: largest absolute error, in units of the value range")
    print(f"{'config':12s} {'on noise':>9} {'on demo':>9} {'allowed':>9} {'artifact':>10}", flush=True)
    failures = 0
    for config in args.configs:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "model.onnx"
            try:
                found = export_config(config, output, None, frames="demo", steps=STEPS, seed=0)
            except ExportError as error:
                failures += 1
                print(f"{config:12s} {error}", flush=True)
                continue
            real = f"{found['real'].max:.1e}" if "real" in found else "–"
            size = f"{output.stat().st_size / 1e6:.1f} MB"
            noise, allowed = found["random"].max, found["random"].allowed
            print(f"{config:12s} {noise:9.1e} {real:>9} {allowed:9.0e} {size:>10}", flush=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
