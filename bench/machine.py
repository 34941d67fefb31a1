"""Description of the machine behind a figure: processor, memory, GPU, versions, commit, and how busy it was."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TypedDict

import psutil

from framecast.errors import EngineError
from framecast.runtime.report import versions

BUSY = 0.25  # load average per core that triggers a warning: one other process on two cores is 0.5
_CLONE = Path(__file__).resolve().parents[1]  # the repository's root if this is a clone, not an installed package
_CPU = "sys/devices/system/cpu/cpu0/cpufreq"


class Machine(TypedDict):
    """The result of :func:`describe`; a field is None if the system does not report it.

    Attributes:
        processor: name of the processor.
        cores: number of logical cores.
        usable: number of cores that this process may run on.
        memory_bytes: memory of the machine.
        system: operating system and architecture.
        governor: clock governor of the first core, such as ``performance``.
        max_mhz: highest clock that the governor may set.
        gpu: name of the first GPU.
        cuda: newest CUDA version that the driver supports.
        driver: version of the GPU's driver.
        load: load average over the minute before the description.
        versions: versions of everything that the figures depend on.
        commit: commit of the clone, with ``-dirty`` if it has changes.
        date: date of the description, in UTC.
    """

    processor: str
    cores: int
    usable: int
    memory_bytes: int
    system: str
    governor: str | None
    max_mhz: float | None
    gpu: str | None
    cuda: str | None
    driver: str | None
    load: float
    versions: dict[str, str]
    commit: str | None
    date: str


def describe(engines: Mapping[str, str], root: Path = Path("/")) -> Machine:
    """Describe this machine.

    Args:
        engines: versions of the engines to measure, by name; the function adds the other versions.
        root: root of the file system; tests replace it.
    """
    parts: dict[str, str] = {}
    for name, version in (engines or {"python": platform.python_version()}).items():
        parts |= versions(name, version)
    system = parts.pop("machine", f"{platform.system()} {platform.machine()}")
    gpu, cuda = _gpu()
    fastest = _read(root / _CPU / "scaling_max_freq")
    return {
        "processor": _field(root / "proc/cpuinfo", "model name") or _read(root / "proc/device-tree/model")
        or platform.processor() or platform.machine(),
        "cores": psutil.cpu_count() or 1,
        "usable": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": system,
        "governor": _read(root / _CPU / "scaling_governor"),
        "max_mhz": int(fastest) / 1e3 if fastest and fastest.isdecimal() else None,
        "gpu": gpu,
        "cuda": cuda,
        "driver": _driver(root),
        "load": load(),
        "versions": parts,
        "commit": commit(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
    }  # fmt: skip


def lines(machine: Machine) -> list[tuple[str, str]]:
    """Return the description as lines, each a label and a text, without the unknown fields."""
    cores = f"{machine['cores']} cores" if machine["usable"] == machine["cores"] else (
        f"{machine['usable']} of {machine['cores']} cores"
    )  # fmt: skip
    what = [machine["processor"], cores, f"{machine['memory_bytes'] / 2**30:.0f} GiB", machine["system"]]
    rows = [("date", machine["date"])]
    if machine["commit"] is not None:
        rows.append(("commit", machine["commit"]))
    rows.append(("machine", ", ".join(what)))
    if machine["governor"] is not None:
        clock = f", at most {machine['max_mhz']:.0f} MHz" if machine["max_mhz"] else ""
        rows.append(("clock", f"governor {machine['governor']}{clock}"))
    if machine["gpu"] is not None:
        driver = f", driver {machine['driver']}" if machine["driver"] else ""
        rows.append(("gpu", f"{machine['gpu']}, CUDA {machine['cuda']}{driver}"))
    rows.append(("load", f"{machine['load']:.2f} before the measurement began"))
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in machine["versions"].items())))
    return rows


def load() -> float:
    """Return the load average: how many threads wanted a core, on average over the last minute."""
    return psutil.getloadavg()[0]


def busy(machine: Machine) -> str | None:
    """Return a warning if other programs were busy when the machine was described."""
    average, cores = machine["load"], machine["usable"]
    if average < BUSY * cores:
        return None
    return f"the machine is busy: load average {average:.2f} on {cores} cores (end other programs and measure again)"


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1  # not on macOS


def commit() -> str | None:
    """Return this clone's commit, with ``-dirty`` if anything but results changed; None if this is not a clone."""
    if not (_CLONE / ".git").exists():
        return None
    found = _git("rev-parse", "--short=10", "HEAD")
    if found and _git("status", "--porcelain", "--", ".", ":(exclude)benchmarks/results"):  # benchmarks write those
        found += "-dirty"
    return found or None


def _git(*arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "-C", str(_CLONE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


def _gpu() -> tuple[str | None, str | None]:
    from framecast.runtime.engines.tensorrt.library import gpu

    try:
        found = gpu()
    except EngineError:
        return None, None
    return found.name, found.driver


def _driver(root: Path) -> str | None:
    """Return the first word that looks like a version.

    An example is ``NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.86.10  Wed …``.
    """
    words = (_read(root / "proc/driver/nvidia/version") or "").split()
    return next((word for word in words if word[0].isdecimal() and "." in word), None)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip("\0 \n") or None
    except OSError:
        return None


def _field(path: Path, name: str) -> str | None:
    """Return the first value of ``name`` in a file of ``name : value`` lines."""
    for line in (_read(path) or "").splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return None
