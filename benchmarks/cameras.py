"""Cameras in one process with one engine, against one process a camera: latency, CPU time and memory.

    python benchmarks/cameras.py > benchmarks/results/cameras.txt

Every camera shows the demo clip at 30 frames a second, and the frames of all are due at the same moments. The two ways
take turns, for each number of cameras. All cameras of both ways are in processes of their own that do the same
(``framecast.bench.cameras.play``), so a process with one camera is both ways' first row. A number is carried if each
camera's p99, from when a frame is due to its prediction, is under the frame interval. Memory is the processes' PSS:
what they share, such as libraries, counts once. It takes three minutes; run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from itertools import islice
from typing import Any

import numpy as np
import psutil
from _machine import header, script

from framecast.bench.cameras import play
from framecast.bench.loop import warm
from framecast.camera import open_source
from framecast.clock import SYSTEM
from framecast.runtime.engines import Engine, open_engine
from framecast.runtime.engines.batched import Shared
from framecast.runtime.engines.engine import State
from framecast.runtime.predictor import Predictor
from framecast.runtime.shipped import find

MODELS = ["edge", "stip-edge"]
COUNTS = [1, 2, 4, 8]
FPS = 30.0
PICTURES = 100
SOON = 0.5  # seconds from when all are ready until the first frames are due


def main() -> None:
    """Measure, and print tables; or be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each run")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of an engine (default: one per core)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        model, count = args.child
        child(model, int(count), args.seconds, args.threads)
        return
    print(header())
    for model in args.models:
        print(f"\n## {model}\n")
        print("| cameras | processes | p50, ms | p99, ms | dropped | cores | memory, MB | carried |", flush=True)
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        memory: dict[int, float] = {}
        for count in args.counts:
            for processes in dict.fromkeys([1, count]):
                found = measured(model, count, processes, args.seconds, args.threads)
                print(row(count, processes, found), flush=True)
                if processes == 1:
                    memory[count], state = sum(one["pss_mb"] for one in found), found[0]["state_mb"]
        few, many = min(memory), max(memory)
        if few < many:
            each = (memory[many] - memory[few]) / (many - few)
            states = f"; the two states of its stepper are {state:.1f} MB of it" if state else ""
            print(f"\nEach further camera in one process takes {each:.1f} MB{states}.", flush=True)


def measured(model: str, count: int, processes: int, seconds: float, threads: int) -> list[dict[str, Any]]:
    """Run so many cameras in so many processes: the figures of each process."""
    command = [sys.executable, __file__, "--seconds", f"{seconds}", "--threads", f"{threads}"]
    command += ["--child", model, f"{count // processes}"]
    with ExitStack() as stack:
        running = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(processes)
        ]
        for one in running:
            if said(one) != "ready":
                raise SystemExit("a process could not begin: see above")
        start = SYSTEM.now() + SOON  # this clock is the whole machine's
        for one in running:
            print(start, file=one.stdin, flush=True)
        ended = [json.loads(said(one)) for one in running]
        for one in running:  # only now, so that what they share counts in all
            print("end", file=one.stdin, flush=True)
    return ended


def said(process: subprocess.Popen[str]) -> str:
    """The next line of a process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def row(count: int, processes: int, found: list[dict[str, Any]]) -> str:
    """A row of the table. Of the latencies, the worst camera's."""
    p50, p99 = (max(one[key] for one in found) for key in ("p50", "p99"))
    dropped = sum(one["dropped"] for one in found) / len(found)
    cores, memory = (sum(one[key] for one in found) for key in ("cores", "pss_mb"))
    carried = "yes" if p99 <= 1e3 / FPS else "no"
    return f"| {count} | {processes} | {p50:.1f} | {p99:.1f} | {dropped:.1%} | {cores:.2f} | {memory:.0f} | {carried} |"


def child(model: str, count: int, seconds: float, threads: int) -> None:
    """Run cameras in this process, as ``framecast run`` does, from the moment that standard input names."""
    with open_source("demo") as source:
        images = [frame.image for frame in islice(source, PICTURES)]
    with ExitStack() as stack:
        engines = Shared(lambda: open_engine(find(model), threads=threads))
        stack.callback(engines.close)
        predictors = [Predictor(stack.enter_context(engines.seat())) for _ in range(count)]
        for predictor in predictors:
            warm(predictor, images[0])
        engines.measure(count)
        print("ready", flush=True)
        every = play(predictors, images, FPS, seconds, None, SYSTEM, float(sys.stdin.readline()))
        found = {
            "p50": max(one.corrected.percentiles[50] for one in every),
            "p99": max(one.corrected.percentiles[99] for one in every),
            "dropped": sum(one.dropped for one in every) / sum(one.frames for one in every),
            "cores": max(one.cores for one in every),
            "pss_mb": psutil.Process().memory_full_info().pss / 1e6,
            "state_mb": state_mb(engines.engine),
        }
        print(json.dumps(found), flush=True)
        sys.stdin.readline()


def state_mb(engine: Engine) -> float:
    """The two states of a stepper, in MB; 0 for a model of motion, whose state grows as it runs."""
    if engine.manifest.renders == "moments":
        return 0.0
    return (
        sum(array.nbytes for array in {id(a): a for a in arrays(engine.new_state(), engine.new_state())}.values()) / 1e6
    )


def arrays(*states: State) -> list[np.ndarray[Any, Any]]:
    """All arrays of states."""
    found = []
    for state in states:
        moments = (state.zero, *state.own)
        for held in (state.tensors, state.precomputed, *(moment.tensors for moment in moments)):
            found += [*held.values()]
        found.append(state.prediction)
    return found


if __name__ == "__main__":
    script(main)
