"""Videos as arrays, and their augmentation for training."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.camera.layouts import Clip
from framecast.camera.video import SUFFIXES
from framecast.errors import SourceError
from framecast.files import write


def is_video(path: Path) -> bool:
    """Return whether a path is a file with a video's suffix."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def videos(path: Path) -> list[Path]:
    """Return the videos in a folder, sorted; or the path itself if it is a file."""
    return [path] if path.is_file() else sorted(filter(is_video, path.iterdir()))


def decode(clip: Clip, cache: Path, size: tuple[int, int], enough: tuple[int, int] | None = None) -> Image:
    """Decode the frames of a clip, [N, H, W, 3] BGR, into a memory-mapped file under ``cache``.

    Args:
        clip: a video or a folder of images.
        cache: folder for decoded frames, created if missing. A damaged file in it is decoded again.
        size: width and height of the network's frames. Some clips are cut to their shape.
        enough: sufficient width and height. Frames that exceed both are reduced until they just cover them.

    Raises:
        SourceError: the clip cannot be decoded.
        SinkError: its frames cannot be written to the cache.
    """
    facts = [file.stat() for file in clip.files]
    # Distinguishes clips of one name, and versions of one clip.
    words = [Path(clip.name).with_suffix("").as_posix().replace("/", "-"), sum(one.st_size for one in facts)]
    words += [max(one.st_mtime_ns for one in facts), *(enough or ())]
    words += [f"every{clip.every}"] * (clip.every > 1) + [f"cut{size[0]}x{size[1]}"] * clip.crop
    target = cache / f"{'-'.join(map(str, words))}.npy"
    # Damaged headers also raise tokenize's errors, and RecursionError; the size of a damaged shape overflows.
    with suppress(Exception), np.errstate(over="ignore"):
        return np.load(target, mmap_mode="r")  # type: ignore[no-any-return]
    with closing(clip.frames(size)) as frames:
        first = next(frames, None)
        if first is None:
            raise SourceError("it has no frame")
        write(target, lambda file: _keep(file, chain([first], frames), enough), "choose another --cache")
    return np.load(target, mmap_mode="r")  # type: ignore[no-any-return]


def _keep(file: IO[bytes], frames: Iterable[Image], enough: tuple[int, int] | None) -> None:
    """Write frames as one array, with only one or two of them in memory at a time."""
    count, shape = 0, (0, 0, 0)
    for frame in frames:
        image = _reduced(frame, enough)
        if not count:
            shape = image.shape
            _describe(file, 0, shape)
        if image.shape != shape:
            raise SourceError(
                f"its frames have several sizes ({shape[1]}×{shape[0]}, {image.shape[1]}×{image.shape[0]})"
            )
        file.write(np.ascontiguousarray(image).data)
        count += 1
    file.seek(0)
    _describe(file, count, shape)
    file.flush()


def _describe(file: IO[bytes], count: int, shape: tuple[int, ...]) -> None:
    """Write the header of an array. numpy pads it to a fixed length, so the count can be corrected later."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _reduced(image: Image, enough: tuple[int, int] | None) -> Image:
    height, width = image.shape[:2]
    scale = max(enough[0] / width, enough[1] / height) if enough else 1.0
    if scale >= 1:
        return image
    return cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


@dataclass(frozen=True)
class Camera:
    """A camera that moves over a larger picture: it pans back and forth, and it may shake like a hand-held one.

    Attributes:
        pan: pixels of the source per frame, x and y.
        shake: [n, 5] oscillations: pixels in x and in y, radians of roll, cycles per frame, phase.
        zoom: amplitude as a share of the size, and cycles per frame.
    """

    pan: tuple[float, float]
    shake: NDArray[np.float64]
    zoom: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Camera:
        """Draw a camera at random: half of them are hand-held, a third zoom."""
        held = rng.random() < 0.5
        amplitudes = rng.normal(0, (1.5, 1.5, 0.004), (4, 3)) * (rng.uniform(0.1, 1) if held else 0)
        rhythm = np.stack([rng.uniform(0.01, 0.2, 4), rng.uniform(0, 2 * np.pi, 4)], axis=1)
        zoom = rng.uniform(0.02, 0.12) if rng.random() < 0.3 else 0.0
        pan = rng.normal(0, 1.5, 2) * (rng.random() < 0.7)
        return cls((pan[0], pan[1]), np.hstack([amplitudes, rhythm]), (zoom, rng.uniform(0.003, 0.02)))

    def look(self, frame: Image, age: int, size: tuple[int, int]) -> Image:
        """Return the camera's view of ``frame``, the ``age``-th frame, at ``size`` (width, height)."""
        height, width = frame.shape[:2]
        w, h = size
        waves = np.sin(2 * np.pi * self.shake[:, 3] * age + self.shake[:, 4])
        x, y, roll = waves @ self.shake[:, :3]
        x += _swing(self.pan[0] * age, (width - w) / 2)  # within the frame
        y += _swing(self.pan[1] * age, (height - h) / 2)
        scale = 1 + self.zoom[0] * np.sin(2 * np.pi * self.zoom[1] * age)
        view = cv2.getRotationMatrix2D((width / 2 + x, height / 2 + y), np.degrees(roll), scale)
        view[:, 2] += (w / 2 - width / 2 - x, h / 2 - height / 2 - y)
        return cv2.warpAffine(frame, view, (w, h), borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]


def _swing(position: float, limit: float) -> float:
    """Reflect ``position`` within ±``limit``, as a triangle wave."""
    if limit <= 0:
        return 0.0
    phase = (position + limit) % (4 * limit)
    return (phase if phase < 2 * limit else 4 * limit - phase) - limit


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of a whole stream. It is drawn once and applies to every frame of the stream."""

    crop: tuple[float, float, float, float]  # x, y, width, height; fractions of the frame
    camera: Camera | None
    flip: tuple[bool, bool]  # horizontally, vertically
    channels: tuple[int, ...]  # for each new channel, the frame's channel that it copies
    gain: float
    noise: float  # standard deviation, grey levels
    quality: int  # JPEG quality, 0 for no compression

    @classmethod
    def draw(cls, rng: np.random.Generator, aspect: float = 1.0) -> Augmentation:
        """Draw an augmentation: half of them keep whole frames, the others crop them, and some crops move.

        Args:
            rng: random generator.
            aspect: aspect ratio (width to height) of the result divided by that of the source; crops keep it roughly.
        """
        crop, camera = (0.0, 0.0, 1.0, 1.0), None
        if rng.random() >= 0.5:
            ratio = aspect * np.exp(rng.uniform(-0.25, 0.25))
            width, height = rng.uniform(0.45, 1.0) * np.array([min(1.0, ratio), min(1.0, 1 / ratio)])
            crop = (rng.uniform(0, 1 - width), rng.uniform(0, 1 - height), float(width), float(height))
            camera = Camera.draw(rng) if rng.random() < 0.4 else None
        return cls(
            crop=crop,
            camera=camera,
            flip=(rng.random() < 0.5, rng.random() < 0.15),
            channels=tuple(rng.permutation(3).tolist()) if rng.random() < 0.2 else (0, 1, 2),
            gain=rng.uniform(0.6, 1.25) if rng.random() < 0.5 else 1.0,
            noise=rng.uniform(0, 4) if rng.random() < 0.15 else 0.0,
            quality=int(rng.integers(30, 95)) if rng.random() < 0.1 else 0,
        )

    def apply(self, frame: Image, age: int, size: tuple[int, int], rng: np.random.Generator) -> Image:
        """Return the ``age``-th frame of a stream, augmented and resized to ``size`` (width, height)."""
        height, width = frame.shape[:2]
        x, y, w, h = (round(float(v)) for v in np.multiply(self.crop, (width, height, width, height)))
        seen = self.camera.look(frame, age, (w, h)) if self.camera else frame[y : y + h, x : x + w]
        view = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
        if any(self.flip):
            view = cv2.flip(view, {(True, False): 1, (False, True): 0, (True, True): -1}[self.flip])
        if self.channels != (0, 1, 2):
            view = np.ascontiguousarray(view[..., self.channels])
        if self.gain != 1 or self.noise:
            view = view * self.gain + (rng.normal(0, self.noise, view.shape) if self.noise else 0)
            view = np.clip(view, 0, 255).astype(np.uint8)
        if self.quality:
            jpeg = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
            view = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)  # type: ignore[assignment]
        return view  # type: ignore[return-value]
