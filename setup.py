"""Stops the build where a room of the package did not arrive; all else is in pyproject.toml.

``src/framecast/<room>`` are links to the folders at the root. A checkout without links leaves text files there, a
careless copy empty folders, and setuptools would leave the room out without a word.
"""

from pathlib import Path

from setuptools import setup

PACKAGE = Path(__file__).resolve().parent / "src" / "framecast"
ROOMS = ("bench", "camera", "evaluation", "export", "graph", "kernels", "models", "runtime", "training")

for room in ROOMS:
    if not (PACKAGE / room / "__init__.py").is_file():
        raise SystemExit(
            f"framecast cannot be built: src/framecast/{room} has no __init__.py. It must be a link to ../../{room}; "
            "clone again with links allowed (git config core.symlinks true)."
        )

setup()
