"""Power, clocks and temperatures of NVIDIA GPUs and Jetsons during a benchmark, and the clock of any CPU.

The report leaves out values that the machine does not provide. NVIDIA GPUs report through NVML (module ``pynvml``, from
PyPI's nvidia-ml-py, if it is installed). A Jetson's power rails report through the hwmon files of its INA3221 chip
(Documentation/hwmon/ina3221.rst in the kernel), or through ``tegrastats`` if those files cannot be read. The chip
averages over milliseconds, and NVML averages power over up to a second. The figures therefore describe the whole run,
not a single step.
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

INTERVAL = 0.1  # seconds between two readings
ROOT = Path("/")
Readings = dict[str, float]  # by name; the name ends in the unit
Probe = Callable[[], Readings]


@dataclass(frozen=True)
class Range:
    """The range of a reading over a run, in the unit at the end of the reading's name."""

    mean: float
    min: float
    max: float
    n: int


class Sampler:
    """Reads the sensors about ten times a second, in its own thread, inside its ``with`` block.

    Attributes:
        readings: pairs of (seconds since the block began, readings).
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
        """Return the range of each reading by name; empty if the machine has no sensors."""
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
            if not found and not self._closes:  # there are no sensors, and none is still starting
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
    """NVIDIA's management library. It leaves out values that a GPU does not support; a Jetson supports few."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._devices = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]

    @classmethod
    def open(cls) -> Nvml | None:
        """Open the library; None if the module or the driver is missing."""
        try:
            pynvml = importlib.import_module("pynvml")
        except ImportError:
            return None
        try:
            return cls(pynvml)
        except pynvml.NVMLError:
            return None

    def read(self) -> Readings:
        """Return power in W, clocks in MHz and temperature in °C of every GPU."""
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
        """Return how many bytes of the first GPU's memory all processes use together."""
        used = self._ask(lambda device: self._nvml.nvmlDeviceGetMemoryInfo(device).used, self._devices[0])
        return None if used is None else int(used)

    def close(self) -> None:
        """Shut the library down."""
        self._nvml.nvmlShutdown()

    def _ask(self, ask: Callable[[Any], float], device: Any) -> float | None:
        try:
            return ask(device)
        except self._nvml.NVMLError:
            return None


def device_memory() -> int | None:
    """Return how many bytes of the first GPU's memory are in use, from NVML; None if NVML is not available."""
    nvml = Nvml.open()
    if nvml is None:
        return None
    try:
        return nvml.memory()
    finally:
        nvml.close()


def rails(root: Path = ROOT) -> Readings:
    """Return the power of a Jetson's rails in W: voltage (mV) times current (mA) of each channel that has both."""
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
    """Return a Jetson's GPU clock in MHz. Its devfreq device has the GPU's name: 17000000.gpu, …ga10b, …gv11b."""
    for path in root.glob("sys/class/devfreq/*/cur_freq"):
        if re.search(r"gpu|g[apv]\d+b", path.parent.name) and (hertz := _number(path)) is not None:
            return {"GPU clock, MHz": hertz / 1e6}
    return {}


def cpu_clock(root: Path = ROOT) -> Readings:
    """Return the mean clock of the active cores, in MHz."""
    paths = root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    clocks = [kilohertz for path in paths if (kilohertz := _number(path)) is not None]
    return {"CPU clock, MHz": statistics.fmean(clocks) / 1e3} if clocks else {}


def temperatures(root: Path = ROOT) -> Readings:
    """Return the temperature of each type of thermal zone, in °C: the hottest zone of that type."""
    found = Readings()
    for path in root.glob("sys/class/thermal/thermal_zone*/temp"):
        name, value = _text(path.with_name("type")), _number(path)
        if name and value is not None and value > 0:  # sensors of powered-down parts fail or report far below 0
            name = f"{name}, °C"
            found[name] = max(value / 1e3, found.get(name, 0))
    return found


class Tegrastats:
    """NVIDIA's ``tegrastats`` on a Jetson. A thread keeps its newest line."""

    def __init__(self, command: str) -> None:
        self._newest = Readings()
        self._process = subprocess.Popen(  # noqa: S603 (found on PATH, and no argument comes from the user)
            [command, "--interval", f"{1000 * INTERVAL:.0f}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._thread = threading.Thread(target=self._follow, name="tegrastats", daemon=True)
        self._thread.start()

    def read(self) -> Readings:
        """Return the readings of the newest line."""
        return self._newest

    def close(self) -> None:
        """End the process and its thread."""
        with self._process:
            self._process.terminate()
            self._thread.join()

    def _follow(self) -> None:
        for line in self._process.stdout or ():
            self._newest = parse_tegrastats(line)


def parse_tegrastats(line: str) -> Readings:
    """Parse rails (``VDD_IN 4940mW/4940mW``), temperatures (``gpu@45.5C``) and clocks (``GR3D_FREQ 0%@[305]``)."""
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
