"""Measures the time of an engine's step on this machine's GPU, as one CUDA graph, like in a real run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.errors import EngineError
from framecast.runtime.engines.tensorrt.cuda import DeviceBuffer, Streams, launcher, process_cuda
from framecast.runtime.engines.tensorrt.library import Library

WARM_UP, ROUNDS, STEPS = 50, 20, 50


@dataclass(frozen=True)
class Measured:
    """Milliseconds per step (median over rounds), and the prediction for inputs that are the same for all engines."""

    milliseconds: float
    prediction: NDArray[Any]


def measure(library: Library, engine: bytes) -> Measured:
    """Run an engine repeatedly on the same random inputs.

    Raises:
        EngineError: pycuda is missing, or the engine does not run.
    """
    cuda, trt = process_cuda(), library.trt
    streams = Streams(cuda)
    with cuda.current(), library.errors() as errors:
        runtime = trt.Runtime(library.logger())  # must outlive the engine
        loaded = runtime.deserialize_cuda_engine(engine)
        context = loaded.create_execution_context() if loaded is not None else None
        if context is None:
            raise EngineError(f"TensorRT could not load the engine that it built ({' '.join(errors[-1:])})")
        cuda.synchronize()  # TensorRT may still copy weights, on the default stream
        buffers = _buffers(trt, streams, loaded)

        launch = launcher(
            streams,
            context,
            {name: buffer.address for name, buffer in buffers.items()},
            lambda: f"TensorRT could not run the engine that it built ({' '.join(errors[-1:])})",
        )
        for _ in range(WARM_UP):
            launch()
        streams.synchronize()
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for _ in range(STEPS):
                launch()
            streams.synchronize()
            times.append((time.perf_counter() - started) / STEPS)
        streams.step_ends()
        return Measured(float(np.median(times)) * 1e3, buffers["prediction"].download())


def _buffers(trt: Any, streams: Streams, engine: Any) -> dict[str, DeviceBuffer]:
    """Allocate all inputs and outputs of an engine. The inputs hold numbers that depend only on their order."""
    random = np.random.default_rng(0)
    found = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
        buffer = DeviceBuffer(streams, tuple(engine.get_tensor_shape(name)), dtype.type)
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            values = random.random(buffer.shape)
            buffer.upload((values * 255 if dtype == np.uint8 else values).astype(dtype))
        found[name] = buffer
    return found
