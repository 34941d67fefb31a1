"""Inputs that end in every verdict, for the test of the campaign itself."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from framecast.errors import FramecastError

from .kind import Kind, only

VERDICTS = ("survived", "refused", "crashed", "hung", "memory", "printed", "traceback", "two lines")


class Broken(Kind):
    """An input that names its own verdict."""

    def __init__(self, folder: Path) -> None:
        pass

    def make(self, chance: random.Random, folder: Path) -> None:
        (folder / "verdict").write_text(chance.choice(VERDICTS))

    def attempt(self, folder: Path) -> None:
        match only(folder).read_text():
            case "refused":
                raise FramecastError("cannot read it: it is damaged (make it again)")
            case "two lines":
                raise FramecastError("cannot\nread it")
            case "crashed":
                os.abort()
            case "hung":
                while True:
                    pass
            case "memory":
                (b"x" * (1 << 28)).count(b"y")
            case "printed":
                print("a library's line", file=sys.stderr)  # noqa: T201
            case "traceback":
                raise KeyError("a key")
