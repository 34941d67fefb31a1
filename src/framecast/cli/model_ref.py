"""Resolves a model's name on the command line."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from framecast.cli.extras import needs_extra

MODEL_HELP = (
    "The path of an artifact, or a name that 'framecast models' lists. A network without shipped weights gets random "
    "ones for this command."
)


@dataclass(frozen=True)
class ModelRef:
    """A model as the user named it, and its artifact.

    Attributes:
        given: the name or path as typed.
        path: the artifact; None for a configuration that does not ship: :meth:`artifact` exports it.
    """

    given: str
    path: Path | None

    @classmethod
    def resolve(cls, given: str, *, traffic: bool = False) -> ModelRef:
        """Look up a name or path. This exports nothing yet.

        Args:
            given: the name or path as typed.
            traffic: whether a network whose frames are not pictures will do.

        Raises:
            ArtifactError: there is no such model, configuration or file.
            OptionError: the name is a configuration that does not ship and whose frames are not pictures.
        """
        from framecast.models.configs import CONFIGS, find_pictures
        from framecast.runtime.shipped import find, shipped

        if given in CONFIGS and given not in shipped():
            if not traffic:
                find_pictures(given, f"show {given} a camera or a clip")
            return cls(given, None)
        return cls(given, find(given))

    @contextmanager
    def artifact(self, engine: str = "auto") -> Iterator[Path]:
        """The path to open, valid inside the ``with``.

        A configuration that does not ship is exported with random weights. The torch engine gets the weights file
        instead, because an artifact may hold merged weights.

        Raises:
            EngineError: the engine is not available here. Nothing was exported.
            ExportError: the export failed.
            FramecastError: torch is needed and missing.
        """
        if self.path is not None:
            yield self.path
            return
        from framecast.runtime.engines import check_presence

        with needs_extra(f"{self.given}, which does not ship,"):
            from framecast.export.exporter import export_random
        check_presence(engine)
        print(f"{self.given} ships without weights: exporting it with random ones for this run", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="framecast-") as folder:
            yield export_random(self.given, Path(folder), artifact=not engine.startswith("torch"))
