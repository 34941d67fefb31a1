"""Nothing grows with the frames or with the connections, and the soak's verdict tells what its figures show."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from framecast.camera import Frame
from framecast.camera.decoder import Decoder
from framecast.camera.media import open_media
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.sinks.health import Pulse
from framecast.testing import ListSource, TrendEngine


def frames(count: int) -> Iterator[Frame]:
    """Noise at 25 frames a second, with a new stream, a repeat and a gap now and then."""
    pictures, time = np.random.default_rng(1).integers(0, 256, (7, 20, 28, 3), np.uint8), 0.0
    for k in range(count):
        time += 5.0 if k % 97 == 0 else 0.04
        yield Frame(pictures[(k - (k % 13 == 0)) % 7], time, k, k // 50)


def test_nothing_grows_with_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framecast.runtime.telemetry.LATELY", 64)  # histories are full after so many
    warm, span, spans = 400, 250, 3
    count = warm + spans * span
    pipeline = Pipeline(ListSource(frames(count)), Predictor(TrendEngine(0.4)))
    pulse, held = Pulse(), []
    for number, result in enumerate(pipeline, 1):
        pulse.see(result)
        if number % 100 == 0:
            pipeline.report()
        if number >= warm and (number - warm) % span == 0:
            gc.collect()  # it also empties Python's free lists
            held.append(sys.getallocatedblocks())
    assert pipeline.report()["epochs"] == count // 50
    assert len(held) == spans + 1
    # Whatever is kept for each frame takes a block or more, in every span. Other threads take some now and then.
    assert min(after - before for before, after in pairwise(held)) < span / 2


def test_nothing_grows_with_the_connections(benchmark: Callable[[str], Any], tmp_path: Path) -> None:
    heap, clip = benchmark("_heap"), tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for number in range(10):
        writer.write(np.full((48, 64, 3), number, np.uint8))
    writer.release()
    if not hasattr(heap.ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("the C library does not tell what is in use: it is not glibc 2.33 or newer")

    def connect(times: int) -> None:
        for _ in range(times):
            decoder = Decoder(open_media(str(clip), options={}), threads=1, faults=Counter(), stall=9.0)
            assert decoder.read() is not None
            decoder.close()

    connect(150)  # pools of FFmpeg, and Python's free lists
    before, times = heap.in_use(), 300
    connect(times)
    assert (heap.in_use() - before) / times < 80  # PyAV leaks 160 for each generator that is not closed


@pytest.mark.parametrize(
    ("growth", "noise", "said"), [(0.0, 0.3, "flat"), (9.0, 0.3, "GROWS"), (2.0, 8.0, "NOT SHOWN")]
)
def test_the_verdict(benchmark: Callable[[str], Any], growth: float, noise: float, said: str) -> None:
    soak, rng = benchmark("soak"), np.random.default_rng(2)
    done = np.linspace(0.3, 1.0, 600)
    values = 90 + growth * done + noise * np.repeat(rng.standard_normal(60), 10)  # neighbours are not independent
    found, error = soak.slope(done, values)
    assert abs(found - growth) < error
    assert soak.verdict(found, error, 2.0) == said
