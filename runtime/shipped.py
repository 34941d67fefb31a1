"""Finds models by name or path, and lists those that ship with the package."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path

from framecast.errors import ArtifactError
from framecast.graph.manifest import GRAPHLESS
from framecast.runtime.engines import ENGINES, choose

DEFAULT_MODEL = "edge"
ENDINGS = (".onnx", GRAPHLESS)  # of artifacts


def shipped() -> dict[str, Path]:
    """The artifacts that ship with the package, by name: networks, and manifests of models that need no graph."""
    assets = Path(str(resources.files("framecast"))) / "assets"
    paths = (path for ending in ENDINGS for path in assets.glob(f"*{ending}"))
    return {path.stem: path for path in sorted(paths)}


def labels(models: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Short names for tables: each artifact's file name without its suffix, if these are all different.

    Args:
        models: shipped names and paths of artifacts.
        taken: names that are already in use.
    """
    short = [Path(model).stem if model.endswith(ENDINGS) else model for model in models]
    return short if len({*short} - {*taken}) == len({*models}) else list(models)


def read_by(engine: str, model: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The model that an engine is to read. A model server's reads none, so that the default only stands for it.

    Raises:
        OptionError: there is no such engine.
    """
    chosen, _ = choose(engine)
    return DEFAULT_MODEL if ENGINES[chosen].address else model


def find(model: str | os.PathLike[str]) -> Path:
    """The path of an artifact, given a shipped name or a path.

    Raises:
        ArtifactError: there is no such model or file.
    """
    name = os.fspath(model)
    if name in (known := shipped()):
        return known[name]
    path = Path(name)
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:  # the path is too long, has a null character, or is not accessible
        raise ArtifactError(
            f"cannot read {name[:80]!r}: {error.__class__.__name__} (give an artifact's path)"
        ) from error
    if not exists:
        if path.suffix in ENDINGS or path.name != name:
            raise ArtifactError(f"no such artifact: {name} (make one with 'framecast export')")
        raise ArtifactError(
            f"no model {name!r}: choose from {', '.join(known)} ('framecast models' describes them), or export your own"
        )
    if not path.is_file():
        raise ArtifactError(f"{name} is not a regular file: give the path of an .onnx artifact")
    if path.stat().st_size == 0:
        raise ArtifactError(f"{name} is empty: export it again")
    return path
