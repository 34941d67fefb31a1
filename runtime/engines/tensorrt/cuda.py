"""Memory, streams and events of one GPU through pycuda, and CUDA graphs, which pycuda lacks, through the driver.

Three streams let copies and steps overlap. During one step, the next step's input is uploaded and the previous step's
output is downloaded. Events keep the streams in order. The host waits only for the data that it reads.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.errors import EngineError
from framecast.runtime.engines.device import Buffer

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may keep allocating
_log = logging.getLogger(__name__)


class Cuda:
    """The first GPU's primary context, which torch and others share.

    Raises:
        EngineError: pycuda is missing or cannot be loaded.
    """

    def __init__(self) -> None:
        try:
            import pycuda.driver
        except ImportError as error:
            raise EngineError(
                f"the tensorrt engine needs pycuda ({error}): pip install 'framecast[cuda]', with CUDA's bin folder "
                "first on PATH, on a machine with an NVIDIA driver"
            ) from error
        self.driver: Any = pycuda.driver
        self.driver.init()
        self._context: Any = self.driver.Device(0).retain_primary_context()
        with self.current():
            self.uploads, self.steps, self.downloads = (self.driver.Stream() for _ in range(3))
            self.stepped = self.event()  # the last step is done

    @contextmanager
    def current(self) -> Iterator[None]:
        """Use this GPU in this thread. A context belongs to the thread that made it current."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def event(self) -> Any:
        """A new event that records no time."""
        return self.driver.Event(self.driver.event_flags.DISABLE_TIMING)

    def captured(self, run: Callable[[], None]) -> Callable[[], None]:
        """Capture the work that ``run`` puts on the stream of steps as a CUDA graph. If that fails, return ``run``.

        Call ``run`` before, because libraries allocate in their first call. A library may also refuse to be captured,
        and raise EngineError from ``run``: the step then runs without a graph.
        """
        libcuda, stream = libcuda_(), ctypes.c_void_p(self.steps.handle)
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self.steps.synchronize()
        code, refusal = libcuda.cuStreamBeginCapture_v2(stream, _THREAD_LOCAL), ""
        if not code:
            try:
                run()
            except EngineError:
                refusal = "refused while capturing"
            finally:
                code = libcuda.cuStreamEndCapture(stream, ctypes.byref(graph))
        if not code and not refusal:
            code = libcuda.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        if graph:
            libcuda.cuGraphDestroy(graph)
        if code or refusal:
            reason = refusal or f"error {code}"
            _log.warning("no CUDA graph of this engine (%s): its kernels are launched one by one", reason)
            return run

        def launch() -> None:
            if code := libcuda.cuGraphLaunch(executable, stream):
                raise EngineError(
                    f"the GPU could not run a step (error {code}): check dmesg, and that the GPU is still there"
                )

        weakref.finalize(launch, libcuda.cuGraphExecDestroy, executable)
        return launch


def launcher(cuda: Cuda, context: Any, addresses: Mapping[str, int], failure: Callable[[], str]) -> Callable[[], None]:
    """Return a function that runs a TensorRT context on tensors at these addresses, as one CUDA graph.

    This runs the step once. That does no harm, because a step reads one state and writes another.

    Args:
        cuda: the GPU; its context must be current.
        context: TensorRT's execution context.
        addresses: of its inputs and outputs, by name.
        failure: returns the error message if the step fails.

    Raises:
        EngineError: the step failed.
    """

    def enqueue() -> None:
        for name, address in addresses.items():
            if context.set_tensor_address(name, address) is False:  # it would go on reading the address before
                raise EngineError(f"TensorRT refuses the memory of {name!r} at {address:#x}: report this")
        if not context.execute_async_v3(cuda.steps.handle):
            raise EngineError(failure())

    enqueue()
    return cuda.captured(enqueue)


def libcuda_() -> Any:
    """The driver's own library."""
    return ctypes.CDLL("libcuda.so.1")


class DeviceBuffer(Buffer):
    """See :class:`Buffer`. It is in the GPU's memory. The first upload or download adds page-locked host memory.

    Raises:
        EngineError: the GPU's memory is full.
    """

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: type[Any]) -> None:
        self._cuda, self.shape, self.dtype = cuda, shape, np.dtype(dtype)
        self._size = int(np.prod(shape)) * self.dtype.itemsize
        self._host: NDArray[Any] | None = None
        self._fetching = False
        with cuda.current():
            try:
                self._memory = cuda.driver.mem_alloc(max(1, self._size))
            except cuda.driver.MemoryError as error:
                raise EngineError(
                    f"the GPU's memory is full ({self._size / 1e6:.0f} MB more needed): end other programs on it, or "
                    "use a smaller model"
                ) from error
            self._uploaded, self._fetched = cuda.event(), cuda.event()
            self._zero()
        self.address = int(self._memory)

    def upload(self, array: NDArray[Any]) -> None:
        """See :meth:`Buffer.upload`."""
        cuda = self._cuda
        with cuda.current():
            host = self._locked()
            self._uploaded.synchronize()  # until the last upload has left the host's memory
            self._fetched.synchronize()
            np.copyto(host, array)
            cuda.uploads.wait_for_event(cuda.stepped)  # until no step reads the buffer any more
            cuda.driver.memcpy_htod_async(self._memory, host, cuda.uploads)
            self._uploaded.record(cuda.uploads)
            cuda.steps.wait_for_event(self._uploaded)

    def fetch(self) -> None:
        """See :meth:`Buffer.fetch`."""
        cuda = self._cuda
        with cuda.current():
            cuda.downloads.wait_for_event(cuda.stepped)
            cuda.driver.memcpy_dtoh_async(self._locked(), self._memory, cuda.downloads)
            self._fetched.record(cuda.downloads)
        self._fetching = True

    def download(self) -> NDArray[Any]:
        """See :meth:`Buffer.download`."""
        if not self._fetching:
            self.fetch()
        with self._cuda.current():
            self._fetched.synchronize()
        self._fetching = False
        return np.array(self._locked())

    def fill(self, value: float) -> None:
        """See :meth:`Buffer.fill`."""
        if value:
            super().fill(value)
        else:
            with self._cuda.current():
                self._zero()

    def _zero(self) -> None:
        self._cuda.driver.memset_d8_async(self._memory, 0, self._size, self._cuda.steps)
        self._cuda.stepped.record(self._cuda.steps)

    def _locked(self) -> NDArray[Any]:
        if self._host is None:
            self._host = self._cuda.driver.pagelocked_empty(self.shape, self.dtype)
        return self._host
