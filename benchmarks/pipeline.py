"""What a frame costs beyond the engine's step, by stage: from a camera's picture in memory to its scored event.

``python benchmarks/pipeline.py [MODEL] [--frames N]``: a pipeline runs on pictures that are decoded beforehand, and
each stage is timed where it happens, so after a step that has taken the caches. Input sizes take turns, so that the
machine's moods fall on all of them. The last two lines are what is left of ``predictor.step``, and of the whole event,
without the engine's step, paired frame by frame; an event adds scoring, the mailbox, and Python in between ("rest").
Decoding, which another thread does, and sinks are not in it.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from _machine import header

import framecast
from framecast.camera import Frame, Image, Source, open_source
from framecast.runtime.engines import engine as engines
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.score import SETTLE, Scorer

SIZES = ((640, 480), (1280, 720))
ROUNDS = 5
STAGES = ("resize", "layout", "step", "finite check", "picture", "scoring", "rest", "predictor.step", "event")


class Preloaded(Source):
    """Pictures in memory, as the frames of a clip."""

    name, live, fps = "memory", False, 25.0

    def __init__(self, images: list[Image], count: int) -> None:
        self._frames = (Frame(images[i % len(images)], i / 25, i) for i in range(count))

    def read(self) -> Frame | None:
        """See :meth:`Source.read`."""
        return next(self._frames, None)

    def close(self) -> None:
        """There is nothing to let go of."""


class Clock:
    """Times functions where they are, and sums what each took within one frame."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    def wrap(self, place: Any, name: str, stage: str) -> None:
        """Replace ``place.name`` by itself, timed."""
        inner: Callable[..., Any] = getattr(place, name)

        def timed(*args: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            try:
                return inner(*args, **options)
            finally:
                self.spent[stage] += 1e3 * (time.perf_counter() - begun)

        setattr(place, name, timed)

    def frames(self, events: Iterator[Any]) -> Iterator[dict[str, float]]:
        """Milliseconds by stage for every event."""
        while True:
            self.spent.clear()
            begun = time.perf_counter()
            if next(events, None) is None:
                return
            whole = 1e3 * (time.perf_counter() - begun)
            spent = dict(self.spent)
            spent["finite check"] = spent.pop("shown") - spent["picture"]
            spent["rest"] = whole - sum(spent[stage] for stage in STAGES[:6])
            spent["predictor.step"] -= spent["step"]
            spent["event"] = whole - spent["step"]
            yield spent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="edge")
    parser.add_argument("--frames", type=int, default=100, help="of each size, in each round")
    args = parser.parse_args()
    print(header())
    with open_source("demo") as source:
        decoded = [frame.image for frame in source]
    images = {size: [cv2.resize(image, size) for image in decoded] for size in SIZES}
    times: dict[tuple[tuple[int, int], str], list[float]] = defaultdict(list)
    clock = Clock()
    for name, stage in (("see", "resize"), ("to_frame", "layout"), ("to_image", "picture")):
        clock.wrap(engines, name, stage)
    clock.wrap(Scorer, "arrive", "scoring")
    clock.wrap(Scorer, "expect", "scoring")
    with framecast.load(args.model) as predictor:
        clock.wrap(predictor, "step", "predictor.step")
        clock.wrap(predictor.engine, "step", "step")
        clock.wrap(predictor.engine, "shown", "shown")
        for _ in range(ROUNDS):
            for size in SIZES:
                pipeline = Pipeline(Preloaded(images[size], args.frames + 2 * SETTLE), predictor)  # type: ignore[arg-type]
                for spent in list(clock.frames(iter(pipeline)))[2 * SETTLE :]:  # from there on all are scored
                    for stage, value in spent.items():
                        times[size, stage].append(value)
        width, height = predictor.manifest.size
    print(f"\n{args.model} ({width}x{height}), ms a frame, p50 (p90), {args.frames} frames x {ROUNDS} rounds\n")
    print(f"{'stage':16s}" + "".join(f"{f'{w}x{h}':>18s}" for w, h in SIZES))
    for stage in STAGES:
        cells = [np.percentile(times[size, stage], [50, 90]) for size in SIZES]
        print(f"{stage:16s}" + "".join(f"{f'{p50:.3f} ({p90:.3f})':>18s}" for p50, p90 in cells))


if __name__ == "__main__":
    main()
