"""Latency of the shipped models on the demo clip: the engine's step, and the whole of ``predictor.step``.

Models and thread counts are interleaved, clip by clip, so that whatever else the machine does falls on all of them
alike. The frames are real, since GridSample's reads depend on the motion. ``predictor.step`` adds resizing and layout,
both ways.
"""

from __future__ import annotations

import os
import time

import numpy as np
from _machine import header

import framecast
from framecast.camera import open_source

ROUNDS = 5
MODELS = ("edge", "stip-edge")


def main() -> None:
    """Print the table."""
    print(header())
    with open_source("demo") as source:
        frames = [frame.image for frame in source]
    threads = sorted({1, min(2, os.cpu_count() or 1), os.cpu_count() or 1})
    predictors = {(name, n): framecast.load(name, threads=n) for name in MODELS for n in threads}
    whole: dict[tuple[str, int], list[float]] = {key: [] for key in predictors}
    step: dict[tuple[str, int], list[float]] = {key: [] for key in predictors}
    for _ in range(ROUNDS):
        for key, predictor in predictors.items():
            inner = predictor.engine.step

            def timed(*args, inner=inner, key=key):  # type: ignore[no-untyped-def]
                begun = time.perf_counter()
                result = inner(*args)
                step[key].append(1e3 * (time.perf_counter() - begun))
                return result

            predictor.engine.step = timed  # type: ignore[method-assign]
            predictor.reset()
            for image in frames:
                begun = time.perf_counter()
                predictor.step(image)
                whole[key].append(1e3 * (time.perf_counter() - begun))
            predictor.engine.step = inner  # type: ignore[method-assign]
    height, width = frames[0].shape[:2]
    print(f"\n{width}x{height} input, {len(frames)} frames x {ROUNDS} rounds, ms")
    columns = f"{'engine step p50':>15} {'p99':>6}  {'predictor.step p50':>18} {'p99':>6}  {'fps':>6}  {'n':>5}"
    print(f"{'model':12s} {'threads':>7}  {columns}")
    for name, n in predictors:
        times = whole[name, n]
        (a, b), (c, d) = np.percentile(step[name, n], [50, 99]), np.percentile(times, [50, 99])
        print(
            f"{name:12s} {n:7d}  {a:15.2f} {b:6.2f}  {c:18.2f} {d:6.2f}  {1e3 / np.mean(times):6.1f}  {len(times):5d}"
        )


if __name__ == "__main__":
    main()
