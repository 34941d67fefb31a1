"""All checks that need a GPU, in one run: ``python benchmarks/gpu_check.py [--out FOLDER] [--minutes M]``.

The sections run in this order and do not depend on each other. Each has a time slice, shown here for ``--minutes 9``.
When its time is over, a section is cut off, and the report lists the rows that it did not run.

 15 s  machine     the GPU, its driver, the libraries, and its ceilings: a large copy, large matrix products
 60 s  kernels     every Triton kernel: its error against its reference in float64
 90 s  stip-ucf    a step in every variant: error over 20 steps, device time of a replay, live latency
 60 s  stip-4k     the same over 3 steps
 30 s  window      the published method: recompute the window for each frame, eagerly
 60 s  bandwidth   gates and EIFAG against a copy of the same size, at three sizes; then other block sizes and warps
 60 s  edge        the default model at 640×480 and 1280×720
 60 s  driver      the tensorrt engine's use of pycuda and the driver, with one of our kernels as its engine
 30 s  races       a known race, which torch's sanitizer must find; then the sanitizer watches a stream of two rows
 60 s  steady      allocations, waits and synchronous copies per frame
 30 s  replay      the kernels of one replay sorted by time, and the number of nodes
 rest  others      if time is left: other networks and engines, and whole-network compilation

A result above its bound reads WRONG, and the exit code is then 1. It is also 1 if a section fails or dies, or if no row
was measured. A figure that misses its target reads "missed" and does not change the exit code. The table is written to
``results/gpu-<device>.txt`` as rows arrive, with the figures as JSON beside it. Without a GPU, the script says so and
measures nothing. ``--dry-run`` runs the same code on the CPU, with tiny networks, and prints no latency. Two concurrent
runs need different folders.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import _gpu_driver as driver
import _gpu_kernels as kernels
import _gpu_others as others
import _gpu_steps as steps
import _gpu_stream as stream
import torch
from _gpu_process import in_child
from _gpu_report import Report, Unusable
from _gpu_run import Found, Row, Section, serve
from _gpu_variants import BEST, CHECKED_SIZE, CONFIGS, DRY_CONFIGS, DRY_SIZES, SIZES, TARGETS, VARIANTS, Variant
from _machine import header, script

from framecast.errors import EngineError
from framecast.models.configs import CONFIGS as ENTRIES
from framecast.runtime.engines.tensorrt.library import gpu, library

RESULTS = Path(__file__).parent / "results"
DRY = Path(__file__).parents[1] / "out"  # git ignores it


def main() -> None:
    """Run the sections one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help=f"other networks (default: {' '.join(CONFIGS)})")
    parser.add_argument("--out", type=Path, help="folder for the table and the figures (default: benchmarks/results)")
    parser.add_argument("--minutes", type=float, default=8.0, help="time limit for all sections together (default: 8)")
    parser.add_argument("--only", nargs="+", metavar="SECTION", help="run only these sections (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="run the same code on the CPU, without a GPU")
    parser.add_argument("--fresh", action="store_true", help="run each section in a new interpreter (slower)")
    for name, kind in (("section", str), ("pipe", int), ("until", float), ("done", json.loads)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)  # for a new interpreter
    args = parser.parse_args()
    try:
        run(args)
    except (Unusable, TimeoutError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def run(args: argparse.Namespace) -> None:
    """Run the sections that the arguments select."""
    device = "cpu" if args.dry_run else "cuda"
    ruined = (lambda: False) if args.dry_run else _ruined
    configs = args.configs or (DRY_CONFIGS if args.dry_run else CONFIGS)
    if args.section:
        [chosen] = [part for part in sections(device, configs) if part.name == args.section]
        sys.exit(serve(chosen, args.until, args.done, args.pipe, ruined))
    every, only, fresh = sections(device, configs), args.only or (), args.fresh
    for kind, given, known in (
        ("section", only, [part.name for part in every]),
        ("network", args.configs, list(ENTRIES)),
    ):
        if strange := [name for name in given if name not in known]:
            sys.exit(f"error: no {kind} {', '.join(strange)}: choose from {', '.join(known)}")
    if not args.dry_run and not _cuda():
        if not torch.cuda.is_available():
            print("torch finds no CUDA device: nothing was checked (--dry-run runs the code on the CPU)")
            return
        fresh = True  # CUDA works here, but not in a forked process
    parts = [part for part in every if not only or part.name in only]
    report = Report(args.out or (DRY if args.dry_run else RESULTS), 60 * args.minutes)
    report.run(parts, ruined, [sys.executable, *sys.argv] if fresh else ())
    rooflines(report)
    report.compare(TARGETS)
    sys.exit(report.code)


def _cuda() -> bool:
    try:
        return in_child(torch.cuda.is_available)
    except TimeoutError as error:
        raise TimeoutError(f"cannot ask the driver for a GPU: {error}") from error


def sections(device: str, configs: Sequence[str]) -> list[Section]:
    """Return all sections, the most important first."""
    sizes = SIZES if device == "cuda" else DRY_SIZES
    variants = (BEST, *(variant for variant in VARIANTS if variant.name == "eager" and device == "cuda"))
    return [
        Section("machine", 15, "", lambda: machine(device)),
        Section("kernels", 60, kernels.CHECKED, lambda: kernels.correctness(device)),
        Section("stip-ucf", 90, steps.COLUMNS, lambda: steps.steps("stip-ucf", device)),
        Section("stip-4k", 60, steps.COLUMNS, lambda: steps.steps("stip-4k", device)),
        Section("window", 30, "eager window, ms", lambda: [steps.window("stip-ucf", device)]),
        Section("bandwidth", 60, kernels.TIMED_COLUMNS, lambda: kernels.bandwidth(device)),
        Section("edge", 60, steps.COLUMNS, lambda: edge(variants, dict.fromkeys((CHECKED_SIZE, *sizes)), device)),
        Section("driver", 60, "", lambda: driver.rows(driver.real)),
        Section("races", 30, "", lambda: stream.races(device)),
        Section("steady", 60, stream.STEADY, lambda: stream.steady(sizes[0], configs[:2], device)),
        Section("replay", 30, "", lambda: stream.replay(sizes[0], device)),
        Section("others", 0, steps.COLUMNS, lambda: [*others.rows(configs, device), *kernels.compiled(device)]),
    ]


def edge(variants: Sequence[Variant], sizes: Iterable[tuple[int, int]], device: str) -> list[Row]:
    """Return the default model's rows."""
    return [steps.row("edge", variant, device, size) for size in sizes for variant in variants]


def machine(device: str) -> list[Row]:
    """Return the rows that describe the machine."""

    def about() -> Found:
        if device == "cpu":
            note = "DRY RUN: it tests the code and measures nothing"
            return Found(f"CPU ({note})\n{header()}", figures={"device": "dry run"})
        properties = torch.cuda.get_device_properties(0)
        figures: dict[str, Any] = {"device": properties.name, "sms": properties.multi_processor_count}
        figures |= {"l2_bytes": properties.L2_cache_size, "memory_bytes": properties.total_memory}
        size = f"{figures['sms']} SMs, {figures['l2_bytes'] / 1e6:.0f} MB of L2"
        return Found(f"{properties.name}, {size}\n{header()}", figures=figures)

    def ceilings() -> Found:
        if device == "cpu":
            return Found(kernels.RAN)
        found = kernels.ceilings()
        rates = ", ".join(f"{name} {value:.0f} TFLOP/s" for name, value in found.items() if name != "copy")
        return Found(f"copy {found['copy']:.0f} GB/s, {rates}", figures={"ceilings": found})

    rows = [Row("device", about)]
    rows += [Row(name, partial(_part, look)) for name, look in libraries().items()]
    return [*rows, Row("ceilings", ceilings)]


def rooflines(report: Report) -> None:
    """Print the shortest time that each network's step could take on this GPU, and the measured time.

    The shortest time is the larger of two: the bytes of weights and state at the bandwidth of a copy, and the
    multiplications at the rate of a large matrix product. Both rates were measured in this run.
    """
    ceilings: dict[str, float] = next((r["ceilings"] for r in report.rows("machine") if "ceilings" in r), {})
    timed = [row for name in ("stip-ucf", "stip-4k", "others") for row in report.rows(name) if "replay" in row]
    report.say("\nroofline" + ("" if ceilings and timed else ": no ceilings or no steps were measured"))
    for row in timed if ceilings else []:
        entry, precision = ENTRIES[row["row"].split()[0]], row["precision"]
        moved = (2 if precision == "fp16" else 4) * entry.parameters + 2 * entry.state_bytes
        by_bytes, by_products = moved / ceilings["copy"] / 1e6, 2 * entry.gmacs / ceilings[precision]  # ms each
        row["roofline"] = max(by_bytes, by_products)
        limit = "bytes" if by_bytes > by_products else "products"
        report.say(f"{row['row']}  {row['replay']:.3f} ms of {row['roofline']:.3f} ms, by {limit}")


def _part(look: Callable[[], str]) -> Found:
    try:
        found = look()
    except (EngineError, ImportError) as error:
        found = f"not available ({error})"
    return Found(found, figures={"version": found})


def libraries() -> dict[str, Callable[[], str]]:
    """Return a function per library that finds its version."""

    def triton() -> str:
        import triton

        return str(triton.__version__)

    def onnxruntime() -> str:
        import onnxruntime

        return f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"

    return {
        "torch": lambda: f"{torch.__version__} (CUDA {torch.version.cuda})",
        "triton": triton,
        "onnxruntime": onnxruntime,
        "driver": lambda: f"{gpu().name}, CUDA {gpu().driver}",
        "tensorrt": lambda: library("tensorrt").version,
        "tensorrt_rtx": lambda: library("tensorrt_rtx").version,
    }


def _ruined() -> bool:
    """Return whether this process's CUDA context is unusable, which is permanent."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


if __name__ == "__main__":
    script(main)
