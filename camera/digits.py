"""Moving MNIST as a source: ``mnist://``. Its frames are those of the training data, digit for digit."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np

from framecast.camera.clip import Clip, Timed
from framecast.camera.moving_mnist import DIGIT, MOST_DIGITS, SEEDS, Fixed, MovingMNIST, Pictures, read_idx
from framecast.camera.query import parse_options
from framecast.errors import SourceError
from framecast.redact import redact

SHIPPED = "digits.idx.gz"  # in assets/: 300 of MNIST's training digits
FIXED = 20  # frames of a sequence of the papers' test set
_MOST = {"digits": MOST_DIGITS, "size": 4096, "frames": 10**9, "scene": 10_000, "seed": SEEDS - 1}
_RANGES = (
    f"digits 1 to {MOST_DIGITS}, size 28x28 to 4096x4096, fps 0.1 to 1000, frames 0 to 1000000000, scene 1 to 10000, "
    f"seed 0 to {SEEDS - 1}"
)


@dataclass(frozen=True)
class Drift:
    """The options of ``mnist://FILE?digits=2&size=64x64&fps=10&frames=0&scene=120&seed=1``; all may be left out.

    Attributes:
        file: an IDX file of digits; empty for those that ship.
        digits: digits in a frame.
        size: side of the square picture in pixels.
        fps: frames a second, 0.1 to 1000.
        frames: length of the clip; 0 for one without end.
        scene: after so many frames, new digits begin at new places. Scene n is sequence n of the fixed set of this seed
            (``framecast moving-mnist --seed``), continued.
        seed: 0 to 2³² - 1.
    """

    file: str = ""
    digits: int = 2
    size: int = 64
    fps: float = 10.0
    frames: int = 0
    scene: int = 120
    seed: int = 1

    @property
    def uri(self) -> str:
        """The URI that gives this drift."""
        fps = np.format_float_positional(self.fps, trim="-")
        return (
            f"mnist://{quote(self.file)}?digits={self.digits}&size={self.size}x{self.size}&fps={fps}"
            f"&frames={self.frames}&scene={self.scene}&seed={self.seed}"
        )

    def read_digits(self) -> Pictures:
        """Read the digits, uint8 [N, 28, 28].

        Raises:
            SourceError: the file is missing or damaged, or is not an IDX file of digits.
        """
        if self.file:
            return read_idx(Path(self.file).expanduser())
        with importlib.resources.as_file(importlib.resources.files("framecast") / "assets" / SHIPPED) as path:
            if not path.is_file():
                raise SourceError("the shipped digits are missing from this installation (install framecast again)")
            return read_idx(path)

    def scenes(self) -> Fixed:
        """Return the scenes, one after another. Raises as :meth:`read_digits`."""
        return Fixed(MovingMNIST(self.read_digits(), self.size, self.scene, self.digits), self.seed)


class Digits(Clip):
    """Digits that drift and bounce. Each scene is a new epoch, because no frame before it predicts its digits.

    Args:
        drift: what to show.
        loop: restart at the end instead of ending.

    Raises:
        SourceError: the file of digits cannot be read.
    """

    def __init__(self, drift: Drift, *, loop: bool = False) -> None:
        super().__init__(redact(drift.uri), drift.fps, loop)
        self.length = drift.frames or None
        self._drift, self._scenes = drift, drift.scenes()
        self._number = 0  # of the next frame in this pass

    def _next(self) -> Timed | None:
        if self._number == self._drift.frames and self._drift.frames:
            return None
        scene, age = divmod(self._number, self._drift.scene)
        if age == 0:
            corners, digits = self._scenes.source.scenes([self._scenes.rng(scene)])
            self._corners, self._shown = corners[0], digits[0]
            self._epoch += scene > 0
        self._number += 1
        grey = np.zeros((self._drift.size, self._drift.size), np.uint8)
        self._scenes.source.draw(grey, self._corners[:, age], self._shown)
        return Timed(np.repeat(grey[..., None], 3, axis=2), None)

    def _rewind(self) -> None:
        self._number = 0

    def _release(self) -> None:
        """Nothing to release."""


def parse_drift(uri: str, default: Drift | None = None, *, without: tuple[str, ...] = ()) -> Drift:
    """Parse a ``mnist://`` URI.

    Args:
        uri: the URI; between ``mnist://`` and ``?`` it may name an IDX file.
        default: the values of options that it leaves out.
        without: options that have no meaning here.

    Raises:
        SourceError: an option is unknown, given twice or out of range.
    """
    default = default or Drift()
    place, _, query = uri.partition(":")[2].removeprefix("//").partition("?")
    options = parse_options(query)
    known = [name for name in ("digits", "size", "fps", "frames", "scene", "seed") if name not in without]
    example = "mnist://?digits=2&seed=1"
    if unknown := options.keys() - {*known}:
        raise SourceError(
            f"mnist:// has no {redact(min(unknown))} here (it takes {', '.join(known[:-1])} and seed: {example})"
        )
    try:
        size = options.get("size", f"{default.size}x{default.size}")
        width, height = map(int, size.split("x"))
        numbers = {name: int(options.get(name, getattr(default, name))) for name in _MOST if name != "size"}
        drift = Drift(unquote(place), size=width, fps=float(options.get("fps", default.fps)), **numbers)
    except ValueError:
        raise SourceError(f"not numbers: {redact(uri)} (write it like {example}&size=64x64)") from None
    least = {"digits": 1, "size": DIGIT, "frames": 0, "scene": 1, "seed": 0}
    fits = all(least[name] <= getattr(drift, name) <= most for name, most in _MOST.items())
    if width != height or not (fits and 0.1 <= drift.fps <= 1000):
        raise SourceError(f"out of range: {redact(uri)} (it is square; {_RANGES})")
    return drift
