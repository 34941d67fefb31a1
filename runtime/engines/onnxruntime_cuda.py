"""ONNX Runtime on CUDA. States stay bound on the device; only pictures go in and come out.

The host waits for the device twice per frame. ONNX Runtime's Python API does not allow fewer waits. Both are copies:

- the upload: ``OrtValue.update_inplace`` copies from pageable memory and synchronises CUDA's default stream. Nothing
  else is running then, unless the last prediction was not read. The first frames of a stream also upload ``keep``, and
  a model of motion uploads ``elapsed`` and ``ahead``;
- the download of ``shown`` and ``finite``, which share one buffer: ``OrtValue.numpy`` returns when the copy is done. It
  allocates its result, which therefore is not page-locked.

A step does not wait. It runs on our own stream, which CUDA orders with the default stream, where the copies run. This
follows from ONNX Runtime's source, but no GPU has run it yet. ``benchmarks/gpu_check.py`` tests it.
"""

from __future__ import annotations

import ctypes
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.errors import ArtifactError, EngineError, ExportError, first_line
from framecast.graph.manifest import RENDER, beside, check_halves
from framecast.runtime.engines.device import Buffer, DeviceEngine
from framecast.runtime.engines.onnxruntime import Running, check_boundary
from framecast.runtime.engines.tensorrt.cuda import libcuda_

_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
_ALIGNED = 256  # bytes, as CUDA allocates
CURE = "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]' onnx"


class _OrtBuffer(Buffer):
    def __init__(self, value: Any, zeros: NDArray[Any]) -> None:
        self.value, self.shape, self.dtype = value, zeros.shape, zeros.dtype
        self.address: int = value.data_ptr()
        self._zeros = zeros  # kept, because on a CPU the value uses this memory

    def upload(self, array: NDArray[Any]) -> None:
        self.value.update_inplace(np.ascontiguousarray(array))

    def download(self) -> NDArray[Any]:
        found: NDArray[Any] = self.value.numpy()
        return found.copy() if np.shares_memory(found, self._zeros) else found


class _Part(Buffer):
    """A part of a larger buffer. The first download of a part after a step fetches all parts."""

    def __init__(self, whole: _OrtBuffer, fetched: list[NDArray[Any]], start: int, shape: tuple[int, ...], dtype: Any):
        self.shape, self.dtype, self.address = shape, np.dtype(dtype), whole.address + start
        self.fetched = fetched  # at most one array, from the last download
        self._whole = whole
        self._bytes = slice(start, start + int(np.prod(shape)) * self.dtype.itemsize)

    def upload(self, array: NDArray[Any]) -> None:
        raise NotImplementedError("only a step writes this buffer")

    def download(self) -> NDArray[Any]:
        if not self.fetched:
            self.fetched.append(self._whole.download())
        return self.fetched[0][self._bytes].view(self.dtype).reshape(self.shape)


class OnnxRuntimeCudaEngine(DeviceEngine):
    """See :class:`Engine`.

    Args:
        artifact: path of the ONNX file.
        threads: CPU threads for operators that run on the CPU; 0 means one per core.
        device: ``cuda``; ``cpu`` tests the same code on a machine that has no GPU.
        precision: ``fp32``; or ``tf32``, in which convolutions and matrix products round their inputs to 10 bits. ONNX
            Runtime's own default is TF32.

    Raises:
        ArtifactError: the file is not a usable artifact.
        EngineError: this ONNX Runtime has no CUDA, cannot load it, or finds no GPU.
    """

    name = "onnxruntime-cuda"

    def __init__(self, artifact: Path, *, threads: int = 0, device: str = "cuda", precision: str = "fp32") -> None:
        super().__init__()
        try:
            import onnxruntime

            from framecast.graph.artifact import load, metadata_of, read
            from framecast.graph.device import device_graph
        except ImportError as error:
            raise EngineError(f"onnxruntime-cuda needs {error.name}: {CURE}") from error
        self.version: str = onnxruntime.__version__
        self.device, self.precision = device, precision
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy
        if _PROVIDERS[device] not in onnxruntime.get_available_providers():
            raise EngineError(
                f"this onnxruntime {self.version} was built without CUDA: {CURE} (or use --engine onnxruntime)"
            )
        proto = read(artifact)
        self.manifest = manifest = self._manifest(artifact, proto)
        halves = [proto]
        if manifest.renders == "moments":
            halves.append(load(beside(artifact, RENDER)))
            check_halves(artifact, metadata_of(proto), metadata_of(halves[1]), RENDER)
        try:
            graphs = [device_graph(half).SerializeToString() for half in halves]
        except ExportError as error:
            raise ArtifactError(f"{artifact}: {error}") from error
        self._running = Running(onnxruntime)
        self._running.options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._sessions = self._opened(onnxruntime, graphs, threads)

    @staticmethod
    def _manifest(artifact: Path, proto: Any) -> Any:
        from framecast.graph.artifact import manifest_of

        manifest = manifest_of(proto)
        try:
            check_boundary(manifest, proto.graph.input, proto.graph.output)
        except ArtifactError as error:
            raise ArtifactError(f"{artifact}: {error}") from error
        return manifest

    def _opened(self, onnxruntime: Any, graphs: list[bytes], threads: int) -> list[Any]:
        """Open a session for each graph on the device, with no fallback to the CPU."""
        provider, choices = _PROVIDERS[self.device], {}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # no logs: we raise failures as one-line errors
        with _quiet(onnxruntime):
            if self.device == "cuda":
                choices = {"use_tf32": str(int(self.precision == "tf32")), "user_compute_stream": str(_stream())}
            try:
                if self.device == "cuda" and hasattr(onnxruntime, "preload_dlls"):  # from 1.21 on
                    onnxruntime.preload_dlls()  # finds CUDA in pip's packages
                # With fallback enabled, ONNX Runtime would print a failure and run the session on the CPU.
                sessions = [
                    onnxruntime.InferenceSession(g, options, providers=[(provider, choices)], enable_fallback=0)
                    for g in graphs
                ]
            except Exception as error:  # ONNX Runtime raises many types, some directly from C++
                raise EngineError(
                    f"onnxruntime cannot use this GPU ({first_line(error)}): see 'framecast doctor'"
                ) from error
        if provider not in sessions[0].get_providers():
            reason = missing_library(Path(onnxruntime.__file__).parent / "capi")
            if reason:
                raise EngineError(f"onnxruntime cannot load CUDA ({reason}): {CURE}")
            raise EngineError("onnxruntime finds no usable GPU: check the driver with 'framecast doctor'")
        return sessions

    def allocate(self, shape: tuple[int, ...], dtype: type[Any]) -> _OrtBuffer:
        """See :meth:`DeviceEngine.allocate`."""
        zeros = np.zeros(shape, dtype)
        return _OrtBuffer(self._value(zeros, self.device, 0), zeros)

    def allocate_outputs(self, shown: tuple[int, ...], finite: tuple[int, ...]) -> tuple[Buffer, Buffer]:
        """See :meth:`DeviceEngine.allocate_outputs`. One download fetches both."""
        start = -(-4 * int(np.prod(finite)) // _ALIGNED) * _ALIGNED
        whole, fetched = self.allocate((start + int(np.prod(shown)),), np.uint8), list[NDArray[Any]]()
        return _Part(whole, fetched, start, shown, np.uint8), _Part(whole, fetched, 0, finite, np.float32)

    def bind(
        self, reads: Mapping[str, Buffer], writes: Mapping[str, Buffer], *, render: bool = False
    ) -> Callable[[], None]:
        """See :meth:`DeviceEngine.bind`."""
        session, running = self._sessions[render], self._running
        binding = session.io_binding()
        for bind, buffers in ((binding.bind_input, reads), (binding.bind_output, writes)):
            for name, buffer in buffers.items():
                bind(name, self.device, 0, buffer.dtype.type, list(buffer.shape), buffer.address)
        old = [buffer.fetched for buffer in writes.values() if isinstance(buffer, _Part)]

        def run(_: Any = (reads, writes)) -> None:  # the default keeps the buffers alive: they are bound by address
            for fetched in old:
                fetched.clear()
            running.run(session, binding, self.manifest.config)

        return run

    def copy(self, to: int, of: int, size: int) -> None:
        """See :meth:`DeviceEngine.copy`.

        Raises:
            EngineError: the driver refused.
        """
        if self.device == "cpu":
            ctypes.memmove(to, of, size)
            return
        stream = ctypes.c_void_p(_stream())
        with _primary() as driver:
            code = driver.cuMemcpyDtoDAsync_v2(ctypes.c_uint64(to), ctypes.c_uint64(of), ctypes.c_size_t(size), stream)
        if code:
            raise EngineError(f"the GPU could not copy a state (error {code}): check dmesg, and that the GPU is there")

    def copy_row(self, source: Buffer, row: int, target: Buffer, to: int) -> None:
        """See :meth:`Engine.copy_row`."""
        if isinstance(target, _Part):
            target.fetched.clear()
        super().copy_row(source, row, target, to)

    def interrupt(self, reason: str) -> bool:
        """See :meth:`Engine.interrupt`."""
        return self._running.interrupt(reason)

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        super().close()
        self._sessions.clear()


@cache
def _stream() -> int:
    """Make one stream for all steps of this process. It is never destroyed.

    ONNX Runtime's Python API copies on the default stream, but ONNX Runtime's own streams and the default stream do not
    wait for each other. This stream and the default stream do, so the host need not wait for a step.

    Raises:
        EngineError: the driver is missing, or cannot make a stream.
    """
    stream = ctypes.c_void_p()
    with _primary() as driver:
        code = driver.cuStreamCreate(ctypes.byref(stream), 0)  # CU_STREAM_DEFAULT: not CU_STREAM_NON_BLOCKING
    if code:
        raise EngineError(f"the NVIDIA driver cannot make a stream (error {code}): check that nvidia-smi lists a GPU")
    return int(stream.value or 0)


@cache
def _driver() -> tuple[Any, int]:
    """The driver and the GPU's primary context, which CUDA's runtime uses.

    Raises:
        EngineError: the driver is missing, or finds no GPU.
    """
    try:
        driver = libcuda_()
    except OSError as error:
        raise EngineError(
            "no NVIDIA driver here (libcuda.so.1 cannot be loaded): install the driver, or start the container with "
            "--gpus all (on a Jetson --runtime nvidia)"
        ) from error
    device, context = ctypes.c_int(), ctypes.c_void_p()
    code = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    )
    if code:
        raise EngineError(f"the NVIDIA driver cannot use its GPU (error {code}): check that nvidia-smi lists a GPU")
    return driver, int(context.value or 0)


@contextmanager
def _primary() -> Iterator[Any]:
    """The driver, with the GPU's primary context current in this thread."""
    driver, context = _driver()
    driver.cuCtxPushCurrent_v2(ctypes.c_void_p(context))
    try:
        yield driver
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def missing_library(folder: Path) -> str:
    """The linker's reason why the CUDA provider cannot be loaded, or "" if it can. ONNX Runtime only logs it.

    Call this only after ONNX Runtime has tried to load the provider. A provider that is loaded earlier does not find
    ONNX Runtime later.

    Args:
        folder: the folder of ONNX Runtime's provider libraries.
    """
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)  # the next one needs it
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return first_line(error).replace(": ", ", ")
    return ""


_QUIET = threading.Lock()


@contextmanager
def _quiet(onnxruntime: Any) -> Iterator[None]:
    """Hide what ONNX Runtime prints and logs about missing libraries, because our error reports them."""
    with _QUIET:  # the log level and stdout belong to the whole process
        onnxruntime.set_default_logger_severity(4)
        try:
            with redirect_stdout(io.StringIO()):
                yield
        finally:
            onnxruntime.set_default_logger_severity(2)  # its default
