"""Latency of the shipped model on the demo clip: the engine's step, and the whole of ``predictor.step``.

Thread counts are interleaved, clip by clip, so that whatever else the machine does falls on all of them alike. The
frames are real, since GridSample's reads depend on the motion. ``predictor.step`` adds resizing and layout, both ways.
"""

from __future__ import annotations

import os
import time

import numpy as np
from _machine import header

import framecast
from framecast.camera import open_source

ROUNDS = 5


def main() -> None:
    """Print the table."""
    print(header())
    frames = []
    with open_source("demo") as source:
        while (frame := source.read()) is not None:
            frames.append(frame.image)
    threads = sorted({1, min(2, os.cpu_count() or 1), os.cpu_count() or 1})
    predictors = {n: framecast.load("stip-edge", threads=n) for n in threads}
    whole: dict[int, list[float]] = {n: [] for n in threads}
    step: dict[int, list[float]] = {n: [] for n in threads}
    for _ in range(ROUNDS):
        for n, predictor in predictors.items():
            inner = predictor.engine.step

            def timed(*args, inner=inner, n=n):  # type: ignore[no-untyped-def]
                begun = time.perf_counter()
                result = inner(*args)
                step[n].append(1e3 * (time.perf_counter() - begun))
                return result

            predictor.engine.step = timed  # type: ignore[method-assign]
            predictor.reset()
            for image in frames:
                begun = time.perf_counter()
                predictor.step(image)
                whole[n].append(1e3 * (time.perf_counter() - begun))
            predictor.engine.step = inner  # type: ignore[method-assign]
    height, width = frames[0].shape[:2]
    print(f"\nstip-edge, {width}x{height} input, {len(frames)} frames x {ROUNDS} rounds, ms")
    columns = f"{'engine step p50':>15} {'p99':>6}  {'predictor.step p50':>18} {'p99':>6}  {'fps':>6}  {'n':>5}"
    print(f"{'threads':>7}  {columns}")
    for n in threads:
        (a, b), (c, d) = np.percentile(step[n], [50, 99]), np.percentile(whole[n], [50, 99])
        fps = 1e3 / np.mean(whole[n])
        print(f"{n:7d}  {a:15.2f} {b:6.2f}  {c:18.2f} {d:6.2f}  {fps:6.1f}  {len(whole[n]):5d}")


if __name__ == "__main__":
    main()
