"""Checks ``runtime/engines/tensorrt/cuda.py`` on the real driver, for ``gpu_check.py``. It does not need TensorRT.

One of our kernels replaces TensorRT's execution context; the driver loads its machine code. Everything else is what the
tensorrt engine uses: pycuda's memory and streams, buffers, events, and captured graphs.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import logging
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from _gpu_run import Found, NotHere, Row

from framecast.errors import EngineError
from framecast.kernels.cross import Compiled, compile_for
from framecast.kernels.eifag.reference import eifag
from framecast.runtime.engines.tensorrt.cuda import Cuda, DeviceBuffer, Streams, launcher, libcuda_, process_cuda

SHAPE, SLOTS, BIAS = (1, 64, 17, 30), 5, 1.0
ALLOWED = 1e-5
STEPS = 30
KEPT = 4 << 20  # bytes that the driver may keep after we have freed everything: graphs, memory pools
BIG = 64 << 20  # bytes of a buffer: large enough that a leak shows

Context = Any  # like TensorRT's: has set_tensor_address and execute_async_v3


@dataclass(frozen=True)
class Gpu:
    """What the rows run on.

    Attributes:
        cuda: the first GPU.
        context: makes a new execution context for the kernel; call it while the GPU's context is current.
        free: bytes of free memory.
    """

    cuda: Cuda
    context: Callable[[], Context]
    free: Callable[[], int]


class Kernel:
    """EIFAG's kernel with the two methods of a TensorRT context that the engine calls."""

    def __init__(self, arch: int) -> None:
        self._compiled, self._function = _loaded(arch)
        self._libcuda = libcuda_()
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Bind a parameter."""
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        """Launch the kernel on a stream. Triton adds two scratch memory pointers, both 0."""
        parameters = [self.addresses[name] for name, _ in self._compiled.parameters] + [0, 0]
        values = [ctypes.c_uint64(value) for value in parameters]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        (x, y), threads = self._compiled.grid, 32 * self._compiled.num_warps
        shared = ctypes.c_uint(self._compiled.shared)
        code = self._libcuda.cuLaunchKernel(
            self._function, x, y, 1, threads, 1, 1, shared, ctypes.c_void_p(handle), pointers, None
        )
        return not code


@functools.cache
def _loaded(arch: int) -> tuple[Compiled, ctypes.c_void_p]:
    """Compile and load the kernel, once per process: a module is never unloaded, so a second would look like a leak."""
    compiled = compile_for("eifag", arch, "fp32", SHAPE[1:], slots=SLOTS, forget_bias=BIAS)
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    calls: list[tuple[Any, ...]] = [
        ("cuModuleLoadData", ctypes.byref(module), compiled.cubin),
        ("cuModuleGetFunction", ctypes.byref(function), module, compiled.name.encode()),
    ]
    for name, *arguments in calls:
        if code := getattr(libcuda_(), name)(*arguments):
            raise RuntimeError(f"{name}: error {code}")
    return compiled, function


def real() -> Gpu:
    """Open the first GPU.

    Raises:
        NotHere: pycuda or the driver is missing.
    """
    from framecast.runtime.engines.tensorrt.library import gpu

    try:
        found, cuda = gpu(), process_cuda()
    except EngineError as error:
        raise NotHere(str(error)) from error
    arch = int(found.capability.replace(".", ""))

    def free() -> int:
        with cuda.current():
            return int(cuda.driver.mem_get_info()[0])

    return Gpu(cuda, lambda: Kernel(arch), free)


def rows(opened: Callable[[], Gpu]) -> list[Row]:
    """Return the rows. The first one that runs opens the GPU, and all share it."""
    shared: list[Gpu] = []

    def on(check: Callable[[Gpu], Found]) -> Found:
        if not shared:
            shared.append(opened())
        return check(shared[0])

    checks: list[tuple[str, Callable[[Gpu], Found]]] = [
        ("buffers keep what is uploaded", buffers),
        ("a captured step equals the reference", captured),
        ("a step that refuses to be captured", refused),
        ("two threads, each with its stream", two_threads),
        ("memory freed in the thread that made it", partial(freed, elsewhere=False)),
        ("memory freed in another thread", partial(freed, elsewhere=True)),
        ("graphs and their memory are returned", returned),
    ]
    return [Row(name, partial(on, check)) for name, check in checks]


class Stream:
    """A stream's state on the GPU, as in an engine: a ring of the last cells, and three gates.

    Args:
        gpu: the GPU to run on.
        seed: seed of the random inputs.
    """

    def __init__(self, gpu: Gpu, seed: int) -> None:
        self._gpu, self._rng = gpu, np.random.default_rng(seed)
        self._made = 0
        cuda, streams = gpu.cuda, Streams(gpu.cuda)
        self._streams = streams
        self.cells = [DeviceBuffer(streams, SHAPE, np.float32) for _ in range(SLOTS + 1)]
        self.gates = {name: DeviceBuffer(streams, SHAPE, np.float32) for name in ("input", "forget", "candidate")}
        self.count = DeviceBuffer(streams, (1, 1, 1, 1), np.float32)
        self._expected = [torch.zeros(SHAPE, dtype=torch.float64) for _ in range(SLOTS)]
        with cuda.current():
            self._context = gpu.context()
        self._launches: dict[int, Callable[[], None]] = {}

    @property
    def graphs(self) -> int:
        """Number of buffer arrangements that replay a graph instead of launching the kernel directly."""
        return sum(launch.__name__ == "launch" for launch in self._launches.values())

    def step(self) -> None:
        """Upload new gates and run a step."""
        fresh = {name: self._rng.standard_normal(SHAPE, np.float32) for name in self.gates}
        for name, value in fresh.items():
            self.gates[name].upload(value)
        self.count.fill(float(self._made))
        turn = self._made % len(self.cells)
        with self._gpu.cuda.current():
            if turn not in self._launches:
                addresses, failure = self._addresses(turn), "the launch failed"
                self._launches[turn] = launcher(self._streams, self._context, addresses, lambda: failure)
            self._launches[turn]()
            self._streams.step_ends()
        gates = {name: torch.from_numpy(value).double() for name, value in fresh.items()}
        count = torch.full((1, 1, 1, 1), float(self._made), dtype=torch.float64)
        cell = eifag(self._expected, count, gates["input"], gates["forget"], gates["candidate"], BIAS)
        self._expected = [cell, *self._expected[:-1]]
        self._made += 1

    def error(self) -> float:
        """Return the error of the newest cell."""
        newest = self.cells[(self._made - 1) % len(self.cells)]
        newest.fetch()
        found = torch.from_numpy(newest.download()).double()
        expected = self._expected[0]
        return float(((found - expected).abs() / expected.abs().clamp(min=1)).max())

    def _addresses(self, turn: int) -> dict[str, int]:
        size = len(self.cells)
        past = {f"cells[{age}]": self.cells[(turn - 1 - age) % size].address for age in range(SLOTS)}
        gates = {name: buffer.address for name, buffer in self.gates.items()}
        return {**past, **gates, "count": self.count.address, "new": self.cells[turn].address}


def buffers(gpu: Gpu) -> Found:
    """Upload, fill and download many times in a row, without waiting in between.

    Downloads wait only for steps. An empty step therefore replaces the engine's step before the downloads.
    """
    rng, wrong = np.random.default_rng(0), 0
    streams = Streams(gpu.cuda)
    made = [DeviceBuffer(streams, SHAPE, np.float32) for _ in range(4)]
    wrong += sum(bool(buffer.download().any()) for buffer in made)  # new memory is zero
    for _ in range(STEPS):
        values = [rng.standard_normal(SHAPE, np.float32) for _ in made]
        for buffer, value in zip(made, values, strict=True):
            buffer.upload(np.zeros_like(value))
            buffer.upload(value)
        _empty_step(gpu, streams)
        for buffer in made:
            buffer.fetch()
        wrong += sum(not np.array_equal(b.download(), v) for b, v in zip(made, values, strict=True))
    for level in (0.0, 2.5):
        made[0].fill(level)
        _empty_step(gpu, streams)
        wrong += not (made[0].download() == level).all()
    misplaced = sum(buffer.address % 256 != 0 for buffer in made)  # TensorRT requires this alignment
    figures = {"wrong_buffers": wrong, "misaligned": misplaced}
    return Found(f"{wrong} wrong, {misplaced} not aligned to 256 bytes", bool(wrong or misplaced), figures)


def _empty_step(gpu: Gpu, streams: Streams) -> None:
    with gpu.cuda.current():
        streams.step_ends()


def captured(gpu: Gpu) -> Found:
    """Check steps in graphs: each arrangement of the ring is captured once, and all must match the reference."""
    stream, error = Stream(gpu, 1), 0.0
    for _ in range(STEPS):
        stream.step()
        error = float(np.max([error, stream.error()]))  # Python's max may drop NaN
    return _judged(error, stream.graphs, SLOTS + 1)


def refused(gpu: Gpu) -> Found:
    """Check a library that refuses capture: the step runs without a graph, and the stream stays usable."""
    stream = Stream(gpu, 2)
    context = stream._context
    execute, calls = context.execute_async_v3, 0

    def first_only(handle: int) -> bool:
        nonlocal calls
        calls += 1
        return bool(execute(handle)) if calls != 2 else False  # the second call is inside the capture

    with mock_attribute(context, "execute_async_v3", first_only):
        stream.step()
    error = stream.error()
    for _ in range(STEPS):
        stream.step()
        error = float(np.max([error, stream.error()]))
    return _judged(error, stream.graphs, SLOTS)


def two_threads(gpu: Gpu) -> Found:
    """Check two threads that alternate on the GPU, like two cameras on one engine."""
    lock, errors, failures = threading.Lock(), [0.0, 0.0], []

    def work(index: int) -> None:
        try:
            with lock:
                stream = Stream(gpu, 10 + index)
            for _ in range(STEPS):
                with lock:
                    stream.step()
                    error = stream.error()
                errors[index] = float(np.max([errors[index], error]))
        except Exception as error:  # noqa: BLE001 (the main thread raises it)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return _judged(float(np.max(errors)), 0, 0)


def freed(gpu: Gpu, *, elsewhere: bool) -> Found:
    """Check that dropped buffers return their memory. pycuda frees only while the context is current."""
    held: list[DeviceBuffer] = []
    streams = Streams(gpu.cuda)
    DeviceBuffer(streams, (BIG,), np.uint8).download()  # triggers the driver's one-time allocations
    gc.collect()
    before = gpu.free()
    for _ in range(4):
        held.append(DeviceBuffer(streams, (BIG,), np.uint8))
        held[-1].download()
    taken = before - gpu.free()

    def drop() -> None:
        held.clear()
        gc.collect()

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if elsewhere:
            thread = threading.Thread(target=drop)
            thread.start()
            thread.join()
        else:
            drop()
    return _returned(gpu, before, taken, 4 * BIG, [str(warning.message) for warning in warned])


def returned(gpu: Gpu) -> Found:
    """Check that streams and their graphs leak no memory when they are dropped."""
    for _ in range(2):  # triggers the driver's one-time allocations
        _short_stream(gpu)
    gc.collect()
    before = gpu.free()
    for _ in range(20):
        _short_stream(gpu)
    gc.collect()
    return _returned(gpu, before, 0, 0, [])


def _short_stream(gpu: Gpu) -> None:
    stream = Stream(gpu, 3)
    for _ in range(SLOTS + 2):
        stream.step()
    stream.error()


def _returned(gpu: Gpu, before: int, taken: int, wanted: int, warned: list[str]) -> Found:
    lost = before - gpu.free()
    wrong = lost > KEPT or taken < wanted
    figures = {"lost_bytes": lost, "taken_bytes": taken, "warnings": warned}
    text = f"took {taken / 1e6:.1f} MB, lost {lost / 1e6:.1f} MB"
    return Found(text + (f"; warned: {warned[0][:100]}" if warned else ""), wrong, figures)


def _judged(error: float, graphs: int, wanted: int) -> Found:
    wrong = not error <= ALLOWED or graphs < wanted
    text = f"{error:8.1e} {ALLOWED:8.1e}  {graphs} graphs of {wanted}"
    return Found(text, wrong, {"error": error, "allowed": ALLOWED, "graphs": graphs, "graphs_wanted": wanted})


class mock_attribute:  # noqa: N801 (reads as a function)
    """Set an attribute of one object within a block, and silence the warnings that this causes."""

    def __init__(self, target: Any, name: str, value: Any) -> None:
        self._target, self._name, self._value = target, name, value

    def __enter__(self) -> None:
        logging.getLogger("framecast.runtime.engines.tensorrt.cuda").setLevel(logging.ERROR)
        setattr(self._target, self._name, self._value)

    def __exit__(self, *_: object) -> None:
        delattr(self._target, self._name)
        logging.getLogger("framecast.runtime.engines.tensorrt.cuda").setLevel(logging.NOTSET)
