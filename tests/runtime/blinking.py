"""A simulated blinking window and a simulated camera that sees it, with a known delay between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Frame
from framecast.runtime.delay import GAPS, GRID

Floats = NDArray[np.float64]
START = 100.0  # seconds


def window(random: np.random.Generator, seconds: float) -> Floats:
    """The times at which a window changes, from ``START`` on."""
    changes = START + np.cumsum(random.uniform(*GAPS, size=int(seconds / GAPS[0])))
    return changes[changes < START + seconds]


@dataclass(frozen=True)
class Camera:
    """A simulated camera that sees a window.

    Attributes:
        delay: seconds from the middle of an exposure to the frame's time.
        fps: frames a second.
        exposure: seconds.
        jitter: maximum seconds by which a frame's time is early or late.
        fill: share of the view that the window takes.
        contrast: contrast of the window in grey levels.
        noise: standard deviation of a cell's brightness.
        busy: whether objects move around the window, with a slow automatic exposure.
    """

    delay: float
    fps: float = 30.0
    exposure: float = 0.02
    jitter: float = 0.0
    fill: float = 0.2
    contrast: float = 80.0
    noise: float = 1.0
    busy: bool = True

    def look(self, random: np.random.Generator, changes: Floats, seconds: float) -> tuple[Floats, Floats]:
        """Times of the frames [N], and their brightness [N, rows, columns]."""
        rows, columns = GRID
        middle = np.asarray(START + (np.arange(int(seconds * self.fps)) + random.uniform()) / self.fps, np.float64)
        times = np.sort(middle + self.delay + random.uniform(-self.jitter, self.jitter, len(middle)))
        parts = np.linspace(-0.5, 0.5, 201)[1::2] * self.exposure  # [100]
        white = (np.searchsorted(changes, middle[:, None] + parts, side="right") % 2).mean(axis=1)
        scene = 60 + (things(random, middle) if self.busy else np.zeros((len(middle), rows, columns)))
        high, wide = max(1, round(rows * self.fill**0.5)), max(1, round(columns * self.fill**0.5))
        top, left = random.integers(rows - high + 1), random.integers(columns - wide + 1)
        scene[:, top : top + high, left : left + wide] = 30 + self.contrast * white[:, None, None]
        if self.busy:
            scene *= gains(scene.mean(axis=(1, 2)), self.fps)[:, None, None]
        return times, np.clip(scene + random.normal(0, self.noise, scene.shape), 0, 255)

    def frames(self, random: np.random.Generator, changes: Floats, seconds: float) -> list[Frame]:
        """The frames that it records."""
        times, scene = self.look(random, changes, seconds)
        pictures = np.repeat(np.repeat(scene, 8, axis=1), 8, axis=2).round().astype(np.uint8)[..., None].repeat(3, 3)
        return [Frame(picture, float(time), i) for i, (time, picture) in enumerate(zip(times, pictures, strict=True))]


def things(random: np.random.Generator, times: Floats) -> Floats:
    """Brightness of four blurred objects, light or dark, that move back and forth, [N, rows, columns]."""
    rows, columns = GRID
    y, x = np.mgrid[:rows, :columns]
    light = np.zeros((len(times), rows, columns))
    for _ in range(4):
        place, speed, size = random.uniform(0, 2, 2), random.uniform(-0.8, 0.8, 2), random.uniform(1, 4)
        ways = np.abs((place + speed * times[:, None]) % 2 - 1)  # [N, 2]
        far = (y - rows * ways[:, :1, None]) ** 2 + (x - columns * ways[:, 1:, None]) ** 2
        light += random.uniform(-80, 80) * np.exp(-far / 2 / size**2)
    return light


def gains(brightness: Floats, fps: float) -> Floats:
    """Gains of an automatic exposure, which needs one or two seconds for half of a change, times varying daylight."""
    found, gain = [], 1.0
    for number, light in enumerate(brightness):
        found.append(gain * (1 + 0.2 * np.sin(number / fps / 2)))
        gain = float(np.clip(gain + (100 / max(light * gain, 1) - 1) * gain * 0.45 / fps, 0.3, 3))
    return np.array(found)
