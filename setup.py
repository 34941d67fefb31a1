"""Stops the build if a room of the package is missing. All other settings are in pyproject.toml.

``src/framecast/<room>`` are links to the folders at the root. A checkout without links has text files there, and a
careless copy has empty folders. setuptools would then omit the room silently.
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
