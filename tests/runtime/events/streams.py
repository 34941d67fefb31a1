"""Streams with known events: a scene that moves by whole pixels, compressed anew in each frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.runtime.events import Event, Watch

INTERVAL = 0.04  # seconds
SIZE = (160, 120)


@cache
def _scenery(scene: int) -> NDArray[np.uint8]:
    """A wide picture of soft spots, [140, 1000, 3]."""
    noise = np.random.default_rng(scene).normal(size=(2, 140, 1000, 3)).astype(np.float32)
    fine, coarse = cv2.GaussianBlur(noise[0], (0, 0), 3), cv2.GaussianBlur(noise[1], (0, 0), 20)
    mixed = fine / fine.std() * 22 + coarse / coarse.std() * 25 + 120
    return np.asarray(np.clip(mixed, 0, 255), np.uint8)


def picture(position: int, *, scene: int = 0, quality: int = 90, brighter: float = 0.0, gain: float = 1.0) -> Image:
    """The scene at a position in pixels, with changed brightness, after JPEG compression."""
    width, height = SIZE
    seen = _scenery(scene)[10 : 10 + height, position : position + width]
    lit = np.clip(np.rint(seen * gain + brighter), 0, 255).astype(np.uint8)
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", lit, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1), np.uint8)


def moving(indices: Iterable[int], *, speed: int = 3, scene: int = 0) -> list[Image]:
    """Frames of a pan by ``speed`` pixels per index. Their JPEG quality differs, so that no two are equal."""
    return [picture(i * speed, scene=scene, quality=84 + 7 * k % 9) for k, i in enumerate(indices)]


def watched(
    frames: Sequence[Image], times: Sequence[float] | None = None, watch: Watch | None = None
) -> tuple[list[Event], list[float]]:
    """The event of each frame, and the lookahead in seconds that the watch gave for that frame one frame earlier."""
    watch = watch or Watch()
    times = [k * INTERVAL for k in range(len(frames))] if times is None else times
    events, aheads = [], [0.0]
    for k, (frame, time) in enumerate(zip(frames, times, strict=True)):
        events.append(watch.see(frame, time, INTERVAL))
        aheads.append(watch.ahead(times[k + 1] if k + 1 < len(times) else time + INTERVAL))
    return events, aheads[:-1]


def kinds(events: Iterable[Event]) -> str:
    """One letter per event: first, new, repeat, cut, gap."""
    return "".join(event.kind[0] for event in events)
