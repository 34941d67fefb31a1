"""Checks which engines this machine has: their version and device, or what is missing and how to get it.

It opens no model. It loads a library only if there is no other way to check it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from framecast.errors import EngineError, first_line
from framecast.runtime.engines.tensorrt.library import gpu, library


def opencv() -> str:
    """Check OpenCV, which is always installed."""
    import cv2

    return f"{cv2.__version__}, on the CPU"


def onnxruntime() -> str:
    """Check ONNX Runtime on the CPU.

    Raises:
        EngineError: it cannot be loaded.
    """
    try:
        import onnxruntime as found
    except ImportError as error:
        raise EngineError(f"it cannot be loaded ({_reason(error)}): pip install onnxruntime") from error
    return f"{found.__version__}, on the CPU"


def onnxruntime_cuda() -> str:
    """Check ONNX Runtime with CUDA, and onnx, which prepares the graph for a device.

    Raises:
        EngineError: one of them is missing, or there is no GPU.
    """
    cure = "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]' onnx"
    try:
        import onnxruntime as found
    except ImportError as error:
        raise EngineError(f"it cannot be loaded ({_reason(error)}): {cure}") from error
    if "CUDAExecutionProvider" not in found.get_available_providers():
        raise EngineError(f"onnxruntime {found.__version__} has no CUDA: {cure}")
    if find_spec("onnx") is None:
        raise EngineError("onnx is missing: pip install onnx")
    return f"{found.__version__}, on {gpu().name}"


def openvino() -> str:
    """Check OpenVINO on the CPU.

    Raises:
        EngineError: it is not installed.
    """
    return f"{_version('openvino', 'openvino')}, on the CPU"


def torch() -> str:
    """Check PyTorch, on any device.

    Raises:
        EngineError: it is not installed.
    """
    return _version("torch", "models")


def tensorrt() -> str:
    """Check TensorRT or TensorRT for RTX, the GPU, and pycuda, which runs the engines.

    Raises:
        EngineError: something is missing. The message names every missing part.
    """
    parts = [_state_and_cure(look) for look in (_tensorrt_library, _gpu, _pycuda)]
    state = "; ".join(text for text, _ in parts)
    if cures := "; ".join(cure for _, cure in parts if cure):
        raise EngineError(f"{state}: {cures}")
    return state


def server() -> str:
    """Check the client of a model server. Whether there is one shows when it is opened.

    Raises:
        EngineError: it is not installed.
    """
    _version("grpcio", "server")
    return f"tritonclient {_version('tritonclient', 'server')}"


def _state_and_cure(look: Callable[[], str]) -> tuple[str, str]:
    """Returns a part's description and "", or the missing part and how to get it."""
    try:
        return look(), ""
    except EngineError as error:
        what, _, cure = str(error).partition(": ")
        return what, cure


def _tensorrt_library() -> str:
    found = library()
    return f"{found.name} {found.version}"


def _gpu() -> str:
    found = gpu()
    return f"{found.name}, compute capability {found.capability}, CUDA {found.driver}"


def _pycuda() -> str:
    return f"pycuda {_version('pycuda', 'cuda')}"


def _reason(error: ImportError) -> str:
    return first_line(error).replace(": ", ", ")  # the first ": " of a message must come right before its cure


def _version(package: str, extra: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise EngineError(
            f"{package} is not installed: pip install 'framecast[{extra}]'; in a clone: -e '.[{extra}]'"
        ) from None
