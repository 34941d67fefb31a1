"""A model server in this process, for tests: real gRPC and Triton's messages, framecast's own answers.

It keeps Triton's rule that a sequence's first request must carry the START flag, and answers through the code that the
real server's Python backend runs (:mod:`framecast.runtime.serving`).
"""

from __future__ import annotations

import time
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from framecast.errors import FramecastError
from framecast.graph.manifest import Manifest
from framecast.runtime.engines import Engine
from framecast.runtime.serving import END, START, Sequences

TYPES = {"UINT8": np.uint8, "FP64": np.float64}


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Serves one engine as model ``it``. Set ``slow`` to delay answers by so many seconds.

    Attributes:
        parameters: of the model's configuration, as ``export-server`` writes them.
        headers: of the newest request.
        sequences: the states; ``restart`` drops them.
    """

    def __init__(self, engine: Engine, manifest: Manifest, steps: int = 1) -> None:
        self.parameters = {"framecast": manifest.to_json(), "framecast_protocol": "1"}
        self.headers: dict[str, str] = {}
        self.slow = 0.0
        self.port = 0
        self._engine, self._steps = engine, steps
        self.restart()

    def restart(self) -> None:
        """Drop all states; stop answering, if it does; answer again at the same address."""
        self.stop()
        self.sequences = Sequences(self._engine, self._steps)
        self._server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        """Stop answering."""
        if self.port:
            self._server.stop(0).wait()

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 (the protocol's name)
        return service_pb2.ServerMetadataResponse(name="fake", version="2.0")

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.name != "it":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        config = model_config_pb2.ModelConfig(name="it")
        for key, text in self.parameters.items():
            config.parameters[key].string_value = text
        return service_pb2.ModelConfigResponse(config=config)

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.headers = dict(context.invocation_metadata())
        time.sleep(self.slow)
        given = request.parameters
        flags = START * given["sequence_start"].bool_param + END * given["sequence_end"].bool_param
        tensors = {
            one.name: np.frombuffer(raw, TYPES[one.datatype]).reshape(one.shape)[0]
            for one, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        asked = [float(tensors["elapsed"][0]), tensors["ahead"].tolist()] if "ahead" in tensors else []
        try:
            shown, finite = self.sequences.step(
                given["sequence_id"].int64_param, flags, tensors["image"], *asked, now=time.monotonic()
            )
        except FramecastError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = service_pb2.ModelInferResponse(model_name="it")
        answers: dict[str, tuple[str, NDArray[Any]]] = {
            "shown": ("UINT8", shown[None]),
            "finite": ("FP32", np.array([[finite]], np.float32)),
        }
        for name, (kind, tensor) in answers.items():
            response.outputs.add(name=name, datatype=kind, shape=tensor.shape)
            response.raw_output_contents.append(tensor.tobytes())
        return response
