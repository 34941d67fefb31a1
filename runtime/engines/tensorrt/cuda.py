"""Memory, streams and events of one GPU through pycuda, and CUDA graphs, which pycuda lacks, through the driver.

Three streams of each engine let copies and steps overlap. During one step, the next step's input is uploaded and the
previous step's output is downloaded. Events keep the streams in order. In a steady stream the host waits once per
frame, for the pictures. That wait also proves that the frame's upload is done (see :class:`Streams`).
"""

from __future__ import annotations

import ctypes
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.errors import EngineError
from framecast.runtime.engines.capturing import CAPTURING
from framecast.runtime.engines.device import Buffer

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may keep allocating
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_log = logging.getLogger(__name__)
_opening = threading.Lock()


def process_cuda() -> Cuda:
    """This process's only :class:`Cuda`. The first call makes it.

    Raises:
        EngineError: pycuda is missing or cannot be loaded.
    """
    with _opening:
        return _only()


@cache
def _only() -> Cuda:
    return Cuda()


class Cuda:
    """The first GPU's primary context, which torch and others share. Call :func:`process_cuda` to get it.

    Raises:
        EngineError: pycuda is missing or cannot be loaded.
    """

    def __init__(self) -> None:
        try:
            import pycuda.driver
        except ImportError as error:
            raise EngineError(
                f"the tensorrt engine needs pycuda ({error}): pip install 'framecast[cuda]' (in a clone "
                "-e '.[cuda]'), with CUDA's bin folder first on PATH, on a machine with an NVIDIA "
                "driver (CUDA 13 needs pycuda 2025.1.2 or newer)"
            ) from error
        self.driver: Any = pycuda.driver
        self.driver.init()
        self._context: Any = self.driver.Device(0).retain_primary_context()
        self._alive: dict[int, dict[str, Any]] = {}  # the objects of ``owned``
        # Never free the context: pycuda's destructor detaches a primary context instead of releasing it, which fails
        # and prints a warning. At Python's exit free nothing either: a daemon thread may still use an object, and
        # pycuda would warn outside the context's thread. The driver frees everything when the process ends.
        for kept in (self._context, self._alive):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
        self._thread = threading.local()  # its ``waiting`` lists what to free after this thread's capture

    @contextmanager
    def current(self) -> Iterator[None]:
        """Use this GPU in this thread. A context belongs to the thread that made it current."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def synchronize(self) -> None:
        """Wait for the whole GPU, including the default stream, where a library may still copy weights.

        The context must be current.
        """
        with CAPTURING:
            self.driver.Context.synchronize()

    def event(self) -> Any:
        """Make an event that records no time."""
        return self.driver.Event(self.driver.event_flags.DISABLE_TIMING)

    def owned(self, owner: object, **objects: Any) -> SimpleNamespace:
        """Hold pycuda's objects for ``owner``. The thread in which the owner dies frees them.

        pycuda frees an object only in the thread that opened the context, or while the context is current. Otherwise it
        warns and leaks the object. So only the returned namespace may refer to them.
        """
        held = SimpleNamespace(**objects)
        self._alive[id(held)] = vars(held)
        self.on_death(owner, self._drop, id(held))
        return held

    def on_death(self, owner: object, function: Callable[..., object], *args: Any) -> None:
        """Call :meth:`free` when ``owner`` dies, but not when Python exits."""
        weakref.finalize(owner, self.free, function, *args).atexit = False

    def free(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function that frees something, with the context current.

        If this thread is capturing a graph, the call is postponed until the capture ends. Python may collect garbage at
        any time, and freeing memory would invalidate the capture.
        """
        waiting = getattr(self._thread, "waiting", None)
        if waiting is not None:
            waiting.append((function, args))
            return
        with self.current():
            function(*args)

    @contextmanager
    def nothing_freed(self) -> Iterator[None]:
        """Postpone this thread's calls of :meth:`free` to the end of the block."""
        self._thread.waiting = []
        try:
            yield
        finally:
            waiting, self._thread.waiting = self._thread.waiting, None
            for function, args in waiting:
                self.free(function, *args)

    def _drop(self, number: int) -> None:
        """Free pycuda's objects once the GPU is done with them. A copy or a step may still be running."""
        objects = self._alive.pop(number)
        for found in objects.values():
            if hasattr(found, "synchronize"):  # a stream or an event
                with suppress(Exception):  # even if the GPU has failed, free what can be freed
                    found.synchronize()
        objects.clear()


@contextmanager
def _memory(cuda: Cuda, whose: str, size: int) -> Iterator[None]:
    try:
        yield
    except cuda.driver.MemoryError as error:
        raise EngineError(
            f"the {whose} memory is full ({size / 1e6:.0f} MB more needed): end other programs that use it, or use a "
            "smaller model"
        ) from error


class Streams:
    """The streams of one engine. Callers take turns (:attr:`Engine.lock`), so nothing disturbs a step or a capture.

    Engines share no streams. So they overlap, and one may capture while another steps in another thread.

    The streams are non-blocking: they and CUDA's default stream, which other libraries use, do not wait for each other.
    Also, while a blocking stream is captured, CUDA forbids work on the default stream in every thread.

    The class also numbers uploads and downloads, so that the host does not wait for those known to be done. This is
    safe: the stream of steps waits for each upload, so the event at a step's end comes after all earlier uploads. A
    download waits for that event and for earlier downloads. So once a download has arrived, all of these are done.

    Raises:
        EngineError: the GPU's memory is full.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        stream = cuda.driver.Stream
        with cuda.current(), _memory(cuda, "GPU's", 0):
            self._held = cuda.owned(
                self,
                uploads=stream(_NON_BLOCKING),
                steps=stream(_NON_BLOCKING),
                downloads=stream(_NON_BLOCKING),
                stepped=cuda.event(),
            )
        self._uploads = 0  # number of the newest upload
        self._stepped = 0  # number of the newest upload before the end of the last step
        self._left = 0  # number of the newest upload known to have left the host's memory
        self._fetches = 0  # number of the newest download
        self._arrived = 0  # number of the newest download known to have arrived

    @property
    def stepped(self) -> Any:
        """The event of the last step's end."""
        return self._held.stepped

    @property
    def handle(self) -> int:
        """The handle of the stream of steps, for TensorRT."""
        return int(self._held.steps.handle)

    def synchronize(self) -> None:
        """Wait until all steps so far are done."""
        self._held.steps.synchronize()

    def zero(self, memory: Any, size: int) -> None:
        """Fill ``size`` bytes with zeros, after the last step and before the next one."""
        self.cuda.driver.memset_d8_async(memory, 0, size, self._held.steps)
        self.step_ends()

    def copy(self, to: int, of: int, size: int) -> None:
        """Copy ``size`` bytes within the GPU's memory, after the last step and before the next one."""
        with self.cuda.current():
            self.cuda.driver.memcpy_dtod_async(to, of, size, self._held.steps)
            self.step_ends()

    def step_ends(self) -> None:
        """Mark the end of a step, so that copies can wait for it."""
        self._held.stepped.record(self._held.steps)
        self._stepped = self._uploads

    def upload(self, memory: Any, host: NDArray[Any], uploaded: Any) -> int:
        """Copy page-locked memory to the GPU between the last step and the next one. Returns the upload's number."""
        held = self._held
        held.uploads.wait_for_event(held.stepped)  # until no step reads the buffer
        self.cuda.driver.memcpy_htod_async(memory, host, held.uploads)
        uploaded.record(held.uploads)
        held.steps.wait_for_event(uploaded)
        self._uploads += 1
        return self._uploads

    def download(self, host: NDArray[Any], memory: Any, fetched: Any) -> tuple[int, int]:
        """Copy to page-locked memory after the last step.

        Returns the download's number, and that of the newest upload that it proves done.
        """
        held = self._held
        held.downloads.wait_for_event(held.stepped)
        self.cuda.driver.memcpy_dtoh_async(host, memory, held.downloads)
        fetched.record(held.downloads)
        self._fetches += 1
        return self._fetches, self._stepped

    def wait_left(self, number: int, uploaded: Any) -> None:
        """Wait until an upload has left the host's memory, unless a later download has proved it already."""
        if number > self._left:
            uploaded.synchronize()
            self._left = number  # earlier uploads on the stream are done too

    def wait_arrived(self, fetch: tuple[int, int], fetched: Any) -> None:
        """Wait until a download has arrived, unless a later one has arrived already."""
        number, uploads = fetch
        if number > self._arrived:
            fetched.synchronize()
            self._arrived = number
            self._left = max(self._left, uploads)

    def captured(self, run: Callable[[], None]) -> Callable[[], None]:
        """Capture the work that ``run`` puts on the stream of steps as a CUDA graph. If that fails, return ``run``.

        Call ``run`` once beforehand, because libraries allocate in their first call. If a library cannot be captured,
        ``run`` raises EngineError during the capture, which counts as a failure of the capture.
        """
        libcuda, stream = libcuda_(), ctypes.c_void_p(self.handle)
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        refusal = ""
        self.synchronize()
        try:
            with self.cuda.nothing_freed(), CAPTURING:
                code = libcuda.cuStreamBeginCapture_v2(stream, _THREAD_LOCAL)
                if not code:
                    try:
                        run()
                    except EngineError:
                        refusal = "refused while capturing"
                    finally:
                        code = libcuda.cuStreamEndCapture(stream, ctypes.byref(graph))
            if not code and not refusal:
                code = libcuda.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        finally:
            if graph:
                libcuda.cuGraphDestroy(graph)
        if code or refusal:
            reason = refusal or f"error {code}"
            _log.warning("cannot capture this engine as a CUDA graph (%s): launching its kernels one by one", reason)
            return run

        def launch() -> None:
            if code := libcuda.cuGraphLaunch(executable, stream):
                raise EngineError(
                    f"the GPU could not run a step (error {code}): check dmesg, and that the GPU is still there"
                )

        self.cuda.on_death(launch, libcuda.cuGraphExecDestroy, executable)
        return launch


def launcher(
    streams: Streams, context: Any, addresses: Mapping[str, int], failure: Callable[[], str]
) -> Callable[[], None]:
    """Return a function that runs a TensorRT context on tensors at these addresses, as one CUDA graph.

    This also runs the step once, which is harmless because a step reads one state and writes another.

    Args:
        streams: the engine's streams; their GPU's context must be current.
        context: TensorRT's execution context.
        addresses: addresses of its inputs and outputs, by name; multiples of 256, as TensorRT requires.
        failure: returns the error message if the step fails.

    Raises:
        EngineError: the step failed.
    """

    def enqueue() -> None:
        for name, address in addresses.items():
            if context.set_tensor_address(name, address) is False:  # it would keep using the old address
                raise EngineError(f"TensorRT refuses the memory of {name!r} at {address:#x}: report this")
        if not context.execute_async_v3(streams.handle):
            raise EngineError(failure())

    enqueue()
    return streams.captured(enqueue)


def libcuda_() -> Any:
    """The driver's own library."""
    return ctypes.CDLL("libcuda.so.1")


class DeviceBuffer(Buffer):
    """See :class:`Buffer`. It is in GPU memory. The first upload or download allocates page-locked host memory.

    Each buffer is a separate allocation, so its address is a multiple of 256 bytes.

    Raises:
        EngineError: the GPU's memory, or the host's memory that can be locked, is full.
    """

    def __init__(self, streams: Streams, shape: tuple[int, ...], dtype: type[Any]) -> None:
        self._streams, self.shape, self.dtype = streams, shape, np.dtype(dtype)
        self._size = int(np.prod(shape)) * self.dtype.itemsize
        self._uploaded = 0  # number of the last upload
        self._fetch = 0, 0  # what Streams.download returned last
        self._fetching = False
        cuda = streams.cuda
        with cuda.current(), _memory(cuda, "GPU's", self._size):
            self._held = cuda.owned(self, memory=cuda.driver.mem_alloc(max(1, self._size)), host=None)
            self._held.uploaded, self._held.fetched = cuda.event(), cuda.event()
            self._held.stepped = streams.stepped  # freeing the memory must wait for the last step
            streams.zero(self._held.memory, self._size)
        self.address = int(self._held.memory)

    def upload(self, array: NDArray[Any]) -> None:
        """See :meth:`Buffer.upload`. The host waits only if this buffer's last upload may still be running."""
        streams, held = self._streams, self._held
        with streams.cuda.current():
            host = self._locked()
            streams.wait_left(self._uploaded, held.uploaded)
            if self._fetching:  # an unread download may still be writing to the same host memory
                streams.wait_arrived(self._fetch, held.fetched)
            np.copyto(host, array)
            self._uploaded = streams.upload(held.memory, host, held.uploaded)
        self._fetching = False

    def fetch(self) -> None:
        """See :meth:`Buffer.fetch`."""
        streams, held = self._streams, self._held
        with streams.cuda.current():
            host = self._locked()
            self._fetch = streams.download(host, held.memory, held.fetched)
        self._fetching = True

    def download(self) -> NDArray[Any]:
        """See :meth:`Buffer.download`. The host does not wait if a later download has already arrived."""
        if not self._fetching:
            self.fetch()
        with self._streams.cuda.current():
            self._streams.wait_arrived(self._fetch, self._held.fetched)
        self._fetching = False
        return np.array(self._locked())

    def fill(self, value: float) -> None:
        """See :meth:`Buffer.fill`."""
        if value:
            super().fill(value)
        else:
            with self._streams.cuda.current():
                self._streams.zero(self._held.memory, self._size)

    def _locked(self) -> NDArray[Any]:
        held, cuda = self._held, self._streams.cuda
        if held.host is None:
            with _memory(cuda, "page-locked", self._size):
                held.host = cuda.driver.pagelocked_empty(self.shape, self.dtype)
        host: NDArray[Any] = held.host
        return host
