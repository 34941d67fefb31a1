"""Builds a TensorRT engine from an artifact, without torch: mixed precision, picture input and output, a fixed batch.

Networks are strongly typed: the graph sets the precision, and TensorRT follows it. TF32 is off, because the parts that
stay in float32 (statistics, least squares, coordinates) need full precision.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from onnx import ModelProto

from framecast.errors import ArtifactError, EngineError, ExportError, OptionError, SinkError, one_line
from framecast.export.plugins.candidates import Built, best, check, with_plugins
from framecast.export.plugins.ladder import choose
from framecast.export.plugins.measure import measure
from framecast.export.plugins.rewrite import PREFIX, has_operators
from framecast.files import sha256
from framecast.graph.artifact import load, manifest_of
from framecast.graph.device import device_graph
from framecast.graph.mixed_precision import to_half
from framecast.graph.tensorrt_workarounds import fixed, without_moving_rows
from framecast.runtime.engines.tensorrt import cache
from framecast.runtime.engines.tensorrt.cache import Key, Record
from framecast.runtime.engines.tensorrt.library import RTX_TARGETS, Gpu, Library

_log = logging.getLogger(__name__)
# Receives the share that is done (0 to 1) and the phase. The build ends when it returns False.
Progress = Callable[[float, str], bool]


@dataclass(frozen=True)
class Loaded:
    """An artifact that has been read and checked.

    Attributes:
        sha256: hash of the file. It is taken before the file is read, so that a later change is noticed.
        graph: the artifact's step.
    """

    sha256: str
    graph: ModelProto


@dataclass(frozen=True)
class BuildRequest:
    """An engine to build.

    Attributes:
        artifact: path of the ONNX file.
        model: the model as the user named it.
        library: library that builds the engine and will run it.
        gpu: GPU of this machine, or None.
        target: compute capability to build for, if not that of this machine's GPU.
        precision: ``fp16`` or ``fp32``.
        batch: number of cameras.
        camera: (width, height) of the camera's pictures, if the engine should resize them.
        plugins: one of :data:`framecast.export.plugins.ladder.CHOICES`.
        loaded: the artifact, if the caller has read it already; otherwise the build reads it.
    """

    artifact: Path
    model: str
    library: Library
    gpu: Gpu | None = None
    target: str | None = None
    precision: str = "fp16"
    batch: int = 1
    camera: tuple[int, int] | None = None
    plugins: str = "auto"
    loaded: Loaded | None = None

    def key(self) -> Key:
        """Return the engine's cache key, except for its rung, which the build may choose later.

        Raises:
            OptionError: the library cannot build for the target.
            EngineError: the library cannot build for this machine's GPU, or there is neither a GPU nor a target.
        """
        name, targets = self.library.name, ", ".join(RTX_TARGETS)
        if self.target is not None and not self.library.rtx:
            raise OptionError(
                f"cannot build with --for {self.target}: {name} builds for this machine's GPU only; build on the "
                "device and leave out --for"
            )
        if self.target is not None and self.target not in RTX_TARGETS:
            raise OptionError(
                f"no compute capability {self.target!r}: --for takes those of TensorRT for RTX ({targets})"
            )
        if self.target is None and self.gpu is None:
            raise EngineError(
                f"no GPU to build for: give a compute capability with --for (TensorRT for RTX: {targets})"
            )
        capability = self.target or (self.gpu.capability if self.gpu else "")
        if self.library.rtx and capability not in RTX_TARGETS:
            raise EngineError(
                f"TensorRT for RTX does not build for compute capability {capability} (only for {targets}): "
                "install tensorrt itself, from JetPack or NVIDIA's containers"
            )
        return Key(
            artifact=self.loaded.sha256 if self.loaded else sha256(self.artifact),
            library=name,
            version=self.library.version,
            gpu="" if self.library.rtx or self.gpu is None else self.gpu.name,
            capability=capability,
            precision=self.precision,
            batch=self.batch,
            camera=self.camera,
        )


def build(request: BuildRequest, progress: Progress = lambda share, phase: True) -> tuple[bytes, Record]:
    """Build an engine and store it in the cache; return the engine and its record.

    Raises:
        ArtifactError: the file is not an artifact.
        ExportError: its network takes no pictures, or TensorRT does not support an operator.
        OptionError, EngineError: see :meth:`BuildRequest.key`; or the build failed, or the cache cannot be used.
        SinkError: the engine cannot be written.
        KeyboardInterrupt: ``progress`` returned False; nothing is stored.
    """
    key = request.key()
    cache.folder()  # raises before a build of several minutes
    network = network_graph(request)
    if sha256(request.artifact) != key.artifact:
        raise ArtifactError(f"{request.artifact} has changed during the build: build it again")
    choice = choose(request.plugins, request.library, request.gpu, has_operators(network))
    started = time.monotonic()

    def one(rung: str, begin: float, end: float) -> Built:
        graph, plugins = with_plugins(network, rung, request.library, request.gpu)
        scaled = lambda share, phase: progress(begin + (end - begin) * share, phase)  # noqa: E731
        engine, layers = compile_network(request, key, graph, scaled)
        layers["engine"] = inspect(request, key, engine)
        check(rung, plugins, layers["engine"].get("plugins", ()), request.model)
        return Built(rung, engine, layers)

    built, compared = best(choice, one, lambda engine: measure(request.library, engine))
    engine = built.engine
    record = Record(
        key=replace(key, rung=built.rung),
        model=manifest_of(network).config,
        path=str(request.artifact.resolve()),
        sha256=hashlib.sha256(engine).hexdigest(),
        size=len(engine),
        seconds=round(time.monotonic() - started, 2),
        built=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        layers={**built.layers, "plugins": {"asked": request.plugins, **compared}},
        manifest=manifest_of(network).to_json(),
    )
    cache.put(record, engine)
    return engine, record


def network_graph(request: BuildRequest) -> ModelProto:
    """Return the graph for TensorRT.

    The precision changes first, so that the nodes that :func:`device_graph` adds stay float32.

    Raises:
        ArtifactError: the file is not an artifact.
        ExportError: its network takes no pictures.
    """
    artifact = request.loaded.graph if request.loaded else load(request.artifact)
    network = to_half(artifact) if request.precision == "fp16" else artifact
    return without_moving_rows(fixed(device_graph(network, request.camera), request.batch))


def compile_network(
    request: BuildRequest, key: Key, proto: ModelProto, progress: Progress
) -> tuple[bytes, dict[str, dict[str, Any]]]:
    """Build the engine of a graph; return it and a summary of its network."""
    trt, logger = request.library.trt, request.library.logger()
    with warnings.catch_warnings(), request.library.errors() as errors:
        warnings.simplefilter("ignore", DeprecationWarning)  # some versions deprecate calls that other versions require
        builder = trt.Builder(logger)
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # TensorRT 11 needs no flag
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        _parse(trt.OnnxParser(network, logger), errors, proto, request.model)
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        watch = _monitor(trt, progress)
        config.progress_monitor = watch
        if request.library.rtx:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, RTX_TARGETS[key.capability]), 0)
        else:  # TensorRT for RTX measures no kernels, so it has no timing cache
            place = cache.timing(request.library, key.device)
            measured = config.create_timing_cache(cache.get_timing(place)) or config.create_timing_cache(b"")
            config.set_timing_cache(measured, ignore_mismatch=False)
        try:
            engine = builder.build_serialized_network(network, config)
        except MemoryError:
            engine = None
            errors.append("out of memory")
        if watch.stopped:
            raise KeyboardInterrupt
        if engine is None:
            raise EngineError(_failure(request.model, errors))
        if not request.library.rtx:
            try:
                cache.put_timing(place, bytes(config.get_timing_cache().serialize()))
            except SinkError as error:
                _log.warning("the next build will measure its kernels again: %s", error)
        return bytes(engine), {"network": _types(trt, network)}


def _parse(parser: Any, errors: list[str], proto: ModelProto, model: str) -> None:
    if parser.parse(proto.SerializeToString()):
        return
    error = parser.get_error(0) if parser.num_errors else None
    where = f"operator {error.node_operator()} (node {error.node_name()!r})" if error else "graph"
    why = one_line(error.desc() if error else "; ".join(errors) or "it gives no reason")
    raise ExportError(
        f"TensorRT does not accept the {where} of {model} ({why}): run it with another engine, or report this"
    )


def _failure(model: str, errors: list[str]) -> str:
    if any(words in error.lower() for error in errors for words in ("out of memory", "outofmemory", "bad_alloc")):
        return (
            f"not enough memory to build {model}: end other programs, those on the GPU first, or use a smaller --batch"
        )
    return (
        f"TensorRT could not build {model} ({one_line(errors[0] if errors else 'it gives no reason')}): try --verbose"
    )


def _types(trt: Any, network: Any) -> dict[str, Any]:
    """Count the layers of a parsed network, and those whose output is float16 or float32."""
    outputs = (network.get_layer(i).get_output(0) for i in range(network.num_layers))
    found = Counter(output.dtype for output in outputs if output is not None)
    return {"layers": network.num_layers, "float16": found[trt.float16], "float32": found[trt.float32]}


def _monitor(trt: Any, progress: Progress) -> Any:
    """Return an ``IProgressMonitor`` that reports to ``progress`` and records whether the build should stop."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped = False
            self._phases: dict[str, list[Any]] = {}  # by phase: its parent, its number of steps, and how many are done
            self._share = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = [parent_phase, max(num_steps, 1), 0]

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._phases[phase_name][2] = step + 1
            return self._tell(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            parent, steps, _ = self._phases.pop(phase_name)
            if parent is None:
                self._phases[phase_name] = [None, steps, steps]
                self._tell(phase_name)

        def _tell(self, phase: str) -> bool:
            share, name = 0.0, phase
            while name in self._phases:
                parent, steps, done = self._phases[name]
                share = min((done + share) / steps, 1.0)
                name = parent
            self._share = max(self._share, share)
            try:
                self.stopped = self.stopped or not progress(self._share, phase)
            except KeyboardInterrupt:  # an exception must not pass through TensorRT
                self.stopped = True
            return not self.stopped

    return Monitor()


def inspect(request: BuildRequest, key: Key, engine: bytes) -> dict[str, Any]:
    """Return the layers, precisions and plugins of an engine, from TensorRT's inspector.

    If no GPU here can run the engine, the result has only ``not_inspected``, with the reason.

    Raises:
        EngineError: TensorRT cannot read the engine that it built.
    """
    if request.gpu is None or request.gpu.capability != key.capability:
        return {"not_inspected": f"there is no GPU of compute capability {key.capability} here"}
    trt = request.library.trt
    with request.library.errors() as errors:
        read_back = trt.Runtime(request.library.logger()).deserialize_cuda_engine(engine)
    if read_back is None:
        raise EngineError(_failure(request.model, errors))
    inspector = read_back.create_engine_inspector()
    return summary(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def summary(information: str) -> dict[str, Any]:
    """Summarize the inspector's JSON: the number of layers, their output types, and the plugins."""
    layers = json.loads(information).get("Layers", [])
    detailed = [layer for layer in layers if isinstance(layer, dict)]  # without details: a name
    types = Counter(_type(layer) for layer in detailed)
    plugins = [str(layer.get("Name")) for layer in detailed if _is_plugin(layer)]
    return {"layers": len(layers), "types": dict(types.most_common()), "plugins": plugins}


def _is_plugin(layer: dict[str, Any]) -> bool:
    """Return whether a layer is a plugin. Its name decides too, because AOT plugins may have another type."""
    return "plugin" in str(layer.get("LayerType")).lower() or PREFIX in str(layer.get("Name"))


def _type(layer: dict[str, Any]) -> str:
    """Return the type of a layer's first output. TensorRT 11 has a field for it; 10 puts it into the format's text."""
    output = (layer.get("Outputs") or [{}])[0]
    words = str(output.get("DataType") or output.get("Format/Datatype") or output.get("Format") or "").lower()
    known = {"other": ("bf16", "bfloat16"), "float16": ("fp16", "half", "float16"), "float32": ("fp32", "float")}
    known |= {"int8": ("int8",), "bool": ("bool",)}
    return next((name for name, marks in known.items() if any(mark in words for mark in marks)), "other")
