"""Power, clocks and temperatures while a benchmark runs: of NVIDIA's GPUs, of Jetsons, and the clocks of any CPU.

What the machine does not tell is not reported. NVIDIA's GPUs are asked through NVML (module ``pynvml``, of PyPI's
nvidia-ml-py, where it is installed); a Jetson's rails through the hwmon files of its INA3221 (Documentation/hwmon/
ina3221.rst in the kernel), or ``tegrastats`` where those cannot be read. A rail's chip averages over milliseconds, and
NVML's power over up to a second: the figures are of the whole run, and say nothing of a single step.
"""

from __future__ import annotations

import importlib
import re
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

INTERVAL = 0.1  # seconds between two looks
ROOT = Path("/")
Readings = dict[str, float]  # by name, which ends in the unit
Probe = Callable[[], Readings]


@dataclass(frozen=True)
class Range:
    """A reading over a run, in the unit that its name ends in."""

    mean: float
    min: float
    max: float
    n: int


class Sampler:
    """Looks about ten times a second, in a thread of its own, from entering to leaving it.

    Attributes:
        readings: (seconds since it was entered, what was read then).
    """

    def __init__(self, root: Path = ROOT, interval: float = INTERVAL) -> None:
        self.readings: list[tuple[float, Readings]] = []
        self._interval = interval
        self._closes: list[Callable[[], None]] = []
        self._probes: list[Probe] = [
            lambda: cpu_clock(root),
            lambda: jetson_gpu_clock(root),
            lambda: temperatures(root),
        ]
        nvml = Nvml.open()
        if nvml is not None:
            self._probes.append(nvml.read)
            self._closes.append(nvml.close)
        if rails(root):
            self._probes.append(lambda: rails(root))
        elif (command := shutil.which("tegrastats")) is not None:
            stats = Tegrastats(command)
            self._probes.append(stats.read)
            self._closes.append(stats.close)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power", daemon=True)

    def summary(self) -> dict[str, Range]:
        """What was read, by name; empty where the machine tells nothing."""
        values: dict[str, list[float]] = {}
        for _, reading in self.readings:
            for name, value in reading.items():
                values.setdefault(name, []).append(value)
        return {name: Range(statistics.fmean(v), min(v), max(v), len(v)) for name, v in sorted(values.items())}

    def _run(self) -> None:
        begun = time.monotonic()
        while True:
            now = time.monotonic() - begun
            found: Readings = {}
            for probe in self._probes:
                found |= probe()
            if not found and not self._closes:  # nothing here tells anything, and nothing is still starting
                return
            self.readings.append((now, found))
            if self._stop.wait(self._interval):
                return

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for close in self._closes:
            close()


class Nvml:
    """NVIDIA's own library. What a GPU does not support (a Jetson's most things) is left out."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._devices = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]

    @classmethod
    def open(cls) -> Nvml | None:
        """It, or None where the module or the driver is missing."""
        try:
            pynvml = importlib.import_module("pynvml")
        except ImportError:
            return None
        try:
            return cls(pynvml)
        except pynvml.NVMLError:
            return None

    def read(self) -> Readings:
        """Power in W, clocks in MHz, temperature in °C, of every GPU."""
        nvml, found = self._nvml, Readings()
        asked: Mapping[str, tuple[Callable[[Any], float], float]] = {
            "power, W": (nvml.nvmlDeviceGetPowerUsage, 1e-3),
            "clock, MHz": (lambda device: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM), 1),
            "memory clock, MHz": (lambda device: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM), 1),
            "temperature, °C": (lambda device: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU), 1),
        }
        for index, device in enumerate(self._devices):
            for name, (ask, unit) in asked.items():
                value = self._ask(ask, device)
                if value is not None:
                    found[f"GPU {index} {name}"] = value * unit
        return found

    def memory(self) -> int | None:
        """Bytes of the first GPU's memory that all processes together use."""
        used = self._ask(lambda device: self._nvml.nvmlDeviceGetMemoryInfo(device).used, self._devices[0])
        return None if used is None else int(used)

    def close(self) -> None:
        """Let go of the library."""
        self._nvml.nvmlShutdown()

    def _ask(self, ask: Callable[[Any], float], device: Any) -> float | None:
        try:
            return ask(device)
        except self._nvml.NVMLError:
            return None


def device_memory() -> int | None:
    """Bytes of the first GPU's memory in use, by NVML; None where that is not to be had."""
    nvml = Nvml.open()
    if nvml is None:
        return None
    try:
        return nvml.memory()
    finally:
        nvml.close()


def rails(root: Path = ROOT) -> Readings:
    """A Jetson's rails, in W: the voltage (mV) times the current (mA) of each channel that has both."""
    found = Readings()
    for label in root.glob("sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label"):
        number = label.name.removeprefix("in").removesuffix("_label")
        volts = _number(label.with_name(f"in{number}_input"))
        amperes = _number(label.with_name(f"curr{number}_input"))
        name = _text(label)
        if name and volts is not None and amperes is not None:
            found[f"{name}, W"] = volts * amperes / 1e6
    return found


def jetson_gpu_clock(root: Path = ROOT) -> Readings:
    """A Jetson's GPU clock, in MHz: its devfreq device is called after the GPU (17000000.gpu, …ga10b, …gv11b)."""
    for path in root.glob("sys/class/devfreq/*/cur_freq"):
        if re.search(r"gpu|g[apv]\d+b", path.parent.name) and (hertz := _number(path)) is not None:
            return {"GPU clock, MHz": hertz / 1e6}
    return {}


def cpu_clock(root: Path = ROOT) -> Readings:
    """The mean clock of the cores that are on, in MHz."""
    paths = root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    clocks = [kilohertz for path in paths if (kilohertz := _number(path)) is not None]
    return {"CPU clock, MHz": statistics.fmean(clocks) / 1e3} if clocks else {}


def temperatures(root: Path = ROOT) -> Readings:
    """Of the thermal zones, in °C; of several of one type the hottest."""
    found = Readings()
    for path in root.glob("sys/class/thermal/thermal_zone*/temp"):
        name, value = _text(path.with_name("type")), _number(path)
        if name and value is not None and value > 0:  # a sensor of a part that is off reads nothing, or far below
            name = f"{name}, °C"
            found[name] = max(value / 1e3, found.get(name, 0))
    return found


class Tegrastats:
    """NVIDIA's own tool on a Jetson, whose newest line is read."""

    def __init__(self, command: str) -> None:
        self._newest = Readings()
        self._process = subprocess.Popen(  # noqa: S603 (found on PATH, with no word of the user's)
            [command, "--interval", f"{1000 * INTERVAL:.0f}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._thread = threading.Thread(target=self._follow, name="tegrastats", daemon=True)
        self._thread.start()

    def read(self) -> Readings:
        """Of the newest line."""
        return self._newest

    def close(self) -> None:
        """End it."""
        with self._process:
            self._process.terminate()
            self._thread.join()

    def _follow(self) -> None:
        for line in self._process.stdout or ():
            self._newest = parse_tegrastats(line)


def parse_tegrastats(line: str) -> Readings:
    """Rails (``VDD_IN 4940mW/4940mW``), temperatures (``gpu@45.5C``) and clocks (``GR3D_FREQ 0%@[305]``) of a line."""
    found: Readings = {f"{name}, W": int(value) / 1e3 for name, value in re.findall(r"(\w+) (\d+)mW\b", line)}
    found |= {f"{name}, °C": float(value) for name, value in re.findall(r"(\w+)@(\d[\d.]*)C\b", line)}
    if gpu := re.search(r"GR3D_FREQ \d+%@\[?(\d+)", line):
        found["GPU clock, MHz"] = float(gpu[1])
    if cpu := re.search(r"CPU \[([^]]*)]", line):
        clocks = [int(value) for value in re.findall(r"%@(\d+)", cpu[1])]
        if clocks:
            found["CPU clock, MHz"] = statistics.fmean(clocks)
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _number(path: Path) -> float | None:
    text = _text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
