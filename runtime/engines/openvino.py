"""OpenVINO on the CPU: compiled for it when a model is loaded, with two state buffers and no copies between them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from framecast.errors import ArtifactError, EngineError, first_line
from framecast.graph.manifest import beside, check_halves
from framecast.runtime.convert import Tensor
from framecast.runtime.engines.engine import Engine, Moment, Phases, State, state_buffers, step_buffers
from framecast.runtime.engines.onnxruntime import check_boundary

# What stands around the reason in an error of OpenVINO's: where it was thrown, and what was checked there.
_AROUND = ("Exception from ", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")

_Bound = tuple[list[tuple[int, Any]], list[tuple[int, Any]]]  # what is read and written: a port's number, its tensor


class OpenVinoEngine(Engine):
    """See :class:`Engine`. Inputs and outputs are the states' own buffers.

    Args:
        artifact: path of the ONNX file. One that is quantised (QDQ nodes) runs in int8 in either precision.
        threads: of the step; 0 for one a core.
        precision: ``fp32``; or ``bf16``, in which a convolution's numbers keep 8 bits and the state stays float32. A
            network that warps is not run so: OpenVINO rounds the coordinates too, and pictures land elsewhere.

    Raises:
        ArtifactError: the file is no artifact that can be run.
        EngineError: OpenVINO or onnx is missing, the CPU or the network is not for bf16, or OpenVINO lacks one of the
            operators.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, artifact: Path, *, threads: int = 0, precision: str = "fp32") -> None:
        try:
            from framecast.graph.artifact import load, manifest_of, read

            self._openvino = _without_telemetry()
        except ImportError as error:
            raise EngineError(
                f"openvino cannot be loaded ({first_line(error)}): pip install 'framecast[openvino]'"
            ) from error
        self.precision = precision
        self.version: str = self._openvino.__version__.partition("-")[0]
        core: Any = self._openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EngineError("this CPU does not compute in bf16: use openvino:fp32")
        proto, before = read(artifact), None
        try:
            self.manifest = manifest_of(proto)
            check_boundary(self.manifest, proto.graph.input, proto.graph.output)
        except ArtifactError as error:
            raise ArtifactError(f"{artifact}: {error}") from error
        if precision == "bf16" and any(node.op_type == "GridSample" for node in proto.graph.node):
            raise EngineError(
                f"{self.manifest.config} warps pictures, and bf16 is too coarse for the positions that it reads: "
                "use openvino:fp32"
            )
        if self.manifest.precomputed:
            before = load(beside(artifact))
            check_halves(artifact, *({e.key: e.value for e in half.metadata_props} for half in (proto, before)))
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            # Without it OpenVINO takes bf16 wherever the CPU has it.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
        }
        try:
            self._graph: _Graph | None = _Graph(self._openvino, core, proto, options)
            self._before = _Graph(self._openvino, core, before, options) if before else None
        except Exception as error:  # OpenVINO raises RuntimeError, onnx its own
            raise EngineError(
                f"openvino cannot run {self.manifest.config} ({_reason(error)}): use another engine, as onnxruntime"
            ) from error
        self._bindings: Phases[_Bound] = Phases()

    def precompute(self, state: State) -> None:
        """See :meth:`Engine.precompute`."""
        if self._before is None or state.is_precomputed:
            return
        graph = self._before
        self._run(graph, len(state.prediction), graph.bind(state_buffers(self.manifest, state), state.precomputed))
        state.is_precomputed = True

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`."""
        graph = self._graph
        if graph is None:
            raise EngineError(f"{self.manifest.config} is closed: load it again")

        def bind(moment: Moment) -> _Bound:
            return graph.bind(*step_buffers(self.manifest, state_in, moment, state_out))

        reads, writes = self._bindings.at(state_in, state_out, bind)
        self.precompute(state_in)
        prediction: Tensor = state_out.prediction
        frame = np.ascontiguousarray(frame)  # of several predictions fed back at once, one is not
        given = self._openvino.Tensor(frame, shared_memory=True)
        self._run(graph, len(prediction), ([*reads, (graph.inputs.index("frame"), given)], writes))
        return prediction

    def _run(self, graph: _Graph, batch: int, buffers: _Bound) -> None:
        try:
            graph.run(batch, buffers)
        except Exception as error:
            raise EngineError(f"openvino could not run {self.manifest.config}: {_reason(error)}") from error

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        self._bindings.clear()
        self._graph = self._before = None


class _Graph:
    """An ONNX graph, compiled once for each size of a batch, that runs on its caller's buffers.

    Attributes:
        inputs: names, in the order of OpenVINO's ports.
    """

    def __init__(self, library: Any, core: Any, proto: Any, options: dict[str, Any]) -> None:
        from onnx.inliner import inline_local_functions

        self._library, self._core, self._options = library, core, options
        # OpenVINO reads an operator's body only where it stands in the graph, not as a function.
        self._model: Any = core.read_model(inline_local_functions(proto).SerializeToString())
        # It leaves out inputs that nothing reads, such as a history's slots between the newest and the oldest.
        named = {value.name for value in proto.graph.input}
        self.inputs = [name for port in self._model.inputs for name in port.names & named]
        self._outputs = [value.name for value in proto.graph.output]
        self._requests = {1: self._compile(1)}

    def _compile(self, batch: int) -> Any:
        """What runs a batch of this size: with sizes that are fixed a step of ``edge`` takes 0.6 times as long."""
        model = self._model.clone()
        shapes = {}
        for index, port in enumerate(model.inputs):
            shapes[index] = port.partial_shape
            shapes[index][0] = batch
        model.reshape(shapes)
        return self._core.compile_model(model, "CPU", self._options).create_infer_request()

    def bind(self, reads: dict[str, Any], writes: dict[str, Any]) -> _Bound:
        """Buffers by name, of which there may be more, for :meth:`run`."""

        def shared(names: list[str], buffers: dict[str, Any]) -> list[tuple[int, Any]]:
            tensor = self._library.Tensor
            return [(i, tensor(buffers[n], shared_memory=True)) for i, n in enumerate(names) if n in buffers]

        return shared(self.inputs, reads), shared(self._outputs, writes)

    def run(self, batch: int, buffers: _Bound) -> None:
        """Run it once."""
        if batch not in self._requests:
            self._requests[batch] = self._compile(batch)
        request = self._requests[batch]
        for index, tensor in buffers[0]:
            request.set_input_tensor(index, tensor)
        for index, tensor in buffers[1]:
            request.set_output_tensor(index, tensor)
        request.infer()


def _without_telemetry() -> Any:
    """The library. Its import alone would report to Google Analytics, unasked; without that package it does not."""
    name = "openvino_telemetry"
    hidden = name not in sys.modules
    if hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden:
            del sys.modules[name]


def _reason(error: Exception) -> str:
    """What is wrong, in one line, from the many of an error of OpenVINO's."""
    lines = [line.strip(" -") for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_AROUND)]
    return told[0].rstrip(".:") if told else first_line(error)
