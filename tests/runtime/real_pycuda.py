"""The scenarios of ``test_real_pycuda.py``, each in its own process: the real pycuda on a fake driver (``libcuda.c``).

    python -m tests.runtime.real_pycuda SCENARIO [ARTIFACT]

At exit, after all other exit handlers, a process prints the number of objects that are still alive.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pycuda.driver

from framecast.errors import EngineError
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.tensorrt import engine as tensorrt_engine
from framecast.runtime.engines.tensorrt import plugin
from framecast.runtime.engines.tensorrt.cuda import DeviceBuffer, Streams, process_cuda
from framecast.runtime.engines.tensorrt.engine import TensorRTEngine
from framecast.runtime.engines.tensorrt.library import Library
from framecast.runtime.predictor import Predictor

from .fake_tensorrt import TensorRT  # noqa: TID252

LIBCUDA = ctypes.CDLL("libcuda.so.1")
KINDS = ("contexts", "streams", "events", "memory", "locked", "graphs", "executables", "faults")
CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_callbacks: list[Any] = []  # kept alive for the graphs that call them


def count(kind: str) -> int:
    """The number of live objects of a kind, or of counted calls."""
    return int(LIBCUDA.fake_count(kind.encode()))


def fail(call: str, code: int, times: int = 1) -> None:
    """Make the next calls of this function fail."""
    LIBCUDA.fake_fail(call.encode(), code, times)


class OnStream:
    """A stream, given by its handle, for the work of the fake TensorRT."""

    def __init__(self, handle: int) -> None:
        self._handle = ctypes.c_void_p(handle)

    @property
    def captured(self) -> bool | None:
        status = ctypes.c_int()
        LIBCUDA.cuStreamIsCapturing(self._handle, ctypes.byref(status))
        return True if status.value else None

    def put(self, work: Callable[[], None]) -> None:
        _callbacks.append(CALLBACK(lambda _: work()))
        code = LIBCUDA.cuLaunchHostFunc(self._handle, _callbacks[-1], None)
        assert not code, code


class Memory:
    """Access to the fake GPU's memory by address. Work on its default stream runs at once."""

    legacy = SimpleNamespace(put=lambda work: work())

    def array(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        array: np.ndarray = (
            np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)
        )
        return array


def tensorrt() -> TensorRT:
    """Install a fake TensorRT on this GPU, where the engine looks for it."""
    driver: Any = SimpleNamespace(gpu=Memory(), stream=OnStream)
    found = Library("tensorrt", "10.3", TensorRT(driver))
    tensorrt_engine.library = lambda name=None: found  # type: ignore[attr-defined]
    fake: TensorRT = found.trt
    return fake


def elsewhere(*functions: Callable[[], None]) -> None:
    """Call each function in its own thread, in parallel."""
    errors: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run, args=[function]) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def compare(engine: Any, plain: Any, frames: int = 12) -> None:
    """Check that both engines predict the same."""
    one, other = Predictor(plain, watch=False), Predictor(engine, watch=False)
    width, height = plain.manifest.size
    for image in np.random.default_rng().integers(0, 256, (frames, height, width, 3), dtype=np.uint8):
        one.step(image)
        other.step(image)
        for expected, got in zip(one.rollout(3), other.rollout(3), strict=True):
            assert np.abs(expected.image.astype(int) - got.image).max() <= 1


def engine(path: Path) -> None:
    """An engine runs, and frees everything."""
    trt = tensorrt()
    garbage = [DeviceBuffer(Streams(process_cuda()), (8,), np.float32)]

    def litter() -> None:
        if garbage and count("capturing"):  # freeing it now would invalidate the capture
            cycle: list[Any] = [garbage.pop()]
            cycle.append(cycle)
            del cycle
            gc.collect()

    trt.executing = litter
    with open_engine(path) as plain, TensorRTEngine(path) as live:
        compare(live, plain)
        assert not garbage
        assert count("launches") > 10
        assert count("blocking") == 0
        predictor = Predictor(live, watch=False)
        width, height = plain.manifest.size
        for _ in range(30):
            before = count("waits"), count("memory"), count("locked")
            predictor.step(np.zeros((height, width, 3), np.uint8))
            predictor.rollout(1)
            after = count("waits"), count("memory"), count("locked")
        assert after == (before[0] + 1, *before[1:])
        rows, other = live.zeros((2, 3)), live.zeros((2, 3))
        rows.upload(np.arange(6, dtype=np.float32).reshape(2, 3))
        live.copy_row(rows, 1, other, 0)
        assert other.download().tolist() == [[3, 4, 5], [0, 0, 0]]
        del rows, other
    del live, predictor
    gc.collect()
    assert [count(kind) for kind in KINDS] == [1, 0, 0, 0, 0, 0, 0, 0]


def at_exit(path: Path) -> None:
    """If a thread's objects are alive when Python exits, and the thread has ended, the driver frees them."""
    tensorrt()

    def make() -> None:
        live = TensorRTEngine(path)
        predictor = Predictor(live, watch=False)
        for _ in range(3):
            predictor.step(np.zeros((16, 16, 3), np.uint8))
        predictor._stepper.state.tensors  # noqa: B018
        kept.extend([live, predictor])

    elsewhere(make)
    assert count("memory")


kept: list[Any] = []


def threads(path: Path) -> None:
    """Engines capture and step in parallel threads; one thread frees what another has made."""
    tensorrt()
    engines: list[Any] = []
    with open_engine(path) as first, open_engine(path) as second:
        plain = [first, second]
        elsewhere(*[lambda: engines.append(TensorRTEngine(path)) for _ in plain])
        elsewhere(*[lambda i=i: compare(engines[i], plain[i], 30) for i in range(2)])
        assert count("launches") > 60
        engines.pop().close()
        elsewhere(engines.pop().close)
    streams, buffers = [Streams(process_cuda())], list[DeviceBuffer]()

    def make() -> None:
        for copy in (DeviceBuffer.fetch, lambda buffer: buffer.upload(np.ones(8, np.float32))):
            buffers.append(DeviceBuffer(streams[0], (8,), np.float32))
            copy(buffers[-1])

    elsewhere(make)
    buffers.clear()
    streams.clear()
    gc.collect()
    assert [count(kind) for kind in KINDS] == [1, 0, 0, 0, 0, 0, 0, 0]


def faults(path: Path) -> None:
    """Calls that the driver refuses."""
    trt = tensorrt()
    logging.disable()
    for call, times in {"cuMemAlloc": 2, "cuMemHostAlloc": 2, "cuStreamCreate": 1}.items():
        streams = Streams(process_cuda())
        fail(call, 2, times)  # twice for allocations: pycuda collects garbage and tries again
        try:
            Streams(process_cuda()) if call == "cuStreamCreate" else DeviceBuffer(streams, (8,), np.float32).download()
        except EngineError as error:
            sys.stderr.write(f"{error}\n")
        else:
            raise AssertionError(call)
    with open_engine(path) as plain, TensorRTEngine(path) as live:
        for call in ("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"):
            fail(call, 801)
            compare(live, plain, 2)
        trt.refuses_capture = True
    with open_engine(path) as plain, TensorRTEngine(path) as live:
        launches = count("launches")
        compare(live, plain)
        assert count("launches") == launches
        trt.refuses_capture = False
    with TensorRTEngine(path) as live:
        predictor = Predictor(live, watch=False)
        for _ in range(20):
            predictor.step(np.zeros((16, 16, 3), np.uint8))
        fail("cuGraphLaunch", 700)
        try:
            predictor.step(np.zeros((16, 16, 3), np.uint8))
        except EngineError as error:
            sys.stderr.write(f"{error}\n")
        fail("cuStreamSynchronize", 700)
    with process_cuda().current():
        streams = Streams(process_cuda())
        launch = plugin.Launch("kernel", b"\x7fELF", (1, 1), 32, 0, (("input", 0),))
        plugin.enqueue(plugin.Plugin((launch,), ("fp32", "fp32"), (0,), 0), [0], [], 0, streams.handle)
        streams.synchronize()
    assert count("kernels") == 1


def raw(_: Path) -> None:
    """pycuda alone, used wrongly: it leaks objects that another thread drops, and cannot release its context."""
    pycuda.driver.init()
    context = pycuda.driver.Device(0).retain_primary_context()
    context.push()
    held = [pycuda.driver.mem_alloc(8), pycuda.driver.mem_alloc(8)]
    context.pop()
    elsewhere(held.pop)
    assert count("memory") == 2
    held.clear()  # freed, because this thread opened the context
    assert count("memory") == 1
    context = None
    assert count("contexts") == 1


def report() -> None:
    """Print the number of objects that are still alive."""
    sys.stdout.write(json.dumps({kind: count(kind) for kind in KINDS}) + "\n")


if __name__ == "__main__":
    atexit.register(report)  # the first to be registered is the last to be called
    globals()[sys.argv[1]](Path(sys.argv[2]))
