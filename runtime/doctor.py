"""Checks this machine: what is available, what is missing, and how to install it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2

from framecast.errors import EngineError
from framecast.runtime.cpu import int8
from framecast.runtime.engines import ENGINES, EngineRow
from framecast.runtime.shipped import shipped


@dataclass(frozen=True)
class Finding:
    """One part of the machine.

    Attributes:
        part: its name.
        state: the finding, as text.
        cure: what to do, or an empty string.
        here: whether it is usable.
        needed: whether ``framecast run demo`` needs it.
    """

    part: str
    state: str
    cure: str = ""
    here: bool = True
    needed: bool = False


def examine() -> list[Finding]:
    """Examine the interpreter, the CPU, the engines, OpenCV's backends, the cameras and the shipped models."""
    models = shipped()
    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return [
        Finding("python", system, needed=True),
        _int8(),
        *(_engine(name, row) for name, row in ENGINES.items()),
        _package("pyav (videos, streams)", "av", "pip install av", needed=True),
        _package("pillow (images)", "pillow", "pip install pillow", needed=True),
        *_opencv(),
        _gstreamer(),
        _cameras(),
        Finding(
            "shipped models",
            ", ".join(models) or "none",
            "" if models else "install the package again",
            here=bool(models),
            needed=True,
        ),
        _package("browser page (aiohttp)", "aiohttp", "pip install aiohttp"),
        _package(
            "triton (our kernels)",
            "triton",
            "only with a GPU: pip install 'framecast[triton]' (in a clone: -e '.[triton]')",
        ),
        _package(
            "onnx (build, quantize, split)",
            "onnx",
            "only for those commands: pip install 'framecast[build]' (in a clone: -e '.[build]')",
        ),
        _package(
            "torch (networks)",
            "torch",
            "only to export, import or train networks: pip install 'framecast[models]' (in a clone: -e '.[models]')",
        ),
    ]


def ready(findings: Sequence[Finding]) -> bool:
    """Whether ``framecast run demo`` works on this machine."""
    return all(finding.here for finding in findings if finding.needed)


def verdict(findings: Sequence[Finding]) -> str:
    """Whether framecast works on this machine, in one sentence."""
    if not ready(findings):
        broken = [finding for finding in findings if finding.needed and not finding.here]
        return f"Not ready: {'; '.join(f'{one.part}: {one.state} ({one.cure})' for one in broken)}"
    return "Ready: 'framecast run demo' works here."


def engines(findings: Sequence[Finding]) -> list[str]:
    """The names of the usable engines."""
    return [name for name in ENGINES if any(one.here for one in findings if one.part == _part(name))]


def _part(engine: str) -> str:
    return f"engine {engine}"


def _engine(name: str, row: EngineRow) -> Finding:
    needed = name == next(iter(ENGINES))  # the first engine runs everywhere
    try:
        return Finding(_part(name), row.look(), needed=needed)
    except EngineError as error:
        state, _, cure = str(error).partition(": ")
        return Finding(_part(name), state, cure if needed else f"only for {row.use}: {cure}", here=False, needed=needed)


def _int8() -> Finding:
    cpu = int8()
    if not cpu.saturates:
        return Finding("int8 on this CPU", cpu.instructions)
    cure = "int8 artifacts from older versions predict wrongly here: quantize again with 'framecast quantize'"
    return Finding("int8 on this CPU", f"{cpu.instructions}: adds two products in 16 bits", cure)


def _package(part: str, name: str, cure: str, *, needed: bool = False) -> Finding:
    try:
        return Finding(part, version(name), needed=needed)
    except PackageNotFoundError:
        return Finding(part, "missing", cure, here=False, needed=needed)


def _opencv() -> list[Finding]:
    here = cv2.videoio_registry.hasBackend(cv2.CAP_V4L2)
    cure = "" if here else "only for webcams on Linux: install opencv-python from PyPI"
    return [
        Finding("opencv", cv2.__version__, needed=True),
        Finding("opencv V4L2 (webcams)", "here" if here else "missing", cure, here=here),
    ]


def _gstreamer() -> Finding:
    launch = shutil.which("gst-launch-1.0")
    cure = "" if launch else "only for csi:// on a Jetson: apt-get install gstreamer1.0-tools"
    return Finding("gst-launch-1.0 (csi://)", launch or "missing", cure, here=bool(launch))


def _cameras() -> Finding:
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        return Finding("cameras", "no /dev/video*", "plug one in, or use rtsp://…, a file, or demo", here=False)
    closed = [str(d) for d in devices if not os.access(d, os.R_OK | os.W_OK)]
    cure = f"no permission for {', '.join(closed)}: add yourself to the group 'video'" if closed else ""
    return Finding("cameras", ", ".join(map(str, devices)), cure, here=len(closed) < len(devices))
