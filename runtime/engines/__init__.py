"""Engines: each runs an artifact's step. One is chosen when a model is loaded, and never changed silently."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from framecast.errors import ArtifactError, EngineError, OptionError
from framecast.runtime.engines.engine import Engine, State

__all__ = ["ENGINES", "Engine", "State", "choose", "open_engine"]

ENGINES = ("onnxruntime", "openvino", "onnxruntime-cuda", "torch", "tensorrt")

PRECISIONS = {"openvino": ("fp32", "bf16"), "torch": ("fp32", "tf32", "fp16"), "tensorrt": ("fp16", "fp32")}
FORMS = ("onnxruntime", "openvino")  # which run an artifact that is int8 or in two halves
MIXED = "onnxruntime:fp16"  # no engine: what 'framecast parity' calls the graph that a build makes, run on the CPU

_log = logging.getLogger(__name__)


def open_engine(artifact: Path, name: str = "auto", *, threads: int = 0) -> Engine:
    """Load an artifact into an engine.

    Args:
        artifact: path of the ONNX file; for ``torch`` it may be the weights, ``.safetensors``.
        name: one of ``ENGINES``, or ``auto`` for the one that runs everywhere, ``onnxruntime``. For ``openvino``,
            ``torch`` and ``tensorrt`` a precision may follow, ``tensorrt:fp32``; without, the first two compute in
            fp32, and of TensorRT's engines the one that was built last is taken.
        threads: of the step on a CPU; 0 for one a core.

    Raises:
        OptionError: no such engine, or less than 0 threads.
        ArtifactError: the file is no artifact that can be run.
        EngineError: the engine cannot be had here.
    """
    chosen, precision = choose(name, threads)
    try:
        engine = _OPEN[chosen](artifact, threads, precision)
    except EngineError:
        if chosen not in FORMS and artifact.suffix != ".safetensors":
            _check_form(artifact, chosen)  # where the artifact is not for it, a driver would not help
        raise
    _log.info("engine %s on %s: %s", engine.name, engine.device, "requested" if name != "auto" else "runs everywhere")
    return engine


def choose(name: str, threads: int = 0) -> tuple[str, str]:
    """The engine that a name stands for, and the precision that was asked for, "" where none was.

    Raises:
        OptionError: see :func:`open_engine`.
    """
    chosen, colon, precision = ("onnxruntime" if name == "auto" else name).partition(":")
    if chosen not in ENGINES:
        raise OptionError(f"no engine {name!r}: this version has {', '.join(ENGINES)} (and auto)")
    if name == MIXED:
        raise OptionError(
            f"{MIXED} is only what 'framecast parity' checks, the mixed graph without a GPU: use onnxruntime; openvino "
            "is faster on a CPU, tensorrt:fp16 and torch:fp16 on a GPU"
        )
    if colon and chosen not in PRECISIONS:
        raise OptionError(f"{chosen} has one precision: leave out ':{precision}'")
    if colon and precision not in PRECISIONS[chosen]:
        raise OptionError(f"{chosen} runs in {' or '.join(PRECISIONS[chosen])}, not in {precision!r}")
    if threads < 0:
        raise OptionError(f"threads must be at least 0 (one a core), not {threads}")
    return chosen, precision


def _check_form(artifact: Path, engine: str) -> None:
    """An engine for whole float32 artifacts must have been given one.

    Raises:
        ArtifactError: it was not.
    """
    with open_engine(artifact, "onnxruntime") as reference:
        form = reference.manifest.form
    if form != "fp32":
        raise ArtifactError(
            f"{artifact} is {form}, which {engine} does not run: run it with {' or '.join(FORMS)}, or give the whole "
            "float32 artifact"
        )


def _onnxruntime(artifact: Path, threads: int, _: str) -> Engine:
    from framecast.runtime.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(artifact, threads=threads)


def _openvino(artifact: Path, threads: int, precision: str) -> Engine:
    from framecast.runtime.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(artifact, threads=threads, precision=precision or "fp32")


def _onnxruntime_cuda(artifact: Path, threads: int, _: str) -> Engine:
    from framecast.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

    return OnnxRuntimeCudaEngine(artifact, threads=threads)


def _torch(artifact: Path, threads: int, precision: str) -> Engine:
    from framecast.runtime.engines.torch import TorchEngine

    return TorchEngine.open(artifact, threads=threads, precision=precision or "fp32")


def _tensorrt(artifact: Path, _: int, precision: str) -> Engine:
    from framecast.runtime.engines.tensorrt.engine import TensorRTEngine

    return TensorRTEngine(artifact, precision=precision or None)


_OPEN: Mapping[str, Callable[[Path, int, str], Engine]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "onnxruntime-cuda": _onnxruntime_cuda,
    "torch": _torch,
    "tensorrt": _tensorrt,
}
