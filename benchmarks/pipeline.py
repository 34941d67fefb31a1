"""Cost of a frame beyond the network's step: from a camera's picture in memory to its scored result.

``python benchmarks/pipeline.py [MODEL] [--frames N]``: a pipeline runs on pictures that are decoded in advance, and its
results carry the timestamps. Input sizes alternate, so that other load on the machine affects all of them. The last two
lines are ``predictor.step`` and the whole result, both without the network's step. A result adds scoring, the mailbox,
and Python in between ("rest"). The figures do not include decoding, which runs in another thread, or sinks.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator

import cv2
import numpy as np
from _machine import header, script

import framecast
from framecast.camera import Frame, Image, open_source
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.score import SETTLE
from framecast.testing import ListSource

SIZES = ((640, 480), (1280, 720))
ROUNDS = 5
STAGES = ("picture in", "step", "picture out", "score", "rest", "predictor.step", "result")


def frames(images: list[Image], count: int) -> Iterator[Frame]:
    """Return pictures in memory as the frames of a clip, repeated."""
    return (Frame(images[i % len(images)], i / 25, i) for i in range(count))


def timed(predictor: Predictor, images: list[Image], count: int) -> Iterator[dict[str, float]]:
    """Yield the milliseconds of every result, by stage."""
    results = iter(Pipeline(ListSource(frames(images, count)), predictor))
    while True:
        begun = time.monotonic()
        result = next(results, None)
        whole = time.monotonic() - begun
        if result is None:
            return
        stamps = result.stamps
        spent = {
            "picture in": stamps.picture_in,
            "step": stamps.step,
            "picture out": stamps.picture_out,
            "score": stamps.handed - stamps.stepped,
            "rest": whole - (stamps.handed - stamps.taken),
            "predictor.step": stamps.picture_in + stamps.picture_out,
            "result": whole - stamps.step,
        }
        yield {stage: 1e3 * seconds for stage, seconds in spent.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="edge")
    parser.add_argument("--frames", type=int, default=100, help="frames of each size per round (default: 100)")
    args = parser.parse_args()
    print(header())
    with open_source("demo") as source:
        decoded = [frame.image for frame in source]
    images = {size: [np.asarray(cv2.resize(image, size), np.uint8) for image in decoded] for size in SIZES}
    times: dict[tuple[tuple[int, int], str], list[float]] = defaultdict(list)
    with framecast.load(args.model) as predictor:
        for _ in range(ROUNDS):
            for size in SIZES:
                # From the 16th frame on, every frame is scored.
                for spent in list(timed(predictor, images[size], args.frames + 2 * SETTLE))[2 * SETTLE :]:
                    for stage, value in spent.items():
                        times[size, stage].append(value)
        given = "the pictures' size" if predictor.engine.any_size else "x".join(map(str, predictor.manifest.size))
    print(f"\n{args.model} ({given}), ms a frame, p50 (p90), {args.frames} frames x {ROUNDS} rounds\n")
    print(f"{'stage':16s}" + "".join(f"{f'{w}x{h}':>18s}" for w, h in SIZES))
    for stage in STAGES:
        cells = [np.percentile(times[size, stage], [50, 90]) for size in SIZES]
        print(f"{stage:16s}" + "".join(f"{f'{p50:.3f} ({p90:.3f})':>18s}" for p50, p90 in cells))


if __name__ == "__main__":
    script(main)
