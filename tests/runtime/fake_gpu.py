"""A GPU that is none: pycuda's driver, the graphs of libcuda, and TensorRT's runtime, as far as the engine uses them.

It stands in for what cannot run here, to check one thing: that the engine binds the right buffers, and waits for all
that it must, whatever the order in which a GPU gets round to things. What is put on a stream is done late: when
somebody waits for it, and then streams take turns at random, or as they are told. Memory that nobody has written holds
noise. An "engine" is the live graph, run by ONNX Runtime on the arrays that lie at the bound addresses.
"""

from __future__ import annotations

import ctypes
import random
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
import onnxruntime

MISSING = 801  # an error code of the driver


class Gpu:
    """Its streams, and what was allocated."""

    def __init__(self) -> None:
        self.streams: list[GpuStream] = []
        self.memory: dict[int, np.ndarray] = {}
        self.captures = True
        self.graphs: list[list[Callable[[], None]]] = []
        self.synchronisations = self.launches = 0
        self.alive = 0  # graphs that were captured and not destroyed
        self.pushed = 0
        self.first: tuple[int, ...] = ()  # indices of streams, by how soon they get their turn; none: at random

    def finish(self, done: Callable[[], bool]) -> None:
        """Let streams run, in an order of chance, until something is done."""
        while not done():
            ready = [s for s in self.streams if s.queue and s.queue[0][0]()]
            assert ready, "streams wait for each other for ever"
            order = {self.streams[index]: rank for rank, index in enumerate(self.first)}
            next_ = min(ready, key=order.__getitem__) if order else random.choice(ready)
            next_.queue.popleft()[1]()

    def array(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """What lies at an address."""
        base, memory = next((b, m) for b, m in self.memory.items() if b <= address < b + len(m))
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        found: np.ndarray = memory[address - base : address - base + size].view(dtype).reshape(shape)
        return found


class GpuStream:
    """Work in order; each piece may be held up by an event."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.queue = gpu, deque[tuple[Callable[[], bool], Callable[[], None]]]()
        self.captured: list[Callable[[], None]] | None = None
        self.handle = 1000 + len(gpu.streams)
        gpu.streams.append(self)

    def put(self, work: Callable[[], None], ready: Callable[[], bool] = lambda: True) -> None:
        assert self.gpu.pushed, "no context is current"
        if self.captured is not None:
            self.captured.append(work)
        else:
            self.queue.append((ready, work))

    def wait_for_event(self, event: GpuEvent) -> None:
        assert self.captured is None, "it would wait inside a graph"
        number = event.recorded
        self.put(lambda: None, lambda: event.reached >= number)

    def synchronize(self) -> None:
        self.gpu.synchronisations += 1
        self.gpu.finish(lambda: not self.queue)


class GpuEvent:
    """A mark on a stream; recording it again makes a new one."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.recorded, self.reached = gpu, 0, 0

    def record(self, stream: GpuStream) -> None:
        self.recorded += 1
        number = self.recorded

        def reach() -> None:
            self.reached = max(self.reached, number)

        stream.put(reach)

    def synchronize(self) -> None:
        number = self.recorded
        self.gpu.synchronisations += self.reached < number
        self.gpu.finish(lambda: self.reached >= number)


class Driver:
    """``pycuda.driver``."""

    class MemoryError(Exception):
        pass

    class event_flags:  # noqa: N801
        DISABLE_TIMING = 2

    def __init__(self) -> None:
        self.gpu = Gpu()
        self.allocations = 0

    def init(self) -> None:
        pass

    def Device(self, _: int) -> Driver:  # noqa: N802
        return self

    def retain_primary_context(self) -> Driver:
        return self

    def push(self) -> None:
        self.gpu.pushed += 1

    def pop(self) -> None:
        self.gpu.pushed -= 1

    def Stream(self) -> GpuStream:  # noqa: N802
        return GpuStream(self.gpu)

    def Event(self, _: int) -> GpuEvent:  # noqa: N802
        return GpuEvent(self.gpu)

    def mem_alloc(self, size: int) -> int:
        self.allocations += 1
        memory = np.random.default_rng().integers(0, 256, size + 64, dtype=np.uint8)
        memory = memory[-memory.ctypes.data % 64 :][:size]
        self.gpu.memory[memory.ctypes.data] = memory
        return memory.ctypes.data

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        self.allocations += 1
        return np.random.default_rng().integers(0, 2, shape).astype(dtype)

    def memcpy_htod_async(self, address: int, host: np.ndarray, stream: GpuStream) -> None:
        stream.put(lambda: np.copyto(self.gpu.array(address, host.shape, host.dtype), host))

    def memcpy_dtoh_async(self, host: np.ndarray, address: int, stream: GpuStream) -> None:
        stream.put(lambda: np.copyto(host, self.gpu.array(address, host.shape, host.dtype)))

    def memset_d8_async(self, address: int, value: int, size: int, stream: GpuStream) -> None:
        stream.put(lambda: self.gpu.array(address, (size,), np.uint8).fill(value))

    # libcuda's graphs

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, _: int) -> int:  # noqa: N802
        if not self.gpu.captures:
            return MISSING
        self._stream(stream).captured = []
        return 0

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: Any) -> int:  # noqa: N802
        found = self._stream(stream)
        self.gpu.graphs.append(found.captured or [])
        found.captured = None
        graph._obj.value = len(self.gpu.graphs)
        self.gpu.alive += 1
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: ctypes.c_void_p, _: Any) -> int:  # noqa: N802
        executable._obj.value = graph.value
        return 0

    def cuGraphLaunch(self, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:  # noqa: N802
        self.gpu.launches += 1
        for work in self.gpu.graphs[(executable.value or 0) - 1]:
            self._stream(stream).put(work)
        return 0

    def cuGraphDestroy(self, _: Any) -> int:  # noqa: N802
        self.gpu.alive -= 1
        return 0

    def cuGraphExecDestroy(self, _: Any) -> int:  # noqa: N802
        return 0

    def _stream(self, handle: ctypes.c_void_p) -> GpuStream:
        return next(s for s in self.gpu.streams if s.handle == handle.value)


class TensorRT:
    """``tensorrt``'s Runtime, its engine and its context, each of one."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.addresses: dict[str, int] = {}
        self.fails = False
        self.refuses_capture = False  # execute_async_v3 may, and then returns False
        self.misaligned = False
        self.session: Any = None

    def Runtime(self, _: Any) -> TensorRT:  # noqa: N802
        return self

    def deserialize_cuda_engine(self, data: bytes) -> TensorRT | None:
        if not data.startswith(b"\x08"):  # as ONNX begins
            return None
        engine = copy(self)  # an artifact may have two
        engine.addresses = {}
        engine.session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        return engine

    def create_execution_context(self) -> TensorRT:
        return self

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return not self.misaligned

    def execute_async_v3(self, handle: int) -> bool:
        at = dict(self.addresses)
        stream = self.driver._stream(ctypes.c_void_p(handle))
        if self.refuses_capture and stream.captured is not None:
            return False
        stream.put(lambda: self._run(at))
        return not self.fails

    def _run(self, at: dict[str, int]) -> None:
        types = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}
        types["tensor(int64)"] = np.int64

        def view(value: Any) -> np.ndarray:
            shape = [dim if isinstance(dim, int) else 1 for dim in value.shape]
            return self.driver.gpu.array(at[value.name], tuple(shape), types[value.type])

        inputs = {i.name: view(i) for i in self.session.get_inputs()}
        outputs = self.session.get_outputs()
        for output, value in zip(outputs, self.session.run(None, inputs), strict=True):
            np.copyto(view(output), value)
