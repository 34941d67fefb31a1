"""Videos as endless, augmented streams of consecutive frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from framecast.camera import Image, open_source

ENDINGS = {".mp4", ".avi", ".mkv", ".mov", ".webm"}


def videos(folder: Path) -> list[Path]:
    """The folder's videos, sorted."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS)


def decode(video: Path, cache: Path) -> Image:
    """Every frame of a video, [N, H, W, 3] BGR, kept as a memory-mapped file under ``cache``.

    Raises:
        SourceError: the video cannot be decoded.
    """
    facts = video.stat()
    target = cache / f"{video.stem}-{facts.st_size}-{facts.st_mtime_ns}.npy"  # another video of that name is another
    if not target.exists():
        with open_source(video) as source:
            frames = [frame.image for frame in iter(source.read, None)]
        cache.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial.npy")
        np.save(partial, np.stack(frames))
        partial.rename(target)
    return np.load(target, mmap_mode="r")  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Augmentation:
    """What happens to a whole stream, drawn once for it: every frame of the stream goes through the same lens."""

    crop: tuple[float, float, float, float]  # x, y, width, height; fractions of the frame
    pan: tuple[float, float]  # camera motion, source pixels a frame
    flip: tuple[bool, bool]  # horizontally, vertically
    gain: float
    noise: float  # standard deviation, grey levels
    quality: int  # of JPEG, 0 for none

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Augmentation:
        """Half of the streams are whole frames, as a camera gives them; the rest are crops, some of them moving."""
        whole = rng.random() < 0.5
        width, height = (1.0, 1.0) if whole else rng.uniform(0.5, 1.0) * rng.uniform(0.85, 1.0, 2)
        moving = not whole and rng.random() < 0.4
        return cls(
            crop=(rng.uniform(0, 1 - width), rng.uniform(0, 1 - height), width, height),
            pan=tuple(rng.normal(0, 1.5, 2)) if moving else (0.0, 0.0),
            flip=(rng.random() < 0.5, rng.random() < 0.15),
            gain=rng.uniform(0.6, 1.25) if rng.random() < 0.5 else 1.0,
            noise=rng.uniform(0, 4) if rng.random() < 0.15 else 0.0,
            quality=int(rng.integers(30, 95)) if rng.random() < 0.1 else 0,
        )

    def apply(self, frame: Image, age: int, size: tuple[int, int], rng: np.random.Generator) -> Image:
        """The ``age``-th frame of a stream, at ``size`` (width, height)."""
        height, width = frame.shape[:2]
        x, y, w, h = (round(float(v)) for v in np.multiply(self.crop, (width, height, width, height)))
        if any(self.pan):
            limit = ((width - w) / 2, (height - h) / 2)  # swing to and fro within what there is
            dx, dy = (_swing(p * age, m) for p, m in zip(self.pan, limit, strict=True))
            shift = np.array([[1, 0, -((width - w) / 2 + dx)], [0, 1, -((height - h) / 2 + dy)]])
            view = cv2.warpAffine(frame, shift, (w, h), borderMode=cv2.BORDER_REPLICATE)
        else:
            view = frame[y : y + h, x : x + w]
        view = cv2.resize(view, size, interpolation=cv2.INTER_AREA)
        if any(self.flip):
            view = cv2.flip(view, {(True, False): 1, (False, True): 0, (True, True): -1}[self.flip])
        if self.gain != 1 or self.noise:
            view = view * self.gain + (rng.normal(0, self.noise, view.shape) if self.noise else 0)
            view = np.clip(view, 0, 255).astype(np.uint8)
        if self.quality:
            jpeg = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
            view = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)  # type: ignore[assignment]
        return view  # type: ignore[return-value]


def _swing(position: float, limit: float) -> float:
    """A triangle wave: reflect ``position`` within ±``limit``."""
    if limit <= 0:
        return 0.0
    phase = (position + limit) % (4 * limit)
    return (phase if phase < 2 * limit else 4 * limit - phase) - limit


def stream(clips: list[Image], size: tuple[int, int], rng: np.random.Generator) -> Iterator[tuple[Image, bool]]:
    """Frames without end, each with whether it starts a new stream (where the state must be reset).

    Clips are drawn uniformly; a stream runs forwards or backwards, at one or two frames a step, for up to 240 frames.
    """
    while True:
        clip = clips[rng.integers(len(clips))]
        stride = int(rng.choice([1, 1, 1, 2]))
        order = np.arange(len(clip))[::stride]
        if rng.random() < 0.4:
            order = order[::-1]
        order = order[rng.integers(max(1, len(order) - 16)) :][: rng.integers(16, 240)]
        augmentation = Augmentation.draw(rng)
        for age, index in enumerate(order):
            yield augmentation.apply(clip[index], age, size, rng), age == 0
