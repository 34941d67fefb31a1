"""All checks that need a GPU, in one run: ``python benchmarks/gpu_check.py [--out FOLDER] [--minutes M]``.

1. The GPU, its driver and the libraries here. Rows of missing ones read "not run".
2. Every Triton kernel: its error against its reference in float64, and its bandwidth compared with that of a copy.
3. Every network on every engine: its error against PyTorch's float32 on the CPU, over a rollout.
4. The latency of a live step by engine and network, with and without our kernels. Beside it are eager and compiled
   PyTorch, the published way (the window recomputed for each frame, eager), and the roofline. The roofline is the
   larger of bytes over the copy's bandwidth and operations over a matrix product's rate, both measured in this run.
5. The allocations of a steady stream, and how often it waits for the GPU.

It prints a table, and writes it to ``results/gpu-<device>.txt``, with the figures as JSON beside it. If a result is
wrong, the exit code is 1. Without a GPU it says so and claims nothing. ``--dry-run`` runs the same code on the CPU, as
far as possible; it prints no latency and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import _gpu_kernels as kernels
import _gpu_steps as steps
import torch
from _machine import header

from framecast.errors import EngineError
from framecast.runtime.engines.tensorrt.library import gpu, library

RESULTS = Path(__file__).parent / "results"
CONFIGS = (
    "stip-edge",
    "stip-ucf",
    "stip-4k",
    "stau-mnist",
    "mau-mnist",
    "astm-mnist",
    "tau-mnist",
    "stau-kitti",
)
DRY_CONFIGS = ("stip-edge", "mau-mnist")


def main() -> None:
    """Run the sections one after the other. Each is written as soon as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help=f"configurations (default: {' '.join(CONFIGS)})")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the table and the figures")
    parser.add_argument("--minutes", type=float, default=8.0, help="start no new row after this time (default: 8)")
    parser.add_argument("--dry-run", action="store_true", help="run the same code on the CPU, without a GPU")
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.dry_run:
        print("torch finds no CUDA device: nothing was checked and nothing is claimed (--dry-run tries the code)")
        return
    device = "cpu" if args.dry_run else "cuda"
    report = Report(args.out, device, time.monotonic() + 60 * args.minutes)
    report.say(header())
    report.say(
        f"device    {report.device}"
        + (" (DRY RUN: this shows that the code runs, not what a GPU does)" if device == "cpu" else "")
    )
    for name, state in parts().items():
        report.say(f"{name:9s} {state}")
        report.figures[name] = state
    configs = args.configs or (DRY_CONFIGS if args.dry_run else CONFIGS)
    ceilings = None if args.dry_run else steps.ceilings()
    if ceilings:
        report.figures["ceilings"] = ceilings
        report.say("ceilings  " + ", ".join(f"{name} {value:.0f}" for name, value in ceilings.items()))
    report.section("kernels", lambda: kernels.check(device, report.row, report.late))
    report.section("engines", lambda: steps.check(configs, device, report.row, report.late))
    report.section("latency", lambda: steps.latency(configs, device, ceilings, report.row, report.late))
    report.section("steady state", lambda: steps.steady(configs, device, report.row, report.late))
    sys.exit(1 if report.failures else 0)


def parts() -> dict[str, str]:
    """Return the libraries' versions, or why one is not available."""
    found = {"torch": f"{torch.__version__} (CUDA {torch.version.cuda})"}
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError as error:
        found["triton"] = f"not here ({error})"
    import onnxruntime

    found["ort"] = f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"
    found["driver"] = _state(lambda: f"{gpu().name}, CUDA {gpu().driver}")
    for name, module in (("tensorrt", "tensorrt"), ("rtx", "tensorrt_rtx")):
        found[name] = _state(partial(_version, module))
    return found


def _version(module: str) -> str:
    return library(module).version


def _state(look: Callable[[], str]) -> str:
    try:
        return look()
    except EngineError as error:
        return f"not here ({error})"


class Report:
    """The results so far, on the screen and on disk.

    Attributes:
        device: name of the GPU.
        figures: all figures for the JSON file.
        failures: number of rows with a wrong result.
    """

    def __init__(self, folder: Path, device: str, deadline: float) -> None:
        self.device = torch.cuda.get_device_name() if device == "cuda" else "CPU"
        stem = "gpu-" + re.sub(r"[^a-z0-9]+", "-", self.device.lower()).strip("-")
        self._path = folder / f"{stem}.txt" if device == "cuda" else None
        self._deadline = deadline
        self._text: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self.figures: dict[str, Any] = {"device": self.device}
        self.failures = 0

    def say(self, text: str) -> None:
        """Print a text, and write everything so far to disk."""
        print(text, flush=True)
        self._text.append(text)
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("\n".join(self._text) + "\n")
            self._path.with_suffix(".json").write_text(json.dumps(self.figures, indent=1, default=str) + "\n")

    def row(self, text: str, wrong: bool = False, **figures: Any) -> None:
        """Print a row of a table; ``wrong`` marks a wrong result."""
        self.failures += wrong
        self._rows.append({**figures, **({"wrong": True} if wrong else {})})
        self.say(text + ("   WRONG" if wrong else ""))

    def late(self) -> bool:
        """Return whether the time is over, so that nothing new may start."""
        return time.monotonic() > self._deadline

    def section(self, name: str, run: Callable[[], None]) -> None:
        """Run a section. If it fails, report that and return, so that the next section still runs."""
        self.say(f"\n{name}")
        self._rows = self.figures.setdefault(name, [])
        try:
            run()
        except Exception as error:  # noqa: BLE001
            self.row(f"{name} failed: {type(error).__name__}: {str(error).strip()[:300]}", wrong=True)
        if self.late():
            self.say(f"{name}: out of time; the missing rows were not run")


if __name__ == "__main__":
    main()
