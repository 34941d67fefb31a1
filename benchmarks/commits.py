"""Compares the speed of two checkouts of framecast, alternating on one machine.

``python benchmarks/commits.py OTHER [--rounds N]`` (OTHER: a checkout of another commit, such as a ``git worktree``).
Each checkout has its own process, which is idle while the other one works. A round runs ``FRAMES`` frames in one
checkout, then in the other. Every second round reverses the order. The ratio is this checkout's median divided by
the other's, round by round, with a 95 % interval by bootstrap over rounds. CPU time is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from _machine import header, script

from framecast.bench.summary import ratio

HERE = Path(__file__).resolve().parents[1]
FRAMES, SKIP = 40, 10  # frames per round; first ones to discard, because the other process filled the caches
CASES = ("predictor.step edge", "predictor.step stip-edge", "result edge", "result stip-edge")
# This code also runs in old checkouts, so it uses little of the API. In old checkouts, a step returns its picture.
WORKER = """
import json, sys, time
import framecast
from framecast.camera import Frame, Source, open_source
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import load

class Memory(Source):
    live, fps, name = False, 25.0, "memory"
    def __init__(self, images, count):
        self.frames = (Frame(images[i % len(images)], i / 25, i) for i in range(count))
    def read(self):
        return next(self.frames, None)
    def close(self):
        pass

with open_source("demo") as source:
    images = [frame.image for frame in source]
predictors = {model: load(model, threads=2) for model in ("edge", "stip-edge")}

def steps(predictor, count):
    predictor.reset()
    for i in range(count):
        if predictor.step(images[i % len(images)]) is None:  # rollout renders the picture
            predictor.rollout(1)
        yield True

print("ready", flush=True)
for line in sys.stdin:
    what, model, count = json.loads(line)
    predictor = predictors[model]
    running = iter(Pipeline(Memory(images, count), predictor)) if what == "result" else steps(predictor, count)
    wall, cpu = [], []
    while True:
        begun, used = time.perf_counter(), time.process_time()
        if next(running, None) is None:
            break
        wall.append(1e3 * (time.perf_counter() - begun))
        cpu.append(1e3 * (time.process_time() - used))
    print(json.dumps([wall, cpu]), flush=True)
"""


class Checkout:
    """A process that measures one checkout."""

    def __init__(self, path: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(path / "src")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._ask(None) == "ready\n", f"cannot measure {path}: its process does not start"

    def measure(self, case: str) -> tuple[list[float], list[float]]:
        """Return the milliseconds of wall time and of CPU time of each counted frame."""
        what, model = case.split()
        wall, cpu = json.loads(self._ask([what, model, FRAMES]))
        return wall[SKIP:], cpu[SKIP:]

    def _ask(self, request: Any) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if request is not None:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._process.stdout.readline()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="a checkout of another commit")
    parser.add_argument("--rounds", type=int, default=20, help="number of rounds (default: 20)")
    args = parser.parse_args()
    commit = subprocess.run(["git", "-C", args.other, "rev-parse", "--short", "HEAD"], text=True, capture_output=True)
    print(header())
    print(f"other: {commit.stdout.strip()}; {args.rounds} rounds of {FRAMES - SKIP} counted frames\n")
    checkouts = {"this": Checkout(HERE), "other": Checkout(args.other.resolve())}
    wall: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    cpu: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for number in range(args.rounds):
        for case in CASES:
            for name in list(checkouts) if number % 2 == 0 else reversed(checkouts):
                times = checkouts[name].measure(case)
                wall[case, name].append(times[0])
                cpu[case, name].append(times[1])
    for checkout in checkouts.values():
        checkout.close()
    print(f"{'ms a frame (median)':26s} {'this':>7} {'other':>7}  {'ratio':>6} {'95 %':>13}  {'ratio of CPU time':>20}")
    for case in CASES:
        found, used = (ratio(times[case, "this"], times[case, "other"]) for times in (wall, cpu))
        medians = [float(np.median(np.concatenate(wall[case, name]))) for name in checkouts]
        interval = f"{found.low:.3f}-{found.high:.3f}"
        cpus = f"{used.median:.3f} {used.low:.3f}-{used.high:.3f}"
        print(f"{case:26s} {medians[0]:7.2f} {medians[1]:7.2f}  {found.median:6.3f} {interval:>13}  {cpus:>20}")


if __name__ == "__main__":
    script(main)
