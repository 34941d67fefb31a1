"""Engines: each runs an artifact's step. One is chosen when a model is loaded, and never changed silently."""

from __future__ import annotations

import logging
from pathlib import Path

from framecast.errors import OptionError
from framecast.runtime.engines.engine import Engine, State

__all__ = ["ENGINES", "Engine", "State", "open_engine"]

ENGINES = ("onnxruntime",)

_log = logging.getLogger(__name__)


def open_engine(artifact: Path, name: str = "auto", *, threads: int = 0) -> Engine:
    """Load an artifact into an engine.

    Args:
        artifact: path of the ONNX file.
        name: one of ``ENGINES``, or ``auto`` for the first that can be had here.
        threads: of the step on a CPU; 0 for one a core.

    Raises:
        OptionError: no such engine, or less than 0 threads.
        ArtifactError: the file is no artifact that can be run.
        EngineError: the engine cannot be had here.
    """
    if name not in ("auto", *ENGINES):
        raise OptionError(f"no engine {name!r}: this version has {', '.join(ENGINES)} (and auto)")
    if threads < 0:
        raise OptionError(f"threads must be at least 0 (one a core), not {threads}")
    from framecast.runtime.engines.onnxruntime import OnnxRuntimeEngine

    engine = OnnxRuntimeEngine(artifact, threads=threads)
    _log.info("engine %s on %s: %s", engine.name, engine.device, "requested" if name != "auto" else "runs everywhere")
    return engine
