"""A kind of input: how to make one from a seed, and what framecast does with it."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar


class Kind(ABC):
    """One kind of input. What :meth:`make` writes depends only on the random numbers.

    To add one: a class in a module of this folder, and a row in ``KINDS`` of ``worker.py``.

    Args:
        folder: an empty folder of its own, for whole files to damage.

    Attributes:
        inputs: how many a full run tries.
        longest: characters that a message may have. One that repeats what a user typed may be as long as that.
    """

    inputs: ClassVar[int] = 1000
    longest: ClassVar[int] = 1000

    @abstractmethod
    def __init__(self, folder: Path) -> None: ...

    @abstractmethod
    def make(self, chance: random.Random, folder: Path) -> None:
        """Write one input into an empty folder."""

    @abstractmethod
    def attempt(self, folder: Path) -> None:
        """Let framecast read the input in a folder, as a user would.

        Raises:
            FramecastError: it is refused. Any other exception is a fault.
        """


def only(folder: Path) -> Path:
    """The only file of a folder."""
    (path,) = folder.iterdir()
    return path
