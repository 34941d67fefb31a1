"""``benchmarks/gpu_check.py``, the script for a machine with a GPU: dry runs, time limits, and failures."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from framecast.kernels.eifag.reference import eifag
from framecast.runtime.engines.tensorrt import cuda

from .runtime.fake_gpu import Driver, Memory, installed  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPT = BENCHMARKS / "gpu_check.py"
ORDER = ["machine", "kernels", "stip-ucf", "stip-4k", "window", "bandwidth", "edge", "driver", "races", "steady"]
ORDER += ["replay", "others"]
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: the script would check it")


def run(script: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@needs_no_gpu
def test_without_a_gpu_nothing_is_claimed(tmp_path: Path) -> None:
    done = run(SCRIPT, "--out", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "torch finds no CUDA device: nothing was checked (--dry-run runs the code on the CPU)"
    ]
    assert not list(tmp_path.iterdir())


@needs_no_gpu
def test_a_dry_run_goes_through_all_sections_and_claims_no_figure(tmp_path: Path) -> None:
    done = run(SCRIPT, "--dry-run", "--out", tmp_path, "--minutes", 60, OMP_NUM_THREADS="1")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    found = json.loads((tmp_path / "gpu-dry-run.json").read_text())
    assert list(found) == ORDER
    text = (tmp_path / "gpu-dry-run.txt").read_text()
    assert text.strip() == done.stdout.strip()
    for name, section in found.items():
        assert section["rows"], name
        assert (section["not_run"], section["cut"]) == ([], False), name
    ran = {name: [row for row in section["rows"] if "not run" not in row["text"]] for name, section in found.items()}
    assert {name for name, rows in ran.items() if not rows} == {"driver"}  # it needs pycuda and a driver
    latencies = {"replay", "in_a_row", "p50", "enqueue", "microseconds", "ratio", "waits", "nodes"}
    assert not any(latencies & row.keys() for section in found.values() for row in section["rows"])
    assert text.count("; not run\n") == 8  # every figure that the README needs


@needs_no_gpu
@pytest.mark.slow
def test_a_section_can_run_in_a_new_interpreter(tmp_path: Path) -> None:
    done = run(SCRIPT, "--dry-run", "--fresh", "--only", "window", "--out", tmp_path, OMP_NUM_THREADS="1")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    [row] = json.loads((tmp_path / "gpu.json").read_text())["window"]["rows"]
    assert row["text"] == "ran (no figures on a CPU)"


PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from _gpu_report import Report, Unusable
from _gpu_run import Found, NotHere, Row, Section

def good(): return Found("1.0", figures={"value": 1.0})
def wrong(): return Found("9.9", wrong=True)
def hangs():
    print("in a long call", os.getpid(), flush=True)
    time.sleep(600)
def slow():
    time.sleep(1.2)
    return good()
def raises(): raise RuntimeError("broken")
def dies(): os.kill(os.getpid(), signal.SIGSEGV)
def talks():
    print("all is well", flush=True)
    return good()
def spawns():
    print(os.getpid(), os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600"), flush=True)
    time.sleep(600)
def foreign():
    for fd in range(3, 30):
        try: os.write(fd, b'hello\\n{"a": 1}\\n7\\nwithout an end')
        except OSError: pass
    return good()
def nan(): return Found("nan", figures={"value": float("nan")})
def absent(): raise NotHere("no such library")
def child():
    os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600")
    return good()
def no_rows(): raise ValueError("cannot begin")
def section(name, *runs, seconds=1.0):
    return Section(name, seconds, "", lambda: [Row(f"{run.__name__} {i}", run) for i, run in enumerate(runs)])

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sections = eval(sys.argv[2])
try: report = Report(Path(sys.argv[1]), float(sys.argv[3]))
except Unusable as error: sys.exit(str(error))
report.run(sections, lambda: "ruined" in sys.argv)
report.compare([("value", "a", "good 0", "value", 2.0, False), ("nan", "a", "nan 0", "value", 2.0, False)])
sys.exit(report.code)
"""


class Sections:
    """Runs a test's own sections with the script's report and processes, which need no torch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "program.py").write_text(PROGRAM)

    def run(self, sections: str, seconds: float, *words: str) -> tuple[int, dict[str, Any], str]:
        done = run(self._folder / "program.py", self._folder, sections, seconds, *words, PYTHONPATH=str(BENCHMARKS))
        assert not done.stderr
        return done.returncode, json.loads((self._folder / "gpu.json").read_text()), done.stdout


@pytest.fixture
def sections(tmp_path: Path) -> Sections:
    return Sections(tmp_path)


def texts(section: dict[str, Any]) -> list[str]:
    return [f"{row['row']}: {row['text']}" for row in section["rows"]]


def test_a_section_that_takes_too_long_is_cut_off_and_the_next_one_runs(sections: Sections) -> None:
    code, found, text = sections.run("[section('a', good, hangs, good), section('b', good, seconds=9)]", 10)
    assert code == 0
    assert texts(found["a"]) == ["good 0: 1.0", "hangs 1: cut off after 1 s"]
    assert (found["a"]["cut"], found["a"]["not_run"]) == (True, ["good 2"])
    assert "not run, out of time: good 2" in text
    assert (texts(found["b"]), found["b"]["cut"]) == (["good 0: 1.0"], False)
    assert "value: at least 2; 1   missed" in text


@contextmanager
def started(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start PROGRAM as a terminal does, with a section that starts a process. Yields PROGRAM and both PIDs."""
    command = [sys.executable, str(folder / "program.py"), str(folder), "[section('a', spawns)]", "600"]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    log = folder / "gpu.log"
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not (log.is_file() and log.read_text().endswith("\n")):
            assert process.poll() is None
            time.sleep(0.02)
        numbers = [int(word) for word in log.read_text().split()]
        try:
            yield process, numbers
        finally:
            process.kill()
            for number in numbers:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # a zombie is dead
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_script(sections: Sections, tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as (process, left):
        os.killpg(process.pid, number)  # as Ctrl-C does
        process.wait()
        while any(map(alive, left)):  # the suite's timeout limits this loop
            time.sleep(0.02)
    assert process.returncode == (-number if number != signal.SIGTERM else 128 + number)


def test_two_runs_do_not_share_a_folder(sections: Sections, tmp_path: Path) -> None:
    with started(tmp_path):
        done = run(tmp_path / "program.py", tmp_path, "[section('a', good)]", 600, PYTHONPATH=str(BENCHMARKS))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"another run is writing to {tmp_path} (gpu.log is locked): wait, or name another --out\n")
    assert sections.run("[section('a', good)]", 600)[0] == 0


def test_a_section_checks_its_time_between_rows(sections: Sections) -> None:
    code, found, _ = sections.run("[section('a', slow, good, good, seconds=1)]", 1)
    assert (code, texts(found["a"]), found["a"]["not_run"]) == (0, ["slow 0: 1.0"], ["good 1", "good 2"])
    assert not found["a"]["cut"]


def test_a_row_that_raises_or_dies_is_reported_and_the_rest_still_runs(sections: Sections) -> None:
    code, found, text = sections.run(
        "[section('a', raises, good, dies, good), Section('c', 1, '', no_rows), section('d', absent, good)]", 600
    )
    assert code == 1
    assert texts(found["a"]) == [
        "raises 0: failed: RuntimeError: broken",
        "good 1: 1.0",
        "dies 2: died: SIGSEGV (RuntimeError: broken)",  # the last line of the log
        "good 3: 1.0",
    ]
    assert texts(found["c"]) == ["c: failed: ValueError: cannot begin"]
    assert texts(found["d"]) == ["absent 0: not run: no such library", "good 1: 1.0"]
    assert text.count("WRONG") == 3
    assert "3 wrong" in text


def test_a_crash_is_not_explained_by_the_output_of_an_earlier_section(sections: Sections) -> None:
    _, found, _ = sections.run("[section('a', talks), section('b', dies)]", 600)
    assert texts(found["b"]) == ["dies 0: died: SIGSEGV"]


def test_foreign_lines_in_the_pipe_are_ignored_and_reported(sections: Sections) -> None:
    code, found, text = sections.run("[section('a', foreign, good), section('b', good)]", 600)
    assert (code, texts(found["a"]), texts(found["b"])) == (0, ["foreign 0: 1.0", "good 1: 1.0"], ["good 0: 1.0"])
    assert "4 lines in the pipe came from other programs; the first: hello" in text


def test_nan_misses_a_target(sections: Sections) -> None:
    assert "nan: at least 2; nan   missed" in sections.run("[section('a', nan)]", 600)[2]


def test_bad_arguments_and_a_driver_that_hangs_are_one_line(
    checks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = importlib.import_module("gpu_check")

    def hangs(*_: object) -> bool:
        raise TimeoutError("no answer in 60 s")

    monkeypatch.setattr(check, "in_child", hangs)
    blocked = tmp_path / "file"
    blocked.touch()
    for words, message in (
        (["--only", "kernals", "--dry-run"], f"no section kernals: choose from {', '.join(ORDER)}"),
        (["stip-ufc"], f"no network stip-ufc: choose from {', '.join(check.ENTRIES)}"),
        (["--dry-run", "--out", str(blocked)], f"cannot write {blocked}: File exists"),
        ([], "cannot ask the driver for a GPU: no answer in 60 s"),
    ):
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", *words])
        with pytest.raises(SystemExit) as stopped:
            check.main()
        assert stopped.value.code == f"error: {message}"


def test_every_wait_for_a_process_has_a_limit() -> None:
    code = """
import subprocess, time
from _gpu_process import in_child, reaped
assert in_child(lambda: True) and not in_child(lambda: False)
try: in_child(lambda: bool(time.sleep(600)), 0.1)
except TimeoutError as error: print(error)
with subprocess.Popen(["sleep", "600"]) as process:
    print(reaped(process.pid, 0.1))
    process.kill()
    print(reaped(process.pid, 60))
"""
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout.splitlines(), done.stderr) == (["no answer in 0 s", "None", "-9"], "")


def test_a_wrong_result_alone_gives_exit_code_1(sections: Sections) -> None:
    assert sections.run("[section('a', good, wrong)]", 600)[0] == 1
    assert sections.run("[section('a', good, absent)]", 600)[0] == 0


def test_a_broken_cuda_context_costs_one_row(sections: Sections) -> None:
    code, found, _ = sections.run("[section('a', good, raises, good)]", 600, "ruined")
    assert (code, [row["row"] for row in found["a"]["rows"]]) == (1, ["good 0", "raises 1", "good 2"])


def test_the_last_section_gets_what_is_left(sections: Sections) -> None:
    code, found, text = sections.run("[section('a', hangs), section('b', good, seconds=0)]", 0.5)
    assert (code, text.splitlines()[-1].partition("s")[2]) == (1, "; nothing was measured")
    assert found["b"] == {"seconds": 0.0, "cut": False, "rows": [], "not_run": ["all"]}
    assert "not run: out of time" in text
    _, found, _ = sections.run("[section('a', child), section('b', good, seconds=0)]", 600)
    assert (found["a"]["cut"], texts(found["b"])) == (False, ["good 0: 1.0"])


@pytest.fixture
def checks(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("_gpu_driver")


class Context:
    """A fake TensorRT context that computes the EIFAG reference on the simulated GPU."""

    def __init__(self, driver: Driver, checks: ModuleType) -> None:
        self._driver, self._checks = driver, checks
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        at = dict(self._addresses)
        stream = next(stream for stream in self._driver.gpu.streams if stream.handle == handle)
        stream.put(lambda: self._run(at))
        return True

    def _run(self, at: dict[str, int]) -> None:
        def view(name: str) -> np.ndarray:
            shape = (1, 1, 1, 1) if name == "count" else self._checks.SHAPE
            return self._driver.gpu.array(at[name], shape, np.float32)

        cells = [torch.from_numpy(view(f"cells[{age}]")) for age in range(self._checks.SLOTS)]
        count, *gates = (torch.from_numpy(view(name)) for name in ("count", "input", "forget", "candidate"))
        np.copyto(view("new"), eifag(cells, count, *gates, self._checks.BIAS).numpy())  # type: ignore[call-arg, arg-type]


@pytest.mark.slow
def test_the_checks_of_the_driver_pass_on_a_simulated_gpu(checks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = installed(monkeypatch)
    monkeypatch.setattr(checks, "BIG", 1 << 10)
    monkeypatch.setattr(checks, "KEPT", 0)
    memory = driver.gpu.memory
    gpu = checks.Gpu(
        cuda.process_cuda(), lambda: Context(driver, checks), lambda: -sum(len(held) for held in memory.values())
    )
    found = {row.name: row.run() for row in checks.rows(lambda: gpu)}
    assert not [name for name, result in found.items() if result.wrong]
    assert found["a captured step equals the reference"].figures["graphs"] == checks.SLOTS + 1
    assert found["a step that refuses to be captured"].figures["graphs"] == checks.SLOTS

    # The rows fail if there are no graphs, if memory is never freed, or if kernels write nothing.
    driver.gpu.captures = False
    assert checks.captured(gpu).wrong
    driver.gpu.captures = True
    monkeypatch.setattr(Memory, "freed", lambda self: None)
    assert checks.freed(gpu, elsewhere=True).wrong
    assert checks.returned(gpu).wrong
    monkeypatch.setattr(Context, "_run", lambda self, at: None)
    assert checks.two_threads(gpu).wrong
