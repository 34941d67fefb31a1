"""OpenVINO on the CPU: compiles a model on loading, and uses two state buffers with no copies between them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from framecast.errors import ArtifactError, EngineError, first_line
from framecast.graph.manifest import BEFORE, RENDER, beside, check_halves
from framecast.runtime.convert import Tensor
from framecast.runtime.engines.engine import (
    Engine,
    Moment,
    State,
    field_buffers,
    state_buffers,
    step_buffers,
)
from framecast.runtime.engines.onnxruntime import check_boundary
from framecast.runtime.engines.phases import Phases

# Lines around the reason in an OpenVINO error: where it was thrown, and which check failed.
_AROUND = ("Exception from ", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")

_Bound = tuple[list[tuple[int, Any]], list[tuple[int, Any]]]  # reads and writes: port number, tensor


class OpenVinoEngine(Engine):
    """See :class:`Engine`. Inputs and outputs are the states' own buffers.

    Args:
        artifact: path of the ONNX file. A quantised artifact (QDQ nodes) runs in int8 in either precision.
        threads: CPU threads of the step; 0 means one per core.
        precision: ``fp32``, or ``bf16``, in which convolutions keep 8 significant bits and the state stays float32. A
            network that warps cannot run in bf16: OpenVINO would also round the coordinates, which shifts the pictures.

    Raises:
        ArtifactError: the file is not a usable artifact.
        EngineError: OpenVINO or onnx is missing, the CPU or the network does not support bf16, or OpenVINO lacks an
            operator.
    """

    name = "openvino"
    compiles = True
    device = "cpu"

    def __init__(self, artifact: Path, *, threads: int = 0, precision: str = "fp32") -> None:
        try:
            from framecast.graph.artifact import load, manifest_of, metadata_of, read

            self._openvino = _without_telemetry()
        except ImportError as error:
            raise EngineError(
                f"openvino cannot be loaded ({first_line(error)}): pip install 'framecast[openvino]', in a clone "
                "-e '.[openvino]'"
            ) from error
        self.precision = precision
        self.version: str = self._openvino.__version__.partition("-")[0]
        core: Any = self._openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EngineError("this CPU does not support bf16: use openvino:fp32")
        proto = read(artifact)
        try:
            self.manifest = manifest_of(proto)
            check_boundary(self.manifest, proto.graph.input, proto.graph.output)
        except ArtifactError as error:
            raise ArtifactError(f"{artifact}: {error}") from error
        if precision == "bf16" and any(node.op_type == "GridSample" for node in proto.graph.node):
            raise EngineError(
                f"{self.manifest.config} warps pictures, and bf16 is too coarse for its sampling positions: "
                "use openvino:fp32"
            )
        halves: dict[str, Any] = {}
        for key, has in ((BEFORE, self.manifest.precomputed), (RENDER, self.manifest.renders == "moments")):
            if has:
                halves[key] = load(beside(artifact, key))
                check_halves(artifact, metadata_of(proto), metadata_of(halves[key]), key)
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            # OpenVINO's default is bf16 if the CPU supports it, so set this.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
        }
        try:
            self._graph: _Graph | None = _Graph(self._openvino, core, proto, options)
            graphs = {key: _Graph(self._openvino, core, half, options) for key, half in halves.items()}
            self._before, self._render = graphs.get(BEFORE), graphs.get(RENDER)
        except Exception as error:  # OpenVINO raises RuntimeError, onnx its own
            raise EngineError(
                f"openvino cannot run {self.manifest.config} ({_reason(error)}): use another engine, like onnxruntime"
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
        self.perceive(frame, state_in, state_out)
        if self._render is not None:
            self.draw(state_out, self.since(state_out))
        prediction: Tensor = state_out.prediction
        return prediction

    def perceive(self, frame: Tensor, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.perceive`; for a network it is the step."""
        graph = self._graph
        if graph is None:
            raise EngineError(f"{self.manifest.config} is closed: load it again")

        def bind(moment: Moment) -> _Bound:
            return graph.bind(*step_buffers(self.manifest, state_in, moment, state_out))

        reads, writes = self._bindings.at(state_in, state_out, bind)
        self.precompute(state_in)
        given = {"frame": np.ascontiguousarray(frame)}  # a prediction that is fed back may not be contiguous
        if self._render is not None:
            given["elapsed"] = np.full(len(frame), self.since(state_out), np.float32)
        self._run(graph, len(frame), ([*reads, *graph.bind(given, {})[0]], writes))

    def draw(self, state: State, ahead: float) -> None:
        """See :meth:`Engine.draw`."""
        if self._render is None:
            raise EngineError(f"{self.manifest.config} is closed: load it again")
        batch = len(state.prediction)
        reads = {**field_buffers(self.manifest, state), "ahead": np.full(batch, ahead, np.float32)}
        self._run(self._render, batch, self._render.bind(reads, {"prediction": state.prediction}))

    def _run(self, graph: _Graph, batch: int, buffers: _Bound) -> None:
        try:
            graph.run(batch, buffers)
        except Exception as error:
            raise EngineError(f"openvino could not run {self.manifest.config}: {_reason(error)}") from error

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        self._bindings.clear()
        self._graph = self._before = self._render = None


class _Graph:
    """An ONNX graph that is compiled once per batch size and runs on its caller's buffers.

    Attributes:
        inputs: names, in the order of OpenVINO's ports.
    """

    def __init__(self, library: Any, core: Any, proto: Any, options: dict[str, Any]) -> None:
        from onnx.inliner import inline_local_functions

        self._library, self._core, self._options = library, core, options
        # OpenVINO does not read functions, so put the operators' bodies inline.
        self._model: Any = core.read_model(inline_local_functions(proto).SerializeToString())
        # OpenVINO drops unused inputs, such as a history's slots between the newest and the oldest.
        named = {value.name for value in proto.graph.input}
        self.inputs = [name for port in self._model.inputs for name in port.names & named]
        self._outputs = [value.name for value in proto.graph.output]
        self._requests = {1: self._compile(1)}

    def _compile(self, batch: int) -> Any:
        """Compile for one batch size. With fixed sizes, a step of a small network takes 0.6 times as long."""
        model = self._model.clone()
        shapes = {}
        for index, port in enumerate(model.inputs):
            shapes[index] = port.partial_shape
            shapes[index][0] = batch
        model.reshape(shapes)
        return self._core.compile_model(model, "CPU", self._options).create_infer_request()

    def bind(self, reads: dict[str, Any], writes: dict[str, Any]) -> _Bound:
        """Bind buffers by name for :meth:`run`. Extra buffers are ignored."""

        def shared(names: list[str], buffers: dict[str, Any]) -> list[tuple[int, Any]]:
            tensor = self._library.Tensor
            return [(i, tensor(buffers[n], shared_memory=True)) for i, n in enumerate(names) if n in buffers]

        return shared(self.inputs, reads), shared(self._outputs, writes)

    def run(self, batch: int, buffers: _Bound) -> None:
        """Run the graph once."""
        if batch not in self._requests:
            self._requests[batch] = self._compile(batch)
        request = self._requests[batch]
        for index, tensor in buffers[0]:
            request.set_input_tensor(index, tensor)
        for index, tensor in buffers[1]:
            request.set_output_tensor(index, tensor)
        request.infer()


def _without_telemetry() -> Any:
    """Import the library with its telemetry package hidden. Otherwise the import alone reports to Google Analytics."""
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
    """The reason for a failure: one line of OpenVINO's long error message."""
    lines = [line.strip(" -") for line in str(error).splitlines()]
    reasons = [line for line in lines if line and not line.startswith(_AROUND)]
    reasons.sort(key=lambda line: "No conversion rule" not in line)  # other operators fail only because of that one
    return reasons[0].rstrip(".:") if reasons else first_line(error)
