"""The step benchmark under a simulated clock: nothing here depends on how fast the machine is."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, cycle, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from framecast.bench import steps
from framecast.bench.cold_start import cold_start, peak_memory
from framecast.bench.machine import busy, describe, lines, load
from framecast.bench.results import Result, number, ratios, summaries, tables, to_csv, warnings
from framecast.bench.steps import LEAST, TURN, Case, Series, called, live_step, measure, on_device
from framecast.bench.summary import Summary, summarize
from framecast.camera import Image
from framecast.errors import EngineError, OptionError
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import State
from framecast.runtime.shipped import find
from framecast.tables import Table, to_markdown
from framecast.testing import ManualClock, TrendEngine

from ..evaluation.conftest import moving  # noqa: TID252


class WorkClock(ManualClock):
    """Time passes only while something works, at the machine's current speed."""

    def __init__(self, slower: Callable[[float], float] = lambda now: 1.0) -> None:
        super().__init__()
        self.slower = slower

    def work(self, milliseconds: float) -> None:
        super().work(milliseconds * self.slower(self.time))


class Known(TrendEngine):
    """An engine with known latencies: 1 ms to take a picture, the next of ``latencies`` to step, 2 ms to render."""

    device = "cpu"

    def __init__(self, clock: WorkClock, latencies: Iterator[float], order: str = "BGR", poison: int = 0) -> None:
        super().__init__(0.5, order, 1, 1, poison)
        self.clock, self.latencies = clock, latencies

    def take(self, images: Sequence[Image], state: State) -> None:
        self.clock.work(1)
        super().take(images, state)

    def step(self, frame: np.ndarray, state_in: State, state_out: State) -> np.ndarray:
        self.clock.work(next(self.latencies))
        return super().step(frame, state_in, state_out)

    def render(self, state: State, ahead: Sequence[int]) -> list[list[Image] | None]:
        self.clock.work(2)
        return super().render(state, ahead)


def test_a_known_distribution_with_stalls_is_reported_within_two_percent() -> None:
    rng = np.random.default_rng(7)

    def drawn(rng: np.random.Generator, n: int) -> np.ndarray:
        """Milliseconds: lognormal with median 8; one in 50 stalls for another 180 to 220."""
        return rng.lognormal(np.log(8), 0.2, n) + (rng.random(n) < 0.02) * rng.uniform(180, 220, n)

    clock = WorkClock()
    before = repeat(5000.0, LEAST)  # slow first steps, which must not be reported
    engine = Known(clock, chain(before, drawn(rng, 100_000)))
    (series,) = measure([live_step("known", engine, moving(4), clock)], iterations=20_000, clock=clock)
    found, parts = summaries(series, (50, 90, 95, 99))
    true = 3 + drawn(np.random.default_rng(1), 2_000_000)  # 1 ms for the picture in, 2 ms for the picture out
    expected = summarize(true.tolist(), (50, 90, 95, 99))
    assert found.n >= 20_000
    assert found.mean == pytest.approx(expected.mean, rel=0.02)
    assert found.median == pytest.approx(expected.median, rel=0.02)
    assert found.cv == pytest.approx(expected.cv, rel=0.02)
    assert found.percentiles == pytest.approx(expected.percentiles, rel=0.02)
    assert found.percentiles[99] > 10 * found.median  # the stalls already show in p99
    assert found.max == max(series.milliseconds) > 3 + 180
    assert (parts["picture in"].max, parts["picture out"].max) == pytest.approx((1, 2), rel=1e-6)
    assert parts["step"].mean + 3 == pytest.approx(found.mean, rel=1e-6)


def test_every_sample_is_kept_with_its_time() -> None:
    clock = WorkClock()
    (series,) = measure([live_step("x", Known(clock, cycle([4.0, 7.0])), moving(2), clock)], clock=clock)
    ends = np.array(series.starts) + 1e-3 * np.array(series.milliseconds)
    assert series.starts[0] == 0
    assert series.starts[1:] == pytest.approx(ends[:-1].tolist())
    assert sum(series.milliseconds) >= 3000  # the default duration
    assert set(np.round(series.milliseconds, 6)) == {7.0, 10.0}


def turns(log: list[str]) -> list[tuple[str, int]]:
    """Each run of equal names in the log, with its length."""
    out: list[tuple[str, int]] = []
    for name in log:
        out.append((name, 1 + (out.pop()[1] if out and out[-1][0] == name else 0)))
    return out


def test_cases_take_turns_forwards_and_backwards() -> None:
    clock, log = WorkClock(), list[str]()

    def case(name: str, milliseconds: float) -> Case:
        def call() -> None:
            log.append(name)
            clock.work(milliseconds)

        return called(name, call)

    shares: list[float] = []
    found = measure(
        [case("a", 10.4), case("b", 26), case("slow", 400)],
        warmup=0.1, duration=2, iterations=1, clock=clock, advance=shares.append,
    )  # fmt: skip
    warm = [("a", 10), ("b", LEAST), ("slow", LEAST)]
    a, b, slow = ("a", 26), ("b", 11), ("slow", LEAST + 1)  # a turn's first iteration is not a sample
    there, back = [a, b, slow], [slow, b, a]
    joined = [
        name for name, count in chain(warm, *(there if i % 2 == 0 else back for i in range(8))) for _ in range(count)
    ]
    assert turns(log) == turns(joined)
    assert [len(series.by_round()) for series in found] == [8, 8, 8]
    assert [len(series.by_round()[0]) for series in found] == [25, 10, LEAST]
    assert sum(found[0].by_round()[0]) >= 1e3 * TURN
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_known_ratio_is_found_although_the_machine_slows_down_midway() -> None:
    clock = WorkClock(lambda now: 1 if now < 4 else 3)  # slower from then on, in the middle of a case's turn
    rng = np.random.default_rng(3)

    def case(name: str, median: float) -> Case:
        return called(name, lambda: clock.work(median * rng.lognormal(0, 0.05)))

    series = measure([case("one", 10), case("other", 16)], duration=4, clock=clock)
    none, found = ratios(series)
    assert none is None
    assert found is not None
    assert found.median == pytest.approx(1.6, rel=0.02)
    assert found.low < 1.6 < found.high
    assert found.high / found.low < 1.04
    assert summarize(series[0].milliseconds).cv > 0.3  # the slowdown shows here


def test_a_non_finite_prediction_resets_the_state() -> None:
    clock = WorkClock()
    engine = Known(clock, repeat(5.0), poison=8)
    measure([live_step("x", engine, moving(3), clock)], warmup=0, duration=0, clock=clock)
    assert engine.steps > 8


def test_looking_further_ahead_costs_a_network_more_steps() -> None:
    clock = WorkClock()
    (series,) = measure([live_step("x", Known(clock, repeat(5.0)), moving(2), clock, ahead=0.12)], clock=clock)
    assert set(np.round(series.milliseconds, 6)) == {1 + 5 + 2 * 5 + 3 * 2.0}  # two more steps, three pictures
    assert set(np.round(series.parts["step"], 6)) == {5.0}


def test_a_model_without_a_picture_format_is_stepped_on_floats() -> None:
    clock = WorkClock()
    seen: list[np.ndarray] = []

    class Seeing(Known):
        def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
            seen.append(frame.copy())
            return super().step(frame, state_in, state_out)

    engine = Seeing(clock, repeat(5.0), order="NONE")
    (series,) = measure([live_step("x", engine, moving(2), clock)], duration=0, clock=clock)
    assert series.milliseconds == pytest.approx([5.0] * len(series.milliseconds))
    assert series.parts == {}
    assert seen[0].shape == (1, 2, 20, 28)
    assert 0 <= seen[0].min() < seen[0].max() <= 1
    assert not np.array_equal(seen[0], seen[1])


def test_a_device_reports_enqueue_and_wait_times() -> None:
    clock = WorkClock()

    class Device(Known):
        """Steps asynchronously: 1 ms to enqueue, 6 ms until it is done."""

        device, done = "a GPU", 0.0

        def take(self, images: Sequence[Image], state: State) -> None:
            clock.work(1)

        def run(self, state_in: State, state_out: State) -> None:
            self.done = max(self.done, clock.time) + 6e-3

        def render(self, state: State, ahead: Sequence[int]) -> list[list[Image] | None]:
            clock.time = max(clock.time, self.done)
            return [[np.zeros((20, 28, 3), np.uint8)] * len(ahead)]

    engine = Device(clock, repeat(0.0))
    (series,) = measure([live_step("x", engine, moving(2), clock)], duration=0, clock=clock)
    assert {name: round(values[0], 6) for name, values in series.parts.items()} == {"enqueue": 1, "wait, download": 6}
    assert on_device(engine, moving(2), clock) == pytest.approx({"step, back to back": 6.05})
    assert on_device(Known(clock, repeat(1.0)), moving(2), clock) == {}


def test_transfers_are_timed_separately_for_device_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setattr(steps, "BACK_TO_BACK", 2)
    from framecast.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

    with OnnxRuntimeCudaEngine(find("stip-edge"), device="cpu", threads=1) as engine:
        found = on_device(engine, moving(2))
    assert list(found) == ["step, back to back", "transfers alone"]
    assert 0 < found["transfers alone"] < found["step, back to back"]


@pytest.mark.parametrize(
    ("cases", "options", "message"),
    [
        ([], {}, "nothing to measure"),
        (["a", "a"], {}, "two cases with the same name"),
        (["a"], {"warmup": -1.0}, "0 or more"),
        (["a"], {"iterations": 0}, "iterations at least 1"),
    ],
)
def test_bad_settings_are_refused(cases: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        measure([called(name, lambda: None) for name in cases], **options)


def test_no_frames_is_an_error() -> None:
    with pytest.raises(OptionError, match="no frame to measure with"):
        live_step("x", Known(WorkClock(), repeat(1.0)), [])


def result(name: str, milliseconds: list[float], **more: Any) -> Result:
    series = Series(name, [0.0] * len(milliseconds), milliseconds, [0] * len(milliseconds), {"step": milliseconds})
    summary, parts = summaries(series, (50, 99))
    return Result(name, "auto", "cpu", True, series, summary, parts, **more)


def test_doubtful_results_are_warned_about() -> None:
    steady, wild = result("steady", [10.0] * 1000), result("wild", [10.0, 12.0] * 500)
    assert warnings([steady]) == []
    (unsteady,) = warnings([steady, wild])
    assert "above 2.5 %: wild 9.1 %" in unsteady
    (few,) = warnings([steady, result("short", [10.0] * 60)])
    assert few == "too few samples for 99 %: 60 of 1000 needed (--iterations 1000)"


def test_tables_and_samples_as_text() -> None:
    found = [result("a|b", [0.5, 1.5]), result("c", [100.0, 300.0])]
    first = tables(found, {})[0]
    assert list(first.columns) == ["", "n", "min", "mean", "median", "p99", "max", "CV %"]
    assert list(first.rows[1])[:5] == ["c", "2", "100", "200", "200"]
    assert "| a\\|b | 2 | 0.500 |" in to_markdown(first)
    assert to_markdown(Table("T", ("x", "y"), [("1", "2")])) == "T:\n\n| x | y |\n| --- | ---: |\n| 1 | 2 |\n"
    rows = list(csv.reader(io.StringIO(to_csv([one.series for one in found]))))
    assert rows[0] == ["case", "round", "start_s", "ms", "step, ms"]
    assert len(rows) == 5
    assert [number(v) for v in (0.1234, 1.234, 12.34, 123.4)] == ["0.123", "1.23", "12.3", "123"]
    assert isinstance(found[0].summary, Summary)


def test_the_machine_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "proc/cpuinfo": "processor : 0\nmodel name\t: Some CPU @ 3 GHz\n",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.86.10  Wed Jul 26",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "3000000\n",
        "proc/42/status": "VmPeak:  999 kB\nVmHWM:\t  2048 kB\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8 << 30))
    monkeypatch.setattr(psutil, "getloadavg", lambda: (1.25, 0.0, 0.0))
    machine = describe({"onnxruntime": "1.2"}, tmp_path)
    assert machine["load"] == load() == 1.25
    assert 1 <= machine["usable"] <= machine["cores"]
    assert (machine["processor"], machine["memory_bytes"]) == ("Some CPU @ 3 GHz", 8 << 30)
    assert (machine["governor"], machine["max_mhz"], machine["driver"]) == ("powersave", 3000, "535.86.10")
    assert machine["versions"]["onnxruntime"] == "1.2"
    described = dict(lines(machine))
    assert "8 GiB" in described["machine"]
    assert described["clock"] == "governor powersave, at most 3000 MHz"
    assert peak_memory(42, tmp_path) == 2 << 20
    assert peak_memory(43, tmp_path) is None
    machine["load"] = 0.2 * machine["usable"]
    assert busy(machine) is None
    machine["load"] = 0.5 * machine["usable"]  # as if another process kept every second core busy
    assert "the machine is busy" in (busy(machine) or "")


def test_unknown_facts_about_the_machine_are_left_out(tmp_path: Path) -> None:
    machine = describe({}, tmp_path)
    machine["commit"] = None
    assert [machine["governor"], machine["max_mhz"], machine["driver"]] == [None] * 3
    assert {"clock", "commit"} & dict(lines(machine)).keys() == set()


def test_a_cold_start_runs_in_a_fresh_process() -> None:
    found = cold_start(find("stip-edge"), "auto", 1, (64, 48), times=1)
    assert 0 < found.load + found.first < found.seconds
    assert found.times == 1
    if sys.platform == "linux":
        assert found.peak_bytes is not None
        assert 20e6 < found.peak_bytes < 2e9


def test_a_cold_start_that_fails_says_why(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    path.write_text("no")
    with pytest.raises(EngineError, match=r"cannot predict in a fresh process.*not an ONNX file"):
        cold_start(path, "auto", 1, (64, 48), times=1)
    with pytest.raises(EngineError, match="exit code -9"):
        cold_start(find("stip-edge"), "auto", 1, (64, 48), times=1, timeout=0.001)


def test_a_cold_start_loads_no_torch() -> None:
    code = "import sys, framecast.bench.cold_start, framecast.bench.steps\n"
    code += "assert not {'torch', 'matplotlib', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
