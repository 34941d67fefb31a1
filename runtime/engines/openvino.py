"""OpenVINO on the CPU: compiled for it when a model is loaded, with two state buffers and no copies between them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from framecast.errors import ArtifactError, EngineError, first_line
from framecast.runtime.convert import Tensor
from framecast.runtime.engines.engine import Engine, Moment, Phases, State, bound
from framecast.runtime.engines.onnxruntime import check_boundary

# What stands around the reason in an error of OpenVINO's: where it was thrown, and what was checked there.
_AROUND = ("Exception from ", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")


class OpenVinoEngine(Engine):
    """See :class:`Engine`. Inputs and outputs are the states' own buffers.

    Args:
        artifact: path of the ONNX file. One that is quantised (QDQ nodes) runs in int8 in either precision.
        threads: of the step; 0 for one a core.
        precision: ``fp32``; or ``bf16``, in which a convolution's numbers keep 8 bits and the state stays float32.

    Raises:
        ArtifactError: the file is no artifact that can be run.
        EngineError: OpenVINO or onnx is missing, the CPU has no bf16, or OpenVINO lacks one of the operators.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, artifact: Path, *, threads: int = 0, precision: str = "fp32") -> None:
        try:
            import onnx.inliner

            from framecast.export.artifact import manifest_of, read

            self._openvino = _without_telemetry()
        except ImportError as error:
            raise EngineError(
                f"openvino cannot be loaded ({first_line(error)}): pip install 'framecast[openvino]'"
            ) from error
        self.precision = precision
        self.version: str = self._openvino.__version__.partition("-")[0]
        self._core: Any = self._openvino.Core()
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EngineError("this CPU does not compute in bf16: use openvino:fp32")
        proto = read(artifact)
        try:
            self.manifest = manifest_of(proto)
            check_boundary(self.manifest, proto.graph.input, proto.graph.output)
        except ArtifactError as error:
            raise ArtifactError(f"{artifact}: {error}") from error
        if self.manifest.ready:
            raise EngineError(f"{artifact} is half of a step, which openvino does not run: use --engine onnxruntime")
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            # Without it OpenVINO takes bf16 wherever the CPU has it.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
        }
        try:
            # OpenVINO reads an operator's body only where it stands in the graph, not as a function.
            graph = onnx.inliner.inline_local_functions(proto).SerializeToString()
            self._model: Any = self._core.read_model(graph)
            # It leaves out inputs that nothing reads, such as a history's slots between the newest and the oldest.
            named = {value.name for value in proto.graph.input}
            self._inputs = [name for port in self._model.inputs for name in port.names & named]
            self._outputs = [value.name for value in proto.graph.output]
            self._requests = {1: self._compile(1)}
        except Exception as error:  # OpenVINO raises RuntimeError, onnx its own
            raise EngineError(
                f"openvino cannot run {self.manifest.config} ({_reason(error)}): use another engine, as onnxruntime"
            ) from error
        self._bindings: Phases[tuple[list[tuple[int, Any]], list[tuple[int, Any]]]] = Phases()

    def _compile(self, batch: int) -> Any:
        """What runs a batch of this size: with sizes that are fixed a step of ``edge`` takes 0.6 times as long."""
        model = self._model.clone()
        shapes = {}
        for index, port in enumerate(model.inputs):
            shapes[index] = port.partial_shape
            shapes[index][0] = batch
        model.reshape(shapes)
        return self._core.compile_model(model, "CPU", self._options).create_infer_request()

    def _bind(self, state_in: State, state_out: State, moment: Moment) -> Any:
        reads, writes = bound(self.manifest, state_in, moment, state_out)

        def shared(names: list[str], buffers: dict[str, Any]) -> list[tuple[int, Any]]:
            tensor = self._openvino.Tensor
            return [(i, tensor(buffers[n], shared_memory=True)) for i, n in enumerate(names) if n in buffers]

        return shared(self._inputs, reads), shared(self._outputs, writes)

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """See :meth:`Engine.step`."""
        if self._model is None:
            raise EngineError(f"{self.manifest.config} is closed: load it again")
        reads, writes = self._bindings.at(state_in, state_out, lambda moment: self._bind(state_in, state_out, moment))
        prediction: Tensor = state_out.prediction
        batch = len(prediction)
        try:
            if batch not in self._requests:
                self._requests[batch] = self._compile(batch)
            request = self._requests[batch]
            frame = np.ascontiguousarray(frame)  # of several predictions fed back at once, one is not
            request.set_input_tensor(self._inputs.index("frame"), self._openvino.Tensor(frame, shared_memory=True))
            for index, tensor in reads:
                request.set_input_tensor(index, tensor)
            for index, tensor in writes:
                request.set_output_tensor(index, tensor)
            request.infer()
        except Exception as error:
            raise EngineError(f"openvino could not run {self.manifest.config}: {_reason(error)}") from error
        return prediction

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        self._bindings.clear()
        self._requests.clear()
        self._model = None


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
