"""Moving MNIST's fixed test set, made one sequence at a time: ``framecast eval MODEL mnist://IDX_FILE?seed=0``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsIndex

from framecast.camera import Image
from framecast.camera.digits import FIXED, Drift, parse_drift
from framecast.camera.moving_mnist import Fixed
from framecast.redact import redact

TEST_SET = 10_000  # sequences, as in the papers
_SHIPPED = "300 training digits that ship (networks have seen them: give MNIST's test digits, mnist://t10k-images…)"


@dataclass(frozen=True, eq=False)
class Made:
    """Sequences with the shape and the indices of an array, uint8 [T, N, H, W], that are made when they are read.

    Attributes:
        name: short name for tables.
        about: their origin, for people.
        fixed: makes each sequence.
    """

    name: str
    about: str
    fixed: Fixed

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[T, N, H, W]."""
        source = self.fixed.source
        return source.length, TEST_SET, source.size, source.size

    def __getitem__(self, key: tuple[slice, SupportsIndex]) -> Image:
        """Make some frames of one sequence, [T, H, W]: ``made[:, 7]``."""
        frames, index = key
        return self.fixed.sequence(int(index))[frames]


def is_made(place: str) -> bool:
    """Return whether a place is a ``mnist://`` URI."""
    return place.lower().startswith("mnist:")


def open_made(place: str) -> Made:
    """Open the test set of a ``mnist://`` URI. By default, its sequences have 20 frames and two digits, of seed 0.

    Raises:
        SourceError: the digits cannot be read, or an option is unknown or out of range.
    """
    drift = parse_drift(place, Drift(scene=FIXED, seed=0), without=("fps", "frames"))
    fixed = drift.scenes()
    digits = f"{len(fixed.source.digits):,} of {redact(drift.file)}" if drift.file else _SHIPPED
    drawn = f"{drift.digits} digit{'s' * (drift.digits != 1)} a sequence, from the {digits}"
    return Made(f"mnist, seed {drift.seed}", f"{drawn}, seed {drift.seed}", fixed)
