"""How ``gpu_check.py`` judges results that cannot be produced here: NaN, races, waits."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")


@pytest.mark.parametrize("bad", [None, np.nan])
def test_a_rollout_with_nan_in_its_last_step_alone_is_wrong(
    benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, bad: float | None
) -> None:
    steps = benchmark("_gpu_steps")
    good = [np.full((1, 1, 2, 2), 0.5) for _ in range(steps.STEPS)]
    last = good[-1].copy()
    last[0, 0, 1, 1] = bad or 0.5
    monkeypatch.setattr(steps, "reference", lambda *_: good)
    monkeypatch.setattr(steps, "rollout", lambda _: [*good[:-1], last])
    engine = nullcontext(SimpleNamespace(precision="fp32"))
    assert steps.measured("mau-mnist", lambda: engine, "cpu", timed=False).wrong == bool(bad)


def test_nan_from_the_driver_is_wrong_at_any_step(
    benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = benchmark("_gpu_driver")

    class Stream:
        """A stream whose ``error`` is NaN at its ``bad``-th call."""

        bad, asked, graphs = 0, 0, driver.SLOTS + 1
        _context = type("Context", (), {"execute_async_v3": None})()

        def __init__(self, gpu: object, seed: int) -> None:
            del gpu, seed

        def step(self) -> None:
            pass

        def error(self) -> float:
            Stream.asked += 1
            return float("nan") if Stream.asked == Stream.bad else 0.0

    monkeypatch.setattr(driver, "Stream", Stream)
    for check, times in ((driver.captured, 30), (driver.refused, 31), (driver.two_threads, 60)):
        for bad in (0, 1, times // 2, times):
            Stream.asked, Stream.bad = 0, bad
            assert check(None).wrong == bool(bad), (check.__name__, bad)
            assert Stream.asked == times


@pytest.mark.parametrize(
    ("printed", "code", "wrong"),
    [("CSAN detected a possible data race", 1, False), ("", 0, True), ("RuntimeError: no memory", 1, True)],
)
def test_a_sanitizer_that_misses_the_known_race_is_wrong(
    benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, printed: str, code: int, wrong: bool
) -> None:
    stream = benchmark("_gpu_stream")
    asked = []

    def ran(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command[2])
        return subprocess.CompletedProcess(command, code, "", printed)

    monkeypatch.setattr(subprocess, "run", ran)
    control, *others = stream.races("cuda")
    assert control.run().wrong == wrong
    assert asked == [stream.CONTROL]
    assert sum("fp16" in row.name for row in others) == 2
    assert [row.run().wrong for row in others] == [bool(code)] * len(others)
    assert [row.name for row in stream.races("cpu")] == ["stip-edge eager, kernels, two rows, one reset"]


def test_every_kind_of_wait_inside_the_mark_is_counted(benchmark: Callable[[str], ModuleType]) -> None:
    stream = benchmark("_gpu_stream")

    def event(name: str, start: float, took: float = 50.0, kind: str = "DeviceType.CPU") -> SimpleNamespace:
        time_range = SimpleNamespace(start=start, end=start + took)
        return SimpleNamespace(name=name, time_range=time_range, cpu_time_total=took, device_type=kind)

    found = stream.calls(
        [
            event("cudaDeviceSynchronize", 0),  # by the profiler
            event(stream.MARK, 50, 900, "DeviceType.CUDA"),
            event(stream.MARK, 100, 500),
            event("cudaDeviceSynchronize", 200),  # by the engine
            event("cudaMemcpy", 300, 5),
            event("cudaMemcpyAsync", 310),
            event("cuMemcpyDtoH_v2", 320, 5),
            event("cudaEventSynchronize", 330, 5),
            event("cudaEventSynchronize", 340, 10),
            event("cudaStreamSynchronize", 350),
            event("aten::add", 360),
            event("cudaDeviceSynchronize", 700),  # by the profiler
        ]
    )
    assert len(found) == 7
    waits = [call for call in found if stream.may_wait(call.name)]
    assert [call.name for call in waits if stream.has_waited(call)] == [
        "cudaDeviceSynchronize",
        "cudaMemcpy",
        "cuMemcpyDtoH_v2",
        "cudaEventSynchronize",
        "cudaStreamSynchronize",
    ]
