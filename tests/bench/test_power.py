"""Power, clocks and temperatures, read from a hand-made sysfs tree and a fake NVML."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from framecast.bench import power
from framecast.bench.power import (
    Sampler,
    cpu_clock,
    device_memory,
    jetson_gpu_clock,
    parse_tegrastats,
    rails,
    temperatures,
)

Lay = Callable[[dict[str, str]], Path]
HWMON = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
ORIN = {
    f"{HWMON}/in1_label": "VDD_IN\n",
    f"{HWMON}/in1_input": "5000\n",
    f"{HWMON}/curr1_input": "960\n",
    f"{HWMON}/in2_label": "VDD_CPU_GPU_CV\n",
    f"{HWMON}/in2_input": "5000\n",
    f"{HWMON}/curr2_input": "200\n",
    f"{HWMON}/in7_label": "sum of shunt voltages\n",  # not a power rail: it has no current
    f"{HWMON}/in7_input": "12\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "305000000\n",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "700000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "45500\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",  # off
}
TEGRASTATS = (
    "11-20-2026 19:00:00 RAM 2448/7620MB (lfb 4x4MB) SWAP 0/3810MB (cached 0MB) CPU [2%@729,0%@729,off,1%@1510] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 17%@[305] NVDEC off cpu@45.5C soc2@44.656C tj@46.1C "
    "VDD_IN 4940mW/4940mW VDD_CPU_GPU_CV 688mW/688mW VDD_SOC 1512mW/1512mW"
)


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this machine's own pynvml and tegrastats."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    def lay(files: dict[str, str]) -> Path:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return lay


def test_a_jetson_is_read(lay: Lay) -> None:
    root = lay(ORIN)
    assert rails(root) == pytest.approx({"VDD_IN, W": 4.8, "VDD_CPU_GPU_CV, W": 1.0})
    assert jetson_gpu_clock(root) == {"GPU clock, MHz": 305}
    assert cpu_clock(root) == {"CPU clock, MHz": 1100}
    assert temperatures(root) == {"cpu-thermal, °C": 45.5}


def test_absent_or_broken_sensors_are_not_reported(lay: Lay) -> None:
    root = lay({f"{HWMON}/in1_label": "VDD_IN\n", f"{HWMON}/in1_input": "no number\n", f"{HWMON}/curr1_input": "1\n"})
    for read in (rails, jetson_gpu_clock, cpu_clock, temperatures):
        assert read(root) == {}
    assert device_memory() is None


def test_a_run_is_sampled(lay: Lay) -> None:
    root = lay(ORIN)
    sampled = threading.Event()

    class Enough(list[Any]):
        def append(self, item: Any) -> None:
            super().append(item)
            if len(self) == 3:
                sampled.set()

    sampler = Sampler(root, interval=0.001)
    sampler.readings = Enough()
    with sampler:
        assert sampled.wait(30)
    found = sampler.summary()
    assert found["VDD_IN, W"].mean == pytest.approx(4.8)
    assert found["VDD_IN, W"].n >= 3
    assert (found["CPU clock, MHz"].min, found["CPU clock, MHz"].max) == (1100, 1100)
    assert [t for t, _ in sampler.readings] == sorted(t for t, _ in sampler.readings)


def test_a_machine_without_sensors_needs_no_thread(tmp_path: Path) -> None:
    with Sampler(tmp_path) as sampler:
        sampler._thread.join(30)
        assert not sampler._thread.is_alive()
    assert sampler.summary() == {}


class NvmlError(Exception):
    """Stands in for pynvml's own exception."""


def nvml(*, clocks: bool = True, driver: bool = True) -> SimpleNamespace:
    def init() -> None:
        if not driver:
            raise NvmlError

    def clock(device: int, kind: int) -> int:
        if not clocks:
            raise NvmlError
        return 1980 if kind == 1 else 3201

    return SimpleNamespace(
        NVMLError=NvmlError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetPowerUsage=lambda device: 74_500,
        nvmlDeviceGetClockInfo=clock,
        nvmlDeviceGetTemperature=lambda device, sensor: 33,
        nvmlDeviceGetMemoryInfo=lambda device: SimpleNamespace(used=3 << 20),
    )


@pytest.mark.parametrize("clocks", [True, False])
def test_unsupported_nvml_readings_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clocks: bool) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(clocks=clocks))
    with Sampler(tmp_path) as sampler:
        pass
    found = {name: value.mean for name, value in sampler.summary().items()}
    assert found.pop("GPU 0 power, W") == pytest.approx(74.5)
    assert found.pop("GPU 0 temperature, °C") == 33
    assert found == ({"GPU 0 clock, MHz": 1980, "GPU 0 memory clock, MHz": 3201} if clocks else {})
    assert device_memory() == 3 << 20


def test_nvml_without_a_driver_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(driver=False))
    assert device_memory() is None


def test_a_line_of_tegrastats_is_read() -> None:
    found = parse_tegrastats(TEGRASTATS)
    assert found["VDD_IN, W"] == 4.94
    assert found["VDD_SOC, W"] == 1.512
    assert found["tj, °C"] == 46.1
    assert found["GPU clock, MHz"] == 305
    assert found["CPU clock, MHz"] == pytest.approx((729 + 729 + 1510) / 3)
    assert parse_tegrastats("") == {}


def test_tegrastats_is_the_fallback_for_unreadable_rails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "tegrastats"
    tool.write_text(f"#!/bin/sh\necho '{TEGRASTATS}'\nexec /bin/sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    read = threading.Event()

    def parse(line: str) -> dict[str, float]:
        read.set()
        return parse_tegrastats(line)

    monkeypatch.setattr(power, "parse_tegrastats", parse)
    sampler = Sampler(tmp_path / "empty", interval=0.001)
    assert read.wait(30)
    with sampler:
        pass
    assert sampler.summary()["VDD_IN, W"].mean == pytest.approx(4.94)
