"""Checks this machine: what is available, what is missing, and how to install it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2

from framecast.errors import EngineError
from framecast.runtime.cpu import int8
from framecast.runtime.engines import ENGINES, EngineRow
from framecast.runtime.shipped import shipped

_SYSTEM, _SYSTEM_PYTHON = Path("/usr/lib"), "/usr/bin/python3"
_GSTREAMER_CURE = "only for csi:// on a Jetson: use the system's OpenCV, or apt-get install gstreamer1.0-tools"


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
        *_opencv(),
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


def _package(part: str, name: str, cure: str) -> Finding:
    try:
        return Finding(part, version(name))
    except PackageNotFoundError:
        return Finding(part, "missing", cure, here=False)


def _opencv() -> list[Finding]:
    launch = shutil.which("gst-launch-1.0")
    wanted = {  # backend, its use, the cure if it is missing, whether the demo clip needs it
        "FFMPEG": (cv2.CAP_FFMPEG, "files and rtsp://", "install opencv-python from PyPI", True),
        "V4L2": (cv2.CAP_V4L2, "webcams", "install opencv-python from PyPI, on Linux", False),
        "GSTREAMER": (cv2.CAP_GSTREAMER, "csi://", "" if launch else _GSTREAMER_CURE, False),  # or gst-launch-1.0
    }
    rows = [Finding("opencv", cv2.__version__, needed=True)]
    for name, (backend, use, cure, needed) in wanted.items():
        here = cv2.videoio_registry.hasBackend(backend)
        state = "here" if here else "missing" if cure else "missing; gst-launch-1.0 is used instead"
        rows.append(Finding(f"opencv {name} ({use})", state, "" if here else cure, here=here, needed=needed))
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER) and (hidden := _hidden_opencv()):
        cure = f"to use it: {_SYSTEM_PYTHON} -m venv --system-site-packages VENV; in VENV pip uninstall opencv-python, "
        cure += "and pip install 'numpy<2' if that OpenCV needs it; csi:// also works through gst-launch-1.0"
        rows.append(Finding("opencv of the system", f"{hidden} has GSTREAMER; {cv2.__file__} hides it", cure))
    gstreamer = cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)
    cure = "" if launch or gstreamer else _GSTREAMER_CURE
    rows.append(Finding("gst-launch-1.0 (csi://)", launch or "missing", cure, here=bool(launch)))
    return rows


def _hidden_opencv() -> str | None:
    """The path of the system's OpenCV if it is not ours and has GStreamer, as on a Jetson; otherwise None."""
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
        return Finding("cameras", "no /dev/video*", "plug one in, or use rtsp://…, a file, or demo", here=False)
    closed = [str(d) for d in devices if not os.access(d, os.R_OK | os.W_OK)]
    cure = f"no permission for {', '.join(closed)}: add yourself to the group 'video'" if closed else ""
    return Finding("cameras", ", ".join(map(str, devices)), cure, here=len(closed) < len(devices))
