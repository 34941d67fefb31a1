"""TensorRT's runtime on the simulated GPU (``fake_gpu.py``), as far as the engine uses it.

An "engine" is the live graph, run by ONNX Runtime on the arrays at the bound addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
import onnxruntime

from .fake_gpu import ALIGNED, Driver  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


class TensorRT:
    """Stands in for the ``tensorrt`` module, and for its runtime, engine and context."""

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def log(self, severity: int, message: str) -> None:
            raise NotImplementedError

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.addresses: dict[str, int] = {}
        self.fails = False
        self.refuses_capture = False  # execute_async_v3 returns False in a capture
        self.executing: Callable[[], None] = lambda: None  # called in execute_async_v3
        self.logger: Any = None
        self.weights: list[bool] = []  # not empty once the weights are on the GPU
        self.session: Any = None

    def Runtime(self, logger: Any) -> TensorRT:  # noqa: N802
        self.logger = self.logger or logger  # TensorRT keeps the first logger
        return self

    def deserialize_cuda_engine(self, data: bytes) -> TensorRT | None:
        if not data.startswith(b"\x08"):  # the first byte of an ONNX file
            self.logger.log(self.ILogger.ERROR, f"cannot read {data[:20]!r}")
            return None
        engine = copy(self)  # a copy, because an artifact can have two engines
        engine.addresses, engine.weights = {}, []
        engine.session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        self.driver.gpu.legacy.put(lambda: engine.weights.append(True))  # the copy of the weights
        return engine

    def create_execution_context(self) -> TensorRT:
        return self

    def set_tensor_address(self, name: str, address: int) -> bool:
        if address % ALIGNED:
            return False
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        at = dict(self.addresses)
        stream = self.driver.stream(handle)
        if self.refuses_capture and stream.captured is not None:
            return False
        self.executing()
        stream.put(lambda: self._run(at))
        return not self.fails

    def _run(self, at: dict[str, int]) -> None:
        assert self.weights, "a step ran before its weights were copied"
        types = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}
        types["tensor(int64)"] = np.int64

        def view(value: Any) -> np.ndarray:
            shape = [dim if isinstance(dim, int) else 1 for dim in value.shape]
            return self.driver.gpu.array(at[value.name], tuple(shape), types[value.type])

        inputs = {i.name: view(i) for i in self.session.get_inputs()}
        outputs = self.session.get_outputs()
        for output, value in zip(outputs, self.session.run(None, inputs), strict=True):
            np.copyto(view(output), value)
