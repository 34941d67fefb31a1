"""What is here, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2

from framecast.errors import EngineError
from framecast.runtime.cpu import int8
from framecast.runtime.engines.tensorrt.library import gpu, library
from framecast.runtime.shipped import shipped

_SYSTEM, _SYSTEM_PYTHON = Path("/usr/lib"), "/usr/bin/python3"
_GSTREAMER_CURE = "only for csi:// on a Jetson: its system's OpenCV has it, or apt-get install gstreamer1.0-tools"


@dataclass(frozen=True)
class Finding:
    """One part of the machine: its state, and the cure where something is missing."""

    part: str
    state: str
    cure: str = ""


def examine() -> list[Finding]:
    """Look at the interpreter, the CPU, the engines, OpenCV's backends, the cameras and the shipped models."""
    return [
        Finding(
            "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        ),
        _int8(),
        _engine(),
        _package(
            "engine openvino", "openvino", "only for a CPU, where it is faster: pip install 'framecast[openvino]'"
        ),
        _tensorrt(),
        *_opencv(),
        _cameras(),
        Finding("shipped models", ", ".join(shipped()) or "none", "" if shipped() else "install the package again"),
        _package("browser page (aiohttp)", "aiohttp", "pip install aiohttp"),
        _package("pycuda (engine tensorrt)", "pycuda", "only with a GPU: pip install 'framecast[cuda]'"),
        _package("triton (our kernels)", "triton", "only with a GPU: pip install 'framecast[triton]'"),
        _package(
            "torch (networks, engine torch)",
            "torch",
            "to export, import or inspect networks: pip install 'framecast[models]' (in a clone -e '.[models]')",
        ),
    ]


def _int8() -> Finding:
    cpu = int8()
    if not cpu.saturates:
        return Finding("int8 on this CPU", cpu.instructions)
    cure = "int8 artifacts of older versions are wrong here: make them again with 'framecast quantize'"
    return Finding("int8 on this CPU", f"{cpu.instructions}: adds two products in 16 bits", cure)


def _package(part: str, name: str, cure: str) -> Finding:
    try:
        return Finding(part, version(name))
    except PackageNotFoundError:
        return Finding(part, "missing", cure)


def _engine() -> Finding:
    try:
        import onnxruntime
    except ImportError as error:
        return Finding("engine onnxruntime", f"cannot be loaded: {error}", "pip install onnxruntime")
    where = "CPU, CUDA" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "CPU"
    return Finding("engine onnxruntime", f"{onnxruntime.__version__} ({where})")


def _tensorrt() -> Finding:
    """The library and the GPU; whichever is missing brings its cure along."""
    told = [_told(look) for look in (_library, _gpu)]
    return Finding("engine tensorrt", "; ".join(part for part, _ in told), "; ".join(cure for _, cure in told if cure))


def _told(look: Callable[[], str]) -> tuple[str, str]:
    """What is there, or what is missing and its cure."""
    try:
        return look(), ""
    except EngineError as error:
        what, _, cure = str(error).partition(": ")
        return what, cure


def _library() -> str:
    found = library()
    return f"{found.name} {found.version}"


def _gpu() -> str:
    found = gpu()
    return f"{found.name}, compute capability {found.capability}, CUDA {found.driver}"


def _opencv() -> list[Finding]:
    wanted = {
        "FFMPEG": (cv2.CAP_FFMPEG, "files and rtsp://", "install opencv-python from PyPI"),
        "V4L2": (cv2.CAP_V4L2, "webcams", "install opencv-python from PyPI, on Linux"),
        "GSTREAMER": (cv2.CAP_GSTREAMER, "csi://", _GSTREAMER_CURE),
    }
    rows = [Finding("opencv", cv2.__version__)]
    for name, (backend, use, cure) in wanted.items():
        here = cv2.videoio_registry.hasBackend(backend)
        rows.append(Finding(f"opencv {name} ({use})", "here" if here else "missing", "" if here else cure))
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER) and (hidden := _hidden_opencv()):
        cure = f"to use it: {_SYSTEM_PYTHON} -m venv --system-site-packages; there pip uninstall opencv-python, and "
        cure += "pip install 'numpy<2' where it was built for that; csi:// also works without, by gst-launch-1.0"
        rows.append(Finding("opencv of the system", f"{hidden} has GSTREAMER; {cv2.__file__} hides it", cure))
    launch = shutil.which("gst-launch-1.0")
    rows.append(Finding("gst-launch-1.0 (csi://)", launch or "missing", "" if launch else _GSTREAMER_CURE))
    return rows


def _hidden_opencv() -> str | None:
    """The system's OpenCV, if it is another one than ours and has GStreamer: on a Jetson it does."""
    ours = Path(cv2.__file__).resolve()
    for folder in sorted(_SYSTEM.glob("python3*/dist-packages")):
        if any(folder.glob("cv2*")) and folder.resolve() not in ours.parents:
            code = "import cv2; print(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), cv2.__file__)"
            path = f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"
            try:
                done = subprocess.run([_SYSTEM_PYTHON, "-I", "-c", path], capture_output=True, text=True, timeout=20)  # noqa: S603
            except (OSError, subprocess.TimeoutExpired):
                continue
            if done.stdout.startswith("True "):
                return done.stdout.removeprefix("True ").strip()
    return None


def _cameras() -> Finding:
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        return Finding("cameras", "no /dev/video*", "plug one in, or use rtsp://…, a file, or demo")
    closed = [str(d) for d in devices if not os.access(d, os.R_OK | os.W_OK)]
    cure = f"no permission for {', '.join(closed)}: add yourself to the group 'video'" if closed else ""
    return Finding("cameras", ", ".join(map(str, devices)), cure)
