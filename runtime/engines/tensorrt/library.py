"""Finds TensorRT and the GPU: ``tensorrt`` 10 and 11, or ``tensorrt_rtx``, behind one small interface.

We ask the driver directly, before TensorRT is used. Without a driver, parts of some TensorRT versions end the process
(such as 8.6's Runtime).
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from framecast.errors import EngineError, first_line

NAMES = ("tensorrt", "tensorrt_rtx")  # the first one installed wins
OLDEST = 10  # oldest ``tensorrt``: earlier versions lack strongly typed networks and our kind of plugins
# The targets of TensorRT for RTX on a machine that has no GPU: compute capability, and name in its enumeration.
RTX_TARGETS = {"7.5": "SM75", "8.0": "SM80", "8.6": "SM86", "8.9": "SM89", "12.0": "SM120", "12.1": "SM121"}

_CURES = {
    "tensorrt": "it comes with JetPack and NVIDIA's containers (a virtual environment needs --system-site-packages)",
    "tensorrt_rtx": "pip install 'framecast[rtx]' (in a clone: -e '.[rtx]'), for RTX GPUs",
}
FINEST = 1  # the level of messages that not even --verbose shows
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gpu:
    """The first GPU: name, compute capability (``8.7``), and the newest CUDA that its driver supports (``12.6``)."""

    name: str
    capability: str
    driver: str


@dataclass(frozen=True)
class Library:
    """A usable TensorRT.

    Attributes:
        name: ``tensorrt`` or ``tensorrt_rtx``.
        version: the module's ``__version__``.
        trt: the module itself.
    """

    name: str
    version: str
    trt: Any

    @property
    def rtx(self) -> bool:
        """Whether it is TensorRT for RTX, which has no plugins and builds on a machine that has no GPU."""
        return self.name == "tensorrt_rtx"

    def logger(self) -> Any:
        """The process's only ``ILogger`` for this library. It forwards all messages to Python's logging.

        TensorRT keeps the first logger that it is given, and goes on using it (NVIDIA/TensorRT issue 1475).
        """
        return _logger(self.trt)

    @contextmanager
    def errors(self) -> Iterator[list[str]]:
        """Collect the errors that TensorRT reports in this ``with`` block, oldest first.

        An error belongs to the innermost block of the thread that reports it. TensorRT also reports from threads of its
        own. Such an error belongs to the only thread that is in a block. If several are, it is only logged.
        """
        collected: list[str] = []
        scopes = self.logger().scopes.setdefault(threading.get_ident(), [])
        scopes.append(collected)
        try:
            yield collected
        finally:
            scopes.pop()


def gpu() -> Gpu:
    """Query the driver for the first GPU.

    Raises:
        EngineError: there is no driver, or it finds no GPU.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EngineError(
            "no NVIDIA driver here (libcuda.so.1 cannot be loaded): install the driver, or start the container with "
            "--gpus all (on a Jetson --runtime nvidia)"
        ) from error
    if code := cuda.cuInit(0):
        raise EngineError(f"the NVIDIA driver finds no GPU (cuInit: error {code}): check that nvidia-smi lists one")
    device, major, minor, driver = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)
    failed = (
        cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, len(name), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
        or cuda.cuDriverGetVersion(ctypes.byref(driver))
    )
    if failed:
        raise EngineError(f"the NVIDIA driver cannot describe its GPU (error {failed}): check it with nvidia-smi")
    version = f"{driver.value // 1000}.{driver.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", version)


def library(name: str | None = None) -> Library:
    """Load the installed TensorRT. This needs no GPU.

    Args:
        name: one of ``NAMES`` (default: the first one installed).

    Raises:
        EngineError: there is none, it cannot be loaded, or it is too old.
    """
    wanted = (name,) if name else NAMES
    found = next((n for n in wanted if importlib.util.find_spec(n)), None)
    if found is None:
        cures = "; ".join(f"{n}: {_CURES[n]}" for n in wanted)
        raise EngineError(f"no TensorRT here: {cures}")
    return _checked(found, _load(found))


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        reason = first_line(error).replace(": ", ", ")
        raise EngineError(f"{name} is installed but cannot be loaded ({reason}): {_CURES[name]}") from error


def _checked(name: str, module: ModuleType) -> Library:
    version = getattr(module, "__version__", None)
    if version is None or not hasattr(module, "Builder"):
        raise EngineError(f"this {name} has only the Python bindings, not the libraries: {_CURES[name]}")
    if name == "tensorrt" and int(str(version).partition(".")[0]) < OLDEST:
        raise EngineError(f"tensorrt {version} is too old: framecast needs {OLDEST}.0 or newer (JetPack 6.1 has 10.3)")
    return Library(name, str(version), module)


@cache
def _logger(trt: Any) -> Any:
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.DEBUG,  # about its internals: unused inputs, nodes with the same name
        trt.ILogger.INFO: FINEST,
        trt.ILogger.VERBOSE: FINEST,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Forwards TensorRT's messages to Python's logging. The caller raises the errors with these messages."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.scopes: dict[int, list[list[str]]] = {}  # by thread, the innermost last

        def log(self, severity: Any, message: str) -> None:
            """Take one message from TensorRT."""
            level = levels.get(severity, FINEST)
            if level == logging.ERROR:
                mine = self.scopes.get(threading.get_ident())
                open_ = [mine] if mine else [scopes for scopes in list(self.scopes.values()) if scopes]
                if len(open_) == 1:
                    open_[0][-1].append(message)
            _log.log(min(level, logging.DEBUG), "%s", message)

    return Logger()
