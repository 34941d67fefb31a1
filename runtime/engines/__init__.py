"""Engines: each runs an artifact's step. Loading a model selects one engine. There is no fallback to another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from framecast.errors import ArtifactError, EngineError, OptionError
from framecast.graph.manifest import GRAPHLESS
from framecast.runtime.engines import presence
from framecast.runtime.engines.engine import Engine, State
from framecast.runtime.engines.server_address import EXAMPLE, parse

__all__ = ["ENGINES", "Engine", "EngineRow", "State", "check_presence", "choose", "open_engine"]

WHOLE = ("fp32",)
EVERY_FORM = ("fp32", "int8", "half of a step")
MIXED = "onnxruntime:fp16"  # not an engine: 'framecast parity' uses this name for a build's mixed graph on the CPU
MOST_THREADS = 1024  # far above any use: a library tries to start as many as it is told

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineRow:
    """Describes an engine before it is opened.

    Attributes:
        open: opens an artifact, given its path, CPU threads, precision ("" for the engine's own choice) and batch size.
            It imports the engine's library.
        look: describes the engine on this machine in words. If a part is missing, it raises EngineError and says how
            to get it.
        use: the engine's purpose in a few words.
        precisions: the precisions to choose from; empty if there is only one.
        forms: the forms of artifact that it runs; see :attr:`framecast.graph.manifest.Manifest.form`. Empty if it runs
            no graphs.
        address: an example of the engine's full name if an address follows the colon, instead of a precision. The
            engine then runs the model at that address, and reads no artifact.
    """

    open: Callable[[Path, int, str, int], Engine]
    look: Callable[[], str]
    use: str
    precisions: tuple[str, ...] = ()
    forms: tuple[str, ...] = WHOLE
    address: str = ""


def open_engine(artifact: Path, name: str = "auto", *, threads: int = 0, batch: int = 1) -> Engine:
    """Load an artifact into an engine.

    Args:
        artifact: path of the ONNX file; for ``torch`` also of the weights, ``.safetensors``; for ``opencv`` of the
            manifest, ``.json``.
        name: one of ``ENGINES``, or ``auto`` for the one that runs everywhere: ``opencv`` for a model of motion,
            ``onnxruntime`` for a network. If the engine has several precisions, one may follow: ``tensorrt:fp32``. By
            default ``openvino`` and ``torch`` compute in fp32, and ``tensorrt`` uses the most recently built engine.
            After ``server`` follows an address, ``server://host:8001/edge``; the artifact is then not read.
        threads: CPU threads of the step; 0 means one per core.
        batch: frames in one step. Only ``tensorrt`` must know it in advance, because a built engine has a fixed batch.

    Raises:
        OptionError: there is no such engine, or ``threads`` is negative.
        ArtifactError: the file is not a usable artifact.
        EngineError: the engine is not available on this machine.
    """
    chosen, precision = choose(name, threads)
    if artifact.suffix == GRAPHLESS and not ENGINES[chosen].address:
        if name == "auto":
            chosen = "opencv"
        elif chosen != "opencv":
            raise ArtifactError(
                f"{artifact.stem} has no graph: it runs with opencv, not with {chosen} (name a network, such as "
                f"stip-edge, or export its graphs: framecast export {artifact.stem} -o {artifact.stem}.onnx)"
            )
    row = ENGINES[chosen]
    try:
        engine = row.open(artifact, threads, precision, batch)
    except EngineError:
        if row.forms == WHOLE and artifact.suffix != ".safetensors":
            _check_form(artifact, chosen)  # report this first: if the artifact does not fit, a driver would not help
        raise
    _log.debug("engine %s on %s: %s", engine.name, engine.device, "requested" if name != "auto" else "runs everywhere")
    return engine


def choose(name: str, threads: int = 0) -> tuple[str, str]:
    """Parse a name into an engine and a precision or address, which is "" if the name has none.

    Raises:
        OptionError: see :func:`open_engine`.
    """
    chosen, colon, precision = ("onnxruntime" if name == "auto" else name).partition(":")
    if chosen not in ENGINES:
        raise OptionError(f"no engine {name!r}: this version has {', '.join(ENGINES)} (and auto)")
    if name == MIXED:
        raise OptionError(
            f"{MIXED} is not an engine, only the mixed graph that 'framecast parity' checks on a CPU: use onnxruntime; "
            "openvino is faster on a CPU, tensorrt:fp16 and torch:fp16 on a GPU"
        )
    if ENGINES[chosen].address:
        if colon:
            parse(precision)
        return chosen, precision
    precisions = ENGINES[chosen].precisions
    if colon and not precisions:
        raise OptionError(f"{chosen} has one precision: leave out ':{precision}'")
    if colon and precision not in precisions:
        raise OptionError(f"{chosen} runs in {' or '.join(precisions)}, not in {precision!r}")
    if not 0 <= threads <= MOST_THREADS:
        raise OptionError(f"threads must be 0 (one per core) to {MOST_THREADS}, not {threads}")
    return chosen, precision


def check_presence(name: str) -> None:
    """Check that an engine is available, before anything is exported or decoded for it.

    Args:
        name: as for :func:`open_engine`.

    Raises:
        OptionError: there is no such engine.
        EngineError: part of it is missing. The message explains how to get it.
    """
    chosen, _ = choose(name)
    try:
        ENGINES[chosen].look()
    except EngineError as error:
        raise EngineError(f"cannot use {chosen}: {error}") from error


def _check_form(artifact: Path, engine: str) -> None:
    """Check that an engine can run an artifact's form.

    Raises:
        ArtifactError: it cannot.
    """
    with open_engine(artifact, "onnxruntime") as reference:
        form = reference.manifest.form
    if form not in ENGINES[engine].forms:
        able = " or ".join(name for name, row in ENGINES.items() if form in row.forms)
        raise ArtifactError(
            f"{artifact} is {form}, which {engine} cannot run: run it with {able}, or give the whole float32 artifact"
        )


def _onnxruntime(artifact: Path, threads: int, _: str, __: int) -> Engine:
    from framecast.runtime.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(artifact, threads=threads)


def _opencv(artifact: Path, threads: int, precision: str, _: int) -> Engine:
    from framecast.runtime.engines.opencv import OpenCvEngine

    return OpenCvEngine(artifact, threads=threads, precision=precision or "full")


def _openvino(artifact: Path, threads: int, precision: str, _: int) -> Engine:
    from framecast.runtime.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(artifact, threads=threads, precision=precision or "fp32")


def _onnxruntime_cuda(artifact: Path, threads: int, precision: str, _: int) -> Engine:
    from framecast.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

    return OnnxRuntimeCudaEngine(artifact, threads=threads, precision=precision or "fp32")


def _torch(artifact: Path, threads: int, precision: str, _: int) -> Engine:
    from framecast.runtime.engines.torch import TorchEngine

    return TorchEngine.open(artifact, threads=threads, precision=precision or "fp32")


def _tensorrt(artifact: Path, _: int, precision: str, batch: int) -> Engine:
    from framecast.runtime.engines.tensorrt.engine import TensorRTEngine

    return TensorRTEngine(artifact, precision=precision or None, batch=batch)


def _server(_: Path, __: int, address: str, ___: int) -> Engine:
    if not address:
        raise EngineError(f"no model server is named: write {EXAMPLE}, with the server's host and model")
    from framecast.runtime.engines.server import ServerEngine

    return ServerEngine(parse(address))


ENGINES: Mapping[str, EngineRow] = {
    "opencv": EngineRow(
        _opencv, presence.opencv, "the CPU: models of motion, such as edge", ("full", "fast"), forms=()
    ),
    "onnxruntime": EngineRow(
        _onnxruntime, presence.onnxruntime, "the CPU: networks; runs everywhere", forms=EVERY_FORM
    ),
    "openvino": EngineRow(
        _openvino, presence.openvino, "the CPU, faster", precisions=("fp32", "bf16"), forms=EVERY_FORM
    ),
    "onnxruntime-cuda": EngineRow(
        _onnxruntime_cuda, presence.onnxruntime_cuda, "an NVIDIA GPU", precisions=("fp32", "tf32")
    ),
    "torch": EngineRow(
        _torch, presence.torch, "an NVIDIA GPU with our kernels, or the CPU", precisions=("fp32", "tf32", "fp16")
    ),
    "tensorrt": EngineRow(_tensorrt, presence.tensorrt, "an NVIDIA GPU", precisions=("fp16", "fp32")),
    "server": EngineRow(_server, presence.server, "a model server (NVIDIA Triton)", forms=(), address=EXAMPLE),
}
