"""Moving MNIST: two digits that drift and bounce on a small black canvas, endless for training, fixed for tests.

The standard protocol (Srivastava et al., 2015, in the form that OpenSTL generates it): digits of 28 pixels, steps of a
tenth of the free way in a direction drawn uniformly, reflection at the walls, overlaps by the maximum.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from framecast.errors import OptionError, SourceError

DIGIT = 28  # pixels, of a digit's side
STEP = 0.1  # a frame, of the unit square that a digit's corner moves in
GZIP = b"\x1f\x8b"
IMAGES = b"\x00\x00\x08\x03"  # unsigned bytes in three dimensions
LABELS = b"\x00\x00\x08\x01"
HEADER = 16  # bytes: the kind, and three big-endian sizes

Pictures = NDArray[np.uint8]


def read_idx(path: Path) -> Pictures:
    """The digits of an IDX file, gzipped or not, uint8 [N, 28, 28].

    Raises:
        SourceError: it is not there, not such a file, or damaged.
    """
    data = _content(path)
    if data.startswith(LABELS):
        raise SourceError(f"{path} holds labels, not images (give the -images-idx3-ubyte file beside it)")
    if not data.startswith(IMAGES) or len(data) < HEADER:
        raise SourceError(f"{path} is not an IDX file of images (give MNIST's train- or t10k-images-idx3-ubyte)")
    count, height, width = (int(n) for n in np.frombuffer(data, ">u4", 3, offset=len(IMAGES)))
    if (height, width) != (DIGIT, DIGIT) or not count:
        raise SourceError(f"{path} holds {count} images of {width}x{height}, not digits of {DIGIT}x{DIGIT}")
    if (held := len(data) - HEADER) != count * DIGIT**2:
        raise SourceError(
            f"{path} is damaged: {held} bytes where {count} digits have {count * DIGIT**2} (copy it again)"
        )
    return np.frombuffer(data, np.uint8, offset=HEADER).reshape(count, DIGIT, DIGIT)


def _content(path: Path) -> bytes:
    """A whole file, unpacked; told by its first bytes, for names lie."""
    try:
        if path.exists() and not path.is_file():  # a named pipe would wait for somebody who writes it
            raise SourceError(f"{path} is not a file (give an IDX file of images)")
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(GZIP) else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{path} is damaged: {error} (copy it again)") from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror} (check the path and its permissions)") from error


@dataclass(frozen=True, eq=False)
class MovingMNIST:
    """Sequences of moving digits.

    Attributes:
        digits: uint8 [N, 28, 28], white on black: for training MNIST's training digits, for tests the others.
        size: of the canvas's side in pixels.
        length: frames of a sequence.
        count: digits in a sequence.

    Raises:
        OptionError: one is out of its range.
    """

    digits: Pictures
    size: int = 64
    length: int = 20
    count: int = 2

    def __post_init__(self) -> None:
        if self.digits.dtype != np.uint8 or self.digits.shape[1:] != (DIGIT, DIGIT) or not len(self.digits):
            shape = f"{self.digits.dtype} {list(self.digits.shape)}"
            raise OptionError(f"digits must be uint8 [N, {DIGIT}, {DIGIT}], not {shape}")
        for name, minimum in (("size", DIGIT), ("length", 1), ("count", 1)):
            if (value := getattr(self, name)) < minimum:
                raise OptionError(f"{name} must be at least {minimum}, not {value}")

    def sequence(self, rng: np.random.Generator) -> Pictures:
        """One sequence, [length, size, size], that depends on nothing but the state of ``rng``."""
        frames = np.zeros((self.length, self.size, self.size), np.uint8)
        for _ in range(self.count):
            corners = (self._path(rng) * (self.size - DIGIT)).astype(int)
            digit = self.digits[rng.integers(len(self.digits))]
            for frame, (y, x) in zip(frames, corners, strict=True):
                place = frame[y : y + DIGIT, x : x + DIGIT]
                np.maximum(place, digit, out=place)
        return frames

    def _path(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Where a digit is in the unit square, [length, 2] (y, x); as published it has moved before the first frame."""
        position = [rng.random(), rng.random()]
        angle = rng.random() * 2 * math.pi
        velocity = [STEP * math.sin(angle), STEP * math.cos(angle)]
        path = np.empty((self.length, 2))
        for row in path:
            for axis in (0, 1):
                position[axis] += velocity[axis]
                if not 0 < position[axis] < 1:
                    position[axis] = min(max(position[axis], 0.0), 1.0)  # at the wall, not mirrored behind it
                    velocity[axis] = -velocity[axis]
            row[:] = position
        return path


def test_set(digits: Pictures, seed: int = 0, sequences: int = 1000, length: int = 20, count: int = 2) -> Pictures:  # noqa: PT028
    """A fixed set of sequences, uint8 [length, sequences, 64, 64], as ``mnist_test_seq.npy`` has them.

    Each sequence has its own generator, of the seed and its index: a smaller set is the beginning of a larger one.

    Raises:
        OptionError: an argument is out of its range.
    """
    if sequences < 1:
        raise OptionError(f"sequences must be at least 1, not {sequences}")
    if not 0 <= seed < 2**32:  # a longer one would run into the index
        raise OptionError(f"seed must be from 0 to {2**32 - 1}, not {seed}")
    source = MovingMNIST(digits, length=length, count=count)
    made = np.empty((length, sequences, source.size, source.size), np.uint8)
    for index in range(sequences):
        made[:, index] = source.sequence(np.random.default_rng([seed, index]))
    return made
