"""Live cost of the shipped models on this machine: steps in every CPU engine, alternating, and whole streams.

``python benchmarks/live.py [--seconds S]``. The steps are measured as in ``framecast bench``, and the streams as with
its ``--stream``. Networks predict at 256x192, edge at the clip's own size. One stream runs at 30 frames a second, and
its CPU time is measured. Another runs at a rate that keeps the model busy for 70 % of the time. It runs ``RUNS`` times,
each with an empty loop for comparison, because a single run's tail is mostly noise from the machine.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from _machine import header, script

from framecast.bench.results import ratios
from framecast.bench.steps import Series, live_step, measure
from framecast.bench.stream import StreamResult, bench_stream
from framecast.bench.summary import summarize
from framecast.camera import open_source
from framecast.errors import EngineError
from framecast.runtime.engines import open_engine
from framecast.runtime.shipped import find

CASES = (  # model, engine, threads
    ("edge", "opencv", 2),  # OpenCV has one thread count per process, so edge has the same number in every case
    ("edge", "opencv:fast", 2),
    ("stip-edge", "onnxruntime", 1),
    ("stip-edge", "onnxruntime", 2),
    ("stip-edge", "openvino", 1),
    ("stip-edge", "openvino", 2),
)
FPS = 30.0
LOAD = 0.7
RUNS = 5


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds for each step and stream (default: 10)")
    seconds = parser.parse_args().seconds
    print(header())
    with open_source("demo") as source:
        frames = [frame.image for frame in source]
    height, width = frames[0].shape[:2]
    print(f"\nLive step on the demo clip, {width}x{height}, ms; the ratio is to the first line\n")
    columns = f"{'p50':>6} {'p90':>6} {'p99':>6}  {'step p50':>11}  {'fps':>5}  {'ratio':>5} {'95 %':>13}  {'n':>5}"
    print(f"{'model':10s} {'engine':12s} {'threads':>7}  {columns}")
    medians: dict[tuple[str, str, int], float] = {}
    with ExitStack() as stack:
        cases, keys = [], []
        for model, engine, threads in CASES:
            try:
                opened = stack.enter_context(open_engine(find(model), engine, threads=threads))
            except EngineError as error:
                print(f"{model:10s} {engine:12s} {threads:7d}  not run: {error}")
                continue
            keys.append((model, engine, threads))
            cases.append(live_step(" ".join(map(str, keys[-1])), opened, frames))
        series = measure(cases, duration=seconds)
        for key, one, ratio in zip(keys, series, ratios(series), strict=True):
            medians[key] = _line(
                key, one, "" if ratio is None else f"{ratio.median:5.2f} {ratio.low:6.2f}-{ratio.high:.2f}"
            )
    print(f"\nStreams of edge on the demo clip, {seconds:g} s each, from a frame's due time to its hand-over, ms\n")
    print(f"{'engine':12s} {'threads':>7} {'fps':>5}  {'p50':>6} {'p99':>6}  {'dropped':>7}  {'busy':>5}  {'cores':>5}")
    for model, engine, threads in medians:
        if model == "edge":
            live = _stream(engine, threads, FPS, seconds)
            late, loop = live.loop.corrected, live.loop
            share = f"{loop.dropped / loop.frames:7.1%}  {loop.load:5.0%}  {loop.cores:5.2f}"
            print(f"{engine:12s} {threads:7d} {FPS:5.1f}  {late.median:6.1f} {late.percentiles[99]:6.1f}  {share}")
    print(f"\nThe tail of edge at {LOAD:.0%} load: p99 / p50 (p99 - p50 in ms; that of an empty loop), {RUNS} runs\n")
    for (model, engine, threads), median in medians.items():
        if model == "edge":
            runs = [_stream(engine, threads, LOAD * 1e3 / median, seconds) for _ in range(RUNS)]
            tails = "  ".join(f"{run.loop.tail:.2f} ({run.loop.apart:.1f}; {run.empty.apart:.1f})" for run in runs)
            best = min(run.loop.tail or 0.0 for run in runs)
            print(f"{engine:12s} {threads:7d} at {runs[0].fps:.1f} fps: best {best:.2f}   {tails}")


def _line(key: tuple[str, str, int], series: Series, ratio: str) -> float:
    """Print a step's row; return its median."""
    model, engine, threads = key
    all_, step = summarize(series.milliseconds), summarize(series.parts["step"])
    p = all_.percentiles
    figures = f"{all_.median:6.2f} {p[90]:6.2f} {p[99]:6.2f}  {step.median:11.2f}  {1e3 / all_.mean:5.1f}"
    print(f"{model:10s} {engine:12s} {threads:7d}  {figures}  {ratio:19s}  {all_.n:5d}")
    return all_.median


def _stream(engine: str, threads: int, fps: float, seconds: float) -> StreamResult:
    with open_engine(find("edge"), engine, threads=threads) as opened:
        return bench_stream(opened, "demo", fps=fps, seconds=seconds)


if __name__ == "__main__":
    script(main)
