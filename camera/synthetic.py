"""Computed moving shapes: a source that is always available and always the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framecast.camera.clip import Clip, Timed
from framecast.camera.query import parse_options
from framecast.camera.source import Image
from framecast.errors import SourceError
from framecast.redact import redact

SHAPES = 5


@dataclass(frozen=True)
class Scene:
    """The options of ``synthetic://?size=320x240&fps=30&frames=300&seed=1``. These values are the defaults.

    Attributes:
        width: pixels, 16 to 4096.
        height: pixels, 16 to 4096.
        fps: frames a second, 0.1 to 1000.
        frames: length of the clip; 0 means the default.
        seed: of the background's texture and the shapes' sizes, colours, places and speeds.
    """

    width: int = 320
    height: int = 240
    fps: float = 30.0
    frames: int = 300
    seed: int = 1

    @property
    def uri(self) -> str:
        """The URI that gives this scene."""
        fps = np.format_float_positional(self.fps, trim="-")  # 30, but 29.97002997 in full
        return f"synthetic://?size={self.width}x{self.height}&fps={fps}&frames={self.frames}&seed={self.seed}"


@dataclass(frozen=True)
class Shape:
    """A disc or a square that bounces off the edges of the picture.

    Attributes:
        square: whether it is a square; otherwise a disc.
        radius: half its width, pixels.
        colour: [3] BGR, 0 to 255.
        start: [2] (x, y) of its centre in frame 0, in pixels from where the shape touches the left and top edges.
        velocity: [2] (x, y), pixels a frame.
    """

    square: bool
    radius: float
    colour: NDArray[np.float32]
    start: NDArray[np.float64]
    velocity: NDArray[np.float64]


class Synthetic(Clip):
    """Shapes that move at constant velocity on a still texture. A frame depends only on its number and the scene.

    Args:
        scene: what to show.
        loop: restart at the end instead of ending.
    """

    def __init__(self, scene: Scene, *, loop: bool = False) -> None:
        super().__init__(scene.uri, scene.fps, loop)
        self.length = scene.frames
        self._scene = scene
        random = np.random.default_rng(scene.seed)
        self._background = _texture(scene, random)
        self._shapes = [_shape(scene, random, square=bool(number % 2)) for number in range(SHAPES)]
        self._number = 0  # of the next frame in this pass

    def _next(self) -> Timed | None:
        if self._number == self._scene.frames:
            return None
        image: Image = self._background.copy()
        for shape in self._shapes:
            _draw(image, shape, self._number)
        self._number += 1
        return Timed(image, None)

    def _rewind(self) -> None:
        self._number = 0

    def _release(self) -> None:
        """Nothing to release."""


def parse_scene(uri: str) -> Scene:
    """Parse a ``synthetic://`` URI.

    Raises:
        SourceError: an option is unknown, given twice or out of range.
    """
    default = Scene()
    place, _, query = uri.partition(":")[2].removeprefix("//").partition("?")
    options = parse_options(query)
    unknown = [*([place] if place else []), *(options.keys() - {"size", "fps", "frames", "seed"})]
    if unknown:
        raise SourceError(
            f"synthetic:// has no {redact(unknown[0])} (it takes size, fps, frames and seed: {default.uri})"
        )
    try:
        width, height = map(int, options.get("size", f"{default.width}x{default.height}").split("x"))
        scene = Scene(
            width,
            height,
            fps=float(options.get("fps", default.fps)),
            frames=int(options.get("frames", 0)) or default.frames,
            seed=int(options.get("seed", default.seed)),
        )
    except ValueError:
        raise SourceError(f"not numbers: {redact(uri)} (write it like {default.uri})") from None
    fits = min(width, height) >= 16 and max(width, height) <= 4096
    if not (fits and 0.1 <= scene.fps <= 1000 and scene.frames > 0 and scene.seed >= 0):
        ranges = "size 16x16 to 4096x4096, fps 0.1 to 1000, frames and seed not negative"
        raise SourceError(f"out of range: {redact(uri)} ({ranges})")
    return scene


def _texture(scene: Scene, random: np.random.Generator) -> Image:
    """A background [H, W, 3]: a few waves a channel, each 24 to 96 pixels long."""
    y, x = np.mgrid[: scene.height, : scene.width].astype(np.float32)
    channels = []
    for _ in range(3):
        channel = np.full_like(x, 110)
        for angle, length, phase in random.random((4, 3)):
            across = x * np.float32(np.cos(np.pi * angle)) + y * np.float32(np.sin(np.pi * angle))
            channel += 15 * np.sin(across * np.float32(2 * np.pi / (24 + 72 * length)) + np.float32(2 * np.pi * phase))
        channels.append(channel.astype(np.uint8))  # 50 to 170
    return np.stack(channels, axis=-1)


def _shape(scene: Scene, random: np.random.Generator, *, square: bool) -> Shape:
    side = min(scene.width, scene.height)
    direction, speed, size = random.random(3)
    radius = side * (0.06 + 0.1 * size)
    heading = np.array([np.cos(2 * np.pi * direction), np.sin(2 * np.pi * direction)])
    return Shape(
        square=square,
        radius=radius,
        colour=(255 * random.random(3)).astype(np.float32),
        start=random.random(2) * (np.array([scene.width, scene.height]) - 2 * radius),
        velocity=heading * side * (0.15 + 0.45 * speed) / scene.fps,  # sides a second, whatever the frame rate
    )


def _draw(image: Image, shape: Shape, number: int) -> None:
    """Blend a shape into image [H, W, 3]. Its edge is one pixel soft, so it can move by fractions of a pixel."""
    height, width = image.shape[:2]
    room = np.array([width, height]) - 2 * shape.radius
    there = (shape.start + shape.velocity * number) % (2 * room)
    x, y = np.minimum(there, 2 * room - there) + shape.radius - 0.5  # the centre; the first pixel's centre is (0, 0)
    reach = shape.radius + 1
    top, left = max(0, int(y - reach)), max(0, int(x - reach))
    part = image[top : int(y + reach) + 1, left : int(x + reach) + 1]
    dy = np.abs(np.arange(part.shape[0])[:, None] + top - y)  # [h, 1]
    dx = np.abs(np.arange(part.shape[1])[None, :] + left - x)  # [1, w]
    distance = np.maximum(dx, dy) if shape.square else np.hypot(dx, dy)
    cover = np.clip(shape.radius + 0.5 - distance, 0, 1)[..., None]  # [h, w, 1]
    part[:] = part * (1 - cover) + shape.colour * cover + 0.5
