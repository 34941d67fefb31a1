"""Engines: each runs an artifact's step. One is chosen when a model is loaded, and never changed silently."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from framecast.errors import ArtifactError, EngineError, OptionError
from framecast.runtime.engines import presence
from framecast.runtime.engines.engine import Engine, State

__all__ = ["ENGINES", "Engine", "EngineRow", "State", "check_presence", "choose", "open_engine"]

WHOLE = ("fp32",)
EVERY_FORM = ("fp32", "int8", "half of a step")
MIXED = "onnxruntime:fp16"  # no engine: what 'framecast parity' calls the graph that a build makes, run on the CPU

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineRow:
    """All that is known of an engine before it is opened.

    Attributes:
        open: opens an artifact: path, CPU threads, precision ("" where none was asked for), frames at once. It imports
            the engine's library.
        look: what of it is on this machine, in words; raises EngineError that says what is missing and how to get it.
        use: what it is good for, in a few words.
        precisions: that may be asked for; none where there is only one.
        forms: of artifacts that it runs; see :attr:`framecast.graph.manifest.Manifest.form`.
    """

    open: Callable[[Path, int, str, int], Engine]
    look: Callable[[], str]
    use: str
    precisions: tuple[str, ...] = ()
    forms: tuple[str, ...] = WHOLE


def open_engine(artifact: Path, name: str = "auto", *, threads: int = 0, batch: int = 1) -> Engine:
    """Load an artifact into an engine.

    Args:
        artifact: path of the ONNX file; for ``torch`` it may be the weights, ``.safetensors``.
        name: one of ``ENGINES``, or ``auto`` for the one that runs everywhere, ``onnxruntime``. A precision may follow
            for those that have several: ``tensorrt:fp32``. Without one, ``openvino`` and ``torch`` compute in fp32,
            and ``tensorrt`` takes the engine that was built last.
        threads: of the step on a CPU; 0 for one a core.
        batch: frames in one step. Only ``tensorrt`` needs to know it beforehand: an engine is built for one batch.

    Raises:
        OptionError: no such engine, or less than 0 threads.
        ArtifactError: the file is no artifact that can be run.
        EngineError: the engine cannot be had here.
    """
    chosen, precision = choose(name, threads)
    row = ENGINES[chosen]
    try:
        engine = row.open(artifact, threads, precision, batch)
    except EngineError:
        if row.forms == WHOLE and artifact.suffix != ".safetensors":
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
    precisions = ENGINES[chosen].precisions
    if colon and not precisions:
        raise OptionError(f"{chosen} has one precision: leave out ':{precision}'")
    if colon and precision not in precisions:
        raise OptionError(f"{chosen} runs in {' or '.join(precisions)}, not in {precision!r}")
    if threads < 0:
        raise OptionError(f"threads must be at least 0 (one a core), not {threads}")
    return chosen, precision


def check_presence(name: str) -> None:
    """Say that an engine cannot be had here before anything is exported or decoded for it.

    Args:
        name: as for :func:`open_engine`.

    Raises:
        OptionError: no such engine.
        EngineError: part of it is missing; the message says how to get it.
    """
    chosen, _ = choose(name)
    try:
        ENGINES[chosen].look()
    except EngineError as error:
        raise EngineError(f"cannot use {chosen}: {error}") from error


def _check_form(artifact: Path, engine: str) -> None:
    """An engine for whole float32 artifacts must have been given one.

    Raises:
        ArtifactError: it was not.
    """
    with open_engine(artifact, "onnxruntime") as reference:
        form = reference.manifest.form
    if form not in ENGINES[engine].forms:
        able = " or ".join(name for name, row in ENGINES.items() if form in row.forms)
        raise ArtifactError(
            f"{artifact} is {form}, which {engine} does not run: run it with {able}, or give the whole float32 artifact"
        )


def _onnxruntime(artifact: Path, threads: int, _: str, __: int) -> Engine:
    from framecast.runtime.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(artifact, threads=threads)


def _openvino(artifact: Path, threads: int, precision: str, _: int) -> Engine:
    from framecast.runtime.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(artifact, threads=threads, precision=precision or "fp32")


def _onnxruntime_cuda(artifact: Path, threads: int, _: str, __: int) -> Engine:
    from framecast.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

    return OnnxRuntimeCudaEngine(artifact, threads=threads)


def _torch(artifact: Path, threads: int, precision: str, _: int) -> Engine:
    from framecast.runtime.engines.torch import TorchEngine

    return TorchEngine.open(artifact, threads=threads, precision=precision or "fp32")


def _tensorrt(artifact: Path, _: int, precision: str, batch: int) -> Engine:
    from framecast.runtime.engines.tensorrt.engine import TensorRTEngine

    return TensorRTEngine(artifact, precision=precision or None, batch=batch)


ENGINES: Mapping[str, EngineRow] = {
    "onnxruntime": EngineRow(_onnxruntime, presence.onnxruntime, "the CPU; runs everywhere", forms=EVERY_FORM),
    "openvino": EngineRow(
        _openvino, presence.openvino, "the CPU, faster", precisions=("fp32", "bf16"), forms=EVERY_FORM
    ),
    "onnxruntime-cuda": EngineRow(_onnxruntime_cuda, presence.onnxruntime_cuda, "an NVIDIA GPU"),
    "torch": EngineRow(
        _torch, presence.torch, "an NVIDIA GPU with our kernels, or the CPU", precisions=("fp32", "tf32", "fp16")
    ),
    "tensorrt": EngineRow(_tensorrt, presence.tensorrt, "an NVIDIA GPU", precisions=("fp16", "fp32")),
}
