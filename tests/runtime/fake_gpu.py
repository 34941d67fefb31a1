"""A simulated GPU: pycuda's driver and libcuda's graphs, as far as the engine uses them.

It checks that the engine binds the right buffers and waits for all work that it must wait for, in whatever order a GPU
does the work. Work on a stream is delayed until somebody waits for it; then streams run in random order, or in the
order of ``Gpu.first``. New memory holds noise. Freed memory disappears, even if pending work uses it: CUDA mostly waits
for such work, but does not promise to. ``fake_tensorrt.py`` runs its "engines" here.
"""

from __future__ import annotations

import ctypes
import random
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from framecast.runtime.engines.tensorrt import cuda

MISSING, ILLEGAL_STATE, INVALIDATED = 801, 401, 901  # error codes of the driver
ALIGNED = 256  # bytes: alignment of a GPU's allocations
Work = Callable[[], None]


class Gpu:
    """The GPU's streams and memory."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.context = Context()
        self.streams: list[GpuStream] = []
        self.legacy = GpuStream(self, blocking=False)  # the default stream; blocking streams synchronize with it
        self.memory: dict[int, np.ndarray] = {}  # the GPU's memory and page-locked host memory, by address
        self.captures = True
        self.graphs: list[list[Work]] = []
        self.alive: Counter[str] = Counter()  # number of live objects by kind
        self.leaked: list[str] = []  # kinds of objects that pycuda could not free
        self.synchronisations = self.launches = 0
        self.first: tuple[int, ...] = ()  # indices of streams in the order they run; empty: at random

    def finish(self, done: Callable[[], bool]) -> None:
        """Run streams, in random order unless ``first`` is set, until ``done``. The default stream comes last."""
        with self.lock:
            while not done():
                ready = [s for s in self.streams if s.ready()] or [s for s in [self.legacy] if s.ready()]
                assert ready, "deadlock: the streams wait for each other"
                order = {id(self.streams[index]): rank for rank, index in enumerate(self.first)}
                next_ = min(ready, key=lambda s: order.get(id(s), 99)) if order else random.choice(ready)
                next_.step()

    def array(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The memory at an address, as an array."""
        held = list(self.memory.items())  # other threads allocate meanwhile
        found = next((b for b, m in held if b <= address < b + len(m)), None)
        assert found is not None, "this memory was freed"
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        array: np.ndarray = self.memory[found][address - found : address - found + size].view(dtype).reshape(shape)
        return array

    def idle(self) -> bool:
        return not any(stream.queue for stream in (*self.streams, self.legacy))

    def wait(self, done: Callable[[], bool]) -> None:
        """Synchronise the host: run streams until ``done``."""
        self.unsafe("synchronize")
        self.synchronisations += 1
        self.finish(done)

    def unsafe(self, call: str) -> None:
        """Check a call that is not allowed in a capturing thread, where it would invalidate the capture."""
        for stream in (*self.streams, self.legacy):
            if stream.capturer == threading.get_ident():
                stream.void = True
                raise LogicError(f"{call} while capturing")


class GpuStream:
    """A queue of work in order. Each piece can wait for an event."""

    def __init__(self, gpu: Gpu, blocking: bool) -> None:
        self.gpu, self.blocking = gpu, blocking
        self.queue = deque[tuple[Callable[[], bool], Work]]()
        self.captured: list[Work] | None = None
        self.capturer, self.void = 0, False  # the thread that captures; whether the capture is invalid
        self.handle = 1000 + len(gpu.streams)
        self.given = self.done = 0

    def put(self, work: Work, ready: Callable[[], bool] = lambda: True) -> None:
        gpu = self.gpu
        with gpu.lock:
            assert gpu.context.depth, "no context is current"
            if self.captured is not None:
                self.captured.append(work)
                return
            others = [gpu.legacy] if self.blocking else []
            if self is gpu.legacy:
                others = [stream for stream in gpu.streams if stream.blocking]
                for stream in others:
                    stream.void = True  # a capture cannot be ordered with the default stream
            before = [(stream, stream.given) for stream in others]
            self.given += 1
            self.queue.append((lambda: ready() and all(s.done >= given for s, given in before), work))

    def ready(self) -> bool:
        return bool(self.queue) and self.queue[0][0]()

    def step(self) -> None:
        self.queue.popleft()[1]()
        self.done += 1


class Context:
    """pycuda's primary context, and the threads in which it is current."""

    def __init__(self) -> None:
        self._here = threading.local()
        self.opener = 0  # the thread that opened it

    @property
    def depth(self) -> int:
        return getattr(self._here, "depth", 0)

    def push(self) -> None:
        self._here.depth = self.depth + 1

    def pop(self) -> None:
        assert self.depth
        self._here.depth = self.depth - 1


class LogicError(Exception):
    """Stands in for ``pycuda.driver.LogicError``."""


class Owned:
    """An object of pycuda. It leaks unless freed in the thread that opened the context, or while that is current."""

    def __init__(self, gpu: Gpu, kind: str) -> None:
        self.gpu, self.kind = gpu, kind
        gpu.alive[kind] += 1

    def __del__(self) -> None:
        gpu, here = self.gpu, threading.get_ident()
        if any(stream.capturer == here for stream in gpu.streams):
            gpu.leaked.append(f"{self.kind}, in a capture")
        elif gpu.context.depth or here == gpu.context.opener:
            gpu.alive[self.kind] -= 1
            self.freed()
        else:
            gpu.leaked.append(self.kind)

    def freed(self) -> None:
        pass


class Memory(Owned):
    """An allocation of GPU memory, or of page-locked host memory."""

    def __init__(self, gpu: Gpu, kind: str, size: int, aside: int = 0) -> None:
        super().__init__(gpu, kind)
        memory = np.random.default_rng().integers(0, 256, size + 2 * ALIGNED, dtype=np.uint8)
        memory = memory[-memory.ctypes.data % ALIGNED + aside :][:size]
        self.address = memory.ctypes.data
        self.__array_interface__ = {"data": (self.address, False), "shape": (size,), "typestr": "|u1", "version": 3}
        gpu.memory[self.address] = memory

    def __int__(self) -> int:
        return self.address

    def freed(self) -> None:
        del self.gpu.memory[self.address]


class StreamHandle(Owned):
    """``pycuda.driver.Stream``."""

    def __init__(self, gpu: Gpu, flags: int) -> None:
        super().__init__(gpu, "stream")
        self.on = GpuStream(gpu, blocking=not flags & 1)
        self.handle = self.on.handle
        gpu.streams.append(self.on)

    def wait_for_event(self, event: EventHandle) -> None:
        assert self.on.captured is None, "an event wait inside a capture"
        mark, number = event.mark, event.mark.recorded
        self.on.put(lambda: None, lambda: mark.reached >= number)

    def synchronize(self) -> None:
        self.gpu.wait(lambda: not self.on.queue)


class EventHandle(Owned):
    """An event on a stream; recording it again makes a new mark."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__(gpu, "event")
        self.mark = SimpleNamespace(recorded=0, reached=0)

    def record(self, stream: StreamHandle) -> None:
        mark = self.mark
        mark.recorded = number = mark.recorded + 1

        def reach() -> None:
            mark.reached = max(mark.reached, number)

        stream.on.put(reach)

    def synchronize(self) -> None:
        mark, number = self.mark, self.mark.recorded
        self.gpu.wait(lambda: mark.reached >= number)


class Driver:
    """Stands in for ``pycuda.driver``, and for libcuda's functions for graphs."""

    LogicError = LogicError

    class MemoryError(Exception):
        pass

    class event_flags:  # noqa: N801
        DISABLE_TIMING = 2

    def __init__(self) -> None:
        self.gpu = Gpu()
        self.allocations = self.retained = 0
        self.aside = 0  # bytes by which allocations are misaligned
        self.Context = SimpleNamespace(synchronize=self._synchronize)

    def init(self) -> None:
        pass

    def _synchronize(self) -> None:
        """Wait for the whole device, which invalidates the captures of all threads."""
        for stream in self.gpu.streams:
            if stream.capturer:
                stream.void = True
                raise LogicError("synchronize while a thread captures")
        self.gpu.wait(self.gpu.idle)

    def Device(self, _: int) -> Driver:  # noqa: N802
        return self

    def retain_primary_context(self) -> Context:
        self.retained += 1
        self.gpu.context.opener = threading.get_ident()
        return self.gpu.context

    def _allowed(self, call: str) -> None:
        assert self.gpu.context.depth, "no context is current"
        self.gpu.unsafe(call)

    def Stream(self, flags: int = 0) -> StreamHandle:  # noqa: N802
        self._allowed("Stream")
        return StreamHandle(self.gpu, flags)

    def Event(self, _: int) -> EventHandle:  # noqa: N802
        self._allowed("Event")
        return EventHandle(self.gpu)

    def mem_alloc(self, size: int) -> Memory:
        self._allowed("mem_alloc")
        self.allocations += 1
        return Memory(self.gpu, "memory", size, self.aside)

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        self._allowed("pagelocked_empty")
        self.allocations += 1
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        array: np.ndarray = np.asarray(Memory(self.gpu, "locked", size)).view(dtype).reshape(shape)
        return array

    def memcpy_htod_async(self, to: Memory, host: np.ndarray, stream: StreamHandle) -> None:
        self._copy(to.address, host.ctypes.data, host.nbytes, stream)

    def memcpy_dtoh_async(self, host: np.ndarray, of: Memory, stream: StreamHandle) -> None:
        self._copy(host.ctypes.data, of.address, host.nbytes, stream)

    def memcpy_dtod_async(self, to: int, of: int, size: int, stream: StreamHandle) -> None:
        self._copy(to, of, size, stream)

    def memset_d8_async(self, to: Memory, value: int, size: int, stream: StreamHandle) -> None:
        gpu, address = self.gpu, to.address
        stream.on.put(lambda: gpu.array(address, (size,), np.uint8).fill(value))

    def _copy(self, to: int, of: int, size: int, stream: StreamHandle) -> None:
        gpu = self.gpu
        stream.on.put(lambda: np.copyto(gpu.array(to, (size,), np.uint8), gpu.array(of, (size,), np.uint8)))

    # libcuda's graphs

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, _: int) -> int:  # noqa: N802
        found = self.stream(stream.value)
        if not self.gpu.captures or found.captured is not None:
            return MISSING if found.captured is None else ILLEGAL_STATE
        found.captured, found.capturer, found.void = [], threading.get_ident(), False
        return 0

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: Any) -> int:  # noqa: N802
        found = self.stream(stream.value)
        captured, found.captured, found.capturer = found.captured, None, 0
        if found.void:
            return INVALIDATED
        self.gpu.graphs.append(captured or [])
        graph._obj.value = len(self.gpu.graphs)
        self.gpu.alive["graph"] += 1
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: ctypes.c_void_p, _: Any) -> int:  # noqa: N802
        executable._obj.value = graph.value
        self.gpu.alive["executable"] += 1
        return 0

    def cuGraphLaunch(self, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:  # noqa: N802
        self.gpu.launches += 1
        for work in self.gpu.graphs[(executable.value or 0) - 1]:
            self.stream(stream.value).put(work)
        return 0

    def cuGraphDestroy(self, _: Any) -> int:  # noqa: N802
        self.gpu.alive["graph"] -= 1
        return 0

    def cuGraphExecDestroy(self, _: Any) -> int:  # noqa: N802
        assert self.gpu.context.depth, "no context is current"
        self.gpu.alive["executable"] -= 1
        return 0

    def stream(self, handle: int | None) -> GpuStream:
        return next(s for s in self.gpu.streams if s.handle == handle)


def installed(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Replace pycuda's driver by a fake one, for a process that has not used its GPU yet."""
    driver = Driver()
    package: Any = ModuleType("pycuda")
    package.driver = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setattr(cuda, "libcuda_", lambda: driver)
    cuda._only.cache_clear()
    return driver
