"""What is here, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2

from framecast.runtime.shipped import shipped


@dataclass(frozen=True)
class Finding:
    """One part of the machine: its state, and the cure where something is missing."""

    part: str
    state: str
    cure: str = ""


def examine() -> list[Finding]:
    """Look at the interpreter, the engines, OpenCV's backends, the cameras and the shipped models."""
    return [
        Finding(
            "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        ),
        _engine(),
        *_opencv(),
        _cameras(),
        Finding("shipped models", ", ".join(shipped()) or "none", "" if shipped() else "install the package again"),
        _package("browser page (aiohttp)", "aiohttp", "pip install aiohttp"),
        _package(
            "networks (torch)",
            "torch",
            "to export, import or inspect networks: pip install 'framecast[models]' (in a clone -e '.[models]')",
        ),
    ]


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
    return Finding("engine onnxruntime", f"{onnxruntime.__version__} (CPU)")


def _opencv() -> list[Finding]:
    wanted = {
        "FFMPEG": (cv2.CAP_FFMPEG, "files and rtsp://", "install opencv-python from PyPI"),
        "V4L2": (cv2.CAP_V4L2, "webcams", "install opencv-python from PyPI, on Linux"),
        "GSTREAMER": (cv2.CAP_GSTREAMER, "not used yet", "nothing: no source needs it"),
    }
    rows = [Finding("opencv", cv2.__version__)]
    for name, (backend, use, cure) in wanted.items():
        here = cv2.videoio_registry.hasBackend(backend)
        rows.append(Finding(f"opencv {name} ({use})", "here" if here else "missing", "" if here else cure))
    return rows


def _cameras() -> Finding:
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        return Finding("cameras", "no /dev/video*", "plug one in, or use rtsp://…, a file, or demo")
    closed = [str(d) for d in devices if not os.access(d, os.R_OK | os.W_OK)]
    cure = f"no permission for {', '.join(closed)}: add yourself to the group 'video'" if closed else ""
    return Finding("cameras", ", ".join(map(str, devices)), cure)
