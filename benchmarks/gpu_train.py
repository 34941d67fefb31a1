"""Trains Moving MNIST within minutes of GPU time: ``python benchmarks/gpu_train.py DIGITS --minutes M``.

It runs ``framecast train`` for one network after the other, with other settings: bf16, a checkpoint and a score every
minute, frames rendered on the GPU, and a fixed number of updates that sets the learning rate schedule across runs. A
run stops when its minutes are over. The next run with the same arguments resumes from the checkpoint: weights,
optimizer, random generators and the position in the data.

DIGITS is the folder of MNIST's files. The learning curves go to ``results/training/<config>-gpu.csv``, the figures to
``results/training/gpu-train.txt``. ``--parts FOLDER`` also writes the weights as float16 in parts of 15 MiB, for
machines from which only small files can be copied. ``gpu_train.py --join FOLDER`` joins them to one float32 file.

This script has never run on a GPU, so this repository has no figures from it.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from _machine import header, script
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from safetensors.torch import save_file

from framecast.models.configs import parse
from framecast.training.recipes import choose
from framecast.training.settings import Settings
from framecast.training.train import Progress, Training

RESULTS = Path(__file__).parent / "results" / "training"
RUNS = Path(__file__).parents[1] / "out" / "gpu-train"
PART = 15 << 20  # bytes
LAST = 0.15  # share of the minutes to reserve for the last score and its files, until one has been timed


@dataclass(frozen=True)
class Plan:
    """How one network is trained.

    Attributes:
        config: the network.
        updates: number of updates of all runs together.
        share: share of the remaining minutes, unless it is the last network.
    """

    config: str
    updates: int
    share: float


# At most a tenth of the published lengths, to fit into minutes.
PLANS = (Plan("tau-mnist", 20_000, 0.6), Plan("mau-mnist", 8_000, 1.0))


def main() -> None:
    """Train one network after the other until the minutes are over."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path, nargs="?", help="folder of train- and t10k-images-idx3-ubyte(.gz)")
    parser.add_argument("--minutes", type=float, default=5.0, help="wall time of this run (default: 5)")
    names = [plan.config for plan in PLANS]
    parser.add_argument("--config", nargs="*", choices=names, default=names, help="networks (default: all)")
    parser.add_argument("--updates", type=int, help="updates of all runs together (default: the plan's)")
    parser.add_argument("--batch", type=int, help="sequences per update (default: the recipe's, 16)")
    parser.add_argument("--precision", default="bf16", help="fp32, bf16 or fp16 (default: bf16)")
    parser.add_argument("--every", type=float, default=1.0, help="minutes between checkpoints (default: 1)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", help="set an option of the network"
    )
    parser.add_argument("--out", type=Path, default=RUNS, help="folder of the runs (default: out/gpu-train)")
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        help="folder of the curves and figures (default: benchmarks/results/training)",
    )
    parser.add_argument("--parts", type=Path, metavar="FOLDER", help="also write the weights in small parts")
    parser.add_argument("--join", type=Path, metavar="FOLDER", help="join these parts, and do nothing else")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to test the code (default: cuda)")
    args = parser.parse_args()
    if args.join:
        if not args.join.is_dir():
            parser.error(f"no folder {args.join}: give the folder of --parts")
        join(args.join)
        return
    if args.digits is None:
        parser.error("give the folder of MNIST's files")
    if not list(args.digits.glob("train-images-idx3-ubyte*")):
        parser.error(f"no train-images-idx3-ubyte(.gz) in {args.digits}: give the folder of MNIST's files")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device (--device cpu tests the code)")
    if not args.minutes > 0:
        parser.error(f"--minutes must be above 0, not {args.minutes:g}")
    run(args, begun)


def run(args: argparse.Namespace, begun: float) -> None:
    """Train the networks; write curves and figures after each."""
    if args.device == "cpu":
        print("on a CPU: this only tests the code; the figures are not a GPU's")
    plans = [plan for plan in PLANS if plan.config in args.config]
    figures = []
    for plan in plans:
        left = args.minutes - (time.monotonic() - begun) / 60
        if left <= 0:
            print(f"{plan.config}: not run: out of time")
            continue
        figures.append(train(plan, args, left if plan is plans[-1] else plan.share * left))
        write(figures, args.results)


def train(plan: Plan, args: argparse.Namespace, minutes: float) -> dict[str, Any]:
    """Train one network for ``minutes`` from its last checkpoint, and return its figures."""
    began, out = time.monotonic(), args.out / plan.config
    training = Training(settings(plan, args), lambda line: print(f"{plan.config}: {line}", flush=True))
    resumed_at, minutes_before = training.trainer.updates, training.minutes
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.backends.cudnn.benchmark = True  # every update has the same shapes
    scoring, seen, losses = LAST * 60 * minutes, [time.monotonic()], [0.0]

    def show(at: Progress) -> None:
        nonlocal scoring
        now = time.monotonic()
        if not at.scoring:
            seen.append(now)
            losses.append(at.loss)
        scoring = max(now - seen[-1] + 1, 0.0) * 1.5 if at.scoring else scoring

    def over() -> bool:
        return time.monotonic() - began > 60 * minutes - scoring

    finished = training.go(show, over, score=True)
    made = training.trainer.updates - resumed_at
    gaps = [after - before for before, after in pairwise(seen[1:])]
    found = {
        "config": plan.config,
        "finished": finished,
        "updates": training.trainer.updates,
        "of": training.recipe.updates,
        "resumed_at": resumed_at,
        "minutes": training.minutes,
        "minutes_here": training.minutes - minutes_before,
        "ms_per_update": 1e3 * statistics.median(gaps) if gaps else None,
        "made_here": made,
        "loss": losses[-1],
        "skipped": training.trainer.skipped,
        "batch": training.recipe.batch,
        "precision": training.recipe.precision,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if args.device == "cuda" else None,
        **last_scores(out / "log.csv"),
    }
    args.results.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(out / "log.csv", args.results / f"{plan.config}-gpu.csv")
    if args.parts:
        split(out / "weights.safetensors", args.parts, plan.config)
    return found


def settings(plan: Plan, args: argparse.Namespace) -> Settings:
    """Return the settings of a run. The run resumes if there is a checkpoint."""
    options = parse(plan.config, args.set)
    name, recipe = choose(
        plan.config, None, updates=args.updates or plan.updates, batch=args.batch, precision=args.precision
    )
    out = args.out / plan.config
    train, test = (find(args.digits, f"{part}-images-idx3-ubyte") for part in ("train", "t10k"))
    return Settings(
        plan.config,
        train,
        out,
        options,
        name,
        recipe,
        args.out / "frames",
        test,
        every=args.every,
        device=args.device,
        licence="Apache-2.0",
        resume=(out / "checkpoint.pt").is_file(),
        command=" ".join(sys.argv),
    )


def find(folder: Path, name: str) -> Path:
    """Return the path of a file of MNIST, gzipped or not."""
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), folder / f"{name}.gz")


def last_scores(log: Path) -> dict[str, float]:
    """Return the scores of a log's last scored row."""
    with log.open(newline="") as file:
        scored = [row for row in csv.DictReader(file) if row.get("val_mse")]
    return {name: float(scored[-1][name]) for name in ("val_psnr", "val_psnr_copy", "val_mse")} if scored else {}


def write(figures: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write the figures of each network's newest run, as a table and as JSON."""
    kept = folder / "gpu-train.json"
    earlier = {found["config"]: found for found in (json.loads(kept.read_text()) if kept.is_file() else [])}
    figures = list((earlier | {found["config"]: found for found in figures}).values())
    lines = [header(), ""]
    lines.append(
        f"{'network':10s} {'updates':>14} {'minutes':>8} {'ms/update':>9} {'dB':>6} {'MSE':>7}  device, precision"
    )
    for found in figures:
        gap = f"{found['ms_per_update']:9.2f}" if found["ms_per_update"] else f"{'–':>9}"
        scores = f"{found['val_psnr']:6.2f} {found['val_mse']:7.2f}" if "val_mse" in found else f"{'–':>6} {'–':>7}"
        count = f"{found['updates']} of {found['of']}"
        where = f"{found['device']}, {found['precision']}, batch {found['batch']}"
        lines.append(f"{found['config']:10s} {count:>14} {found['minutes']:8.2f} {gap} {scores}  {where}")
    text = "\n".join(lines)
    print(text)
    (folder / "gpu-train.txt").write_text(text + "\n")
    kept.write_text(json.dumps(figures, indent=1) + "\n")


def split(weights: Path, folder: Path, config: str) -> None:
    """Write weights as float16, in parts."""
    with safe_open(weights, "pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    data = to_safetensors(halves, {**metadata, "rounded": "float16"})
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(0, len(data), PART):
        (folder / f"{config}.part{index // PART:02d}").write_bytes(data[index : index + PART])


def join(folder: Path) -> None:
    """Join the parts of each network to a file of float32 weights in the same folder."""
    for config in sorted({path.stem for path in folder.glob("*.part*")}):
        whole = folder / f"{config}.half.safetensors"
        whole.write_bytes(b"".join(path.read_bytes() for path in sorted(folder.glob(f"{config}.part*"))))
        with safe_open(whole, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        wide = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
        save_file(wide, folder / f"{config}.safetensors", metadata)
        whole.unlink()
        print(f"wrote {folder / f'{config}.safetensors'}: float32 weights, rounded to float16")


if __name__ == "__main__":
    script(main)
