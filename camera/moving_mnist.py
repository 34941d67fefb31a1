"""Moving MNIST: two digits that drift and bounce on a small black canvas; endless for training, fixed for tests.

This is the standard protocol (Srivastava et al., 2015) as OpenSTL generates it. Digits have 28 pixels. They move a
tenth of the free distance per frame, in a direction drawn uniformly, and bounce off the walls. Overlaps take the
maximum.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from framecast.errors import OptionError, SourceError
from framecast.redact import redact

DIGIT = 28  # side of a digit in pixels
MOST_DIGITS = 99  # in a sequence
STEP = 0.1  # distance per frame, in the unit square in which a digit's corner moves
GZIP = b"\x1f\x8b"
IMAGES = b"\x00\x00\x08\x03"  # unsigned bytes in three dimensions
LABELS = b"\x00\x00\x08\x01"
HEADER = 16  # bytes: the type, and three big-endian sizes
SEEDS = 1 << 32  # number of seeds of a fixed set
LARGEST = 1 << 28  # bytes of a file, also unpacked: five times MNIST's largest. A small file may unpack to gigabytes

Pictures = NDArray[np.uint8]


def read_idx(path: Path) -> Pictures:
    """Read the digits of an IDX file, gzipped or not, uint8 [N, 28, 28].

    Raises:
        SourceError: the file is missing or damaged, or is not an IDX file of digits.
    """
    data, name = _content(path), redact(str(path))
    if data.startswith(LABELS):
        raise SourceError(f"{name} holds labels, not images (give the -images-idx3-ubyte file beside it)")
    if not data.startswith(IMAGES) or len(data) < HEADER:
        raise SourceError(f"{name} is not an IDX file of images (give MNIST's train- or t10k-images-idx3-ubyte)")
    count, height, width = (int(n) for n in np.frombuffer(data, ">u4", 3, offset=len(IMAGES)))
    if (height, width) != (DIGIT, DIGIT) or not count:
        raise SourceError(f"{name} holds {count} images of {width}x{height}, not digits of {DIGIT}x{DIGIT}")
    if (held := len(data) - HEADER) != count * DIGIT**2:
        raise SourceError(
            f"{name} is damaged: {held} bytes, but {count} digits have {count * DIGIT**2} (copy it again)"
        )
    return np.frombuffer(data, np.uint8, offset=HEADER).reshape(count, DIGIT, DIGIT)


def _content(path: Path) -> bytes:
    """Read a whole file, and unpack it if its first bytes are those of gzip; file names are not reliable."""
    name = redact(str(path))
    try:
        if path.exists() and not path.is_file():  # a named pipe would wait for a writer
            raise SourceError(f"{name} is not a file (give an IDX file of images)")
        with path.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
            file.seek(0)
            with gzip.open(file) if packed else file as content:
                data = content.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{name} is damaged: {error} (copy it again)") from error
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or "not a path"
        raise SourceError(f"cannot read {name}: {reason} (check the path and its permissions)") from error
    if len(data) > LARGEST:
        raise SourceError(f"{name} is too large for digits: more than {LARGEST} bytes (give MNIST's files)")
    return data


@dataclass(frozen=True, eq=False)
class MovingMNIST:
    """Sequences of moving digits.

    Attributes:
        digits: uint8 [N, 28, 28], white on black: MNIST's training digits for training, its test digits for tests.
        size: side of the canvas in pixels.
        length: frames per sequence.
        count: digits per sequence.

    Raises:
        OptionError: a value is out of range.
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
        if self.count > MOST_DIGITS:
            raise OptionError(f"count must be at most {MOST_DIGITS} digits, not {self.count}")

    def sequence(self, rng: np.random.Generator) -> Pictures:
        """Make one sequence, [length, size, size]. It depends only on the state of ``rng``."""
        corners, digits = self.scenes([rng])
        frames = np.zeros((self.length, self.size, self.size), np.uint8)
        for time, frame in enumerate(frames):
            self.draw(frame, corners[0, :, time], digits[0])
        return frames

    def draw(self, frame: Pictures, corners: NDArray[np.int64], digits: NDArray[np.int64]) -> None:
        """Draw digits on a black frame, [size, size].

        Args:
            frame: is changed.
            corners: the upper left corners of the digits, [count, 2] (y, x).
            digits: their indices, [count].
        """
        for (y, x), digit in zip(corners, self.digits[digits], strict=True):
            place = frame[y : y + DIGIT, x : x + DIGIT]
            np.maximum(place, digit, out=place)

    def scenes(self, rngs: Sequence[np.random.Generator]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the digits of sequences and their positions at random, without making the pictures.

        Args:
            rngs: one generator per sequence.

        Returns:
            The upper left corners of the digits, [B, count, length, 2] (y, x), and the digits' indices, [B, count].
        """
        drawn = np.empty((len(rngs), self.count, 4))
        digits = np.empty((len(rngs), self.count), np.int64)
        for sequence, rng in enumerate(rngs):
            for digit in range(self.count):
                y, x, angle = rng.random(), rng.random(), rng.random() * 2 * math.pi
                drawn[sequence, digit] = y, x, STEP * math.sin(angle), STEP * math.cos(angle)
                digits[sequence, digit] = rng.integers(len(self.digits))
        paths = _paths(drawn[..., :2], drawn[..., 2:], self.length)
        return (paths * (self.size - DIGIT)).astype(np.int64), digits


def _paths(position: NDArray[np.float64], velocity: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Return paths in the unit square, [B, count, length, 2] (y, x). As published, a digit first moves, then shows."""
    paths = np.empty((*position.shape[:2], length, 2))
    for time in range(length):
        position = position + velocity
        inside = (position > 0) & (position < 1)
        position = position.clip(0, 1)  # a digit stops at the wall; its path is not mirrored
        velocity = np.where(inside, velocity, -velocity)
        paths[:, :, time] = position
    return paths


@dataclass(frozen=True, eq=False)
class Fixed:
    """A fixed set of sequences. Each has its own generator, from the seed and its index.

    So a smaller set is the beginning of a larger one, and any sequence can be made alone.

    Attributes:
        source: the sequences' digits, size, length and number of digits.
        seed: from 0 to 2³² - 1.

    Raises:
        OptionError: the seed is out of range.
    """

    source: MovingMNIST
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < SEEDS:  # a longer seed would overlap the index in the generator's seed
            raise OptionError(f"seed must be from 0 to {SEEDS - 1}, not {self.seed}")

    def rng(self, index: int) -> np.random.Generator:
        """Return the generator of one sequence."""
        return np.random.default_rng([self.seed, index])

    def sequence(self, index: int) -> Pictures:
        """Make one sequence, [length, size, size]."""
        return self.source.sequence(self.rng(index))


def test_set(digits: Pictures, seed: int = 0, sequences: int = 1000, length: int = 20, count: int = 2) -> Pictures:  # noqa: PT028
    """Make a fixed set of sequences, uint8 [length, sequences, 64, 64], in the layout of ``mnist_test_seq.npy``.

    Raises:
        OptionError: an argument is out of range.
    """
    if sequences < 1:
        raise OptionError(f"sequences must be at least 1, not {sequences}")
    fixed = Fixed(MovingMNIST(digits, length=length, count=count), seed)
    try:
        made = np.empty((length, sequences, fixed.source.size, fixed.source.size), np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: more bytes than an address can count
        reason = f"{sequences:,} sequences of {length:,} frames do not fit into memory"
        raise OptionError(f"{reason}: make fewer, or shorter ones") from error
    for index in range(sequences):
        made[:, index] = fixed.sequence(index)
    return made
