"""Fixtures for all tests."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from framecast.cli import main

# Property tests use the same examples in every run, and no deadline, because machines differ in speed.
settings.register_profile("framecast", max_examples=50, deadline=None, derandomize=True, database=None)
settings.load_profile("framecast")


def pytest_configure(config: pytest.Config) -> None:
    """Create one folder for the artifacts of this run (exported.py); workers get its name from the environment."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="framecast-tests-")
        config.add_cleanup(folder.cleanup)
        os.environ["FRAMECAST_TEST_ARTIFACTS"] = folder.name


BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SYSTEM_PYTHON = Path("/usr/bin/python3")  # Debian's Python has GStreamer's bindings, the virtual environment does not


@dataclass(frozen=True)
class RtspServer:
    """A running RTSP server.

    Attributes:
        url: address of its stream, without a user name.
        process: the server, for tests that kill it or send SIGSTOP and SIGCONT.
    """

    url: str
    process: subprocess.Popen[str]


@pytest.fixture
def start_rtsp_server() -> Iterator[Callable[..., RtspServer]]:
    """A function that starts a server with the arguments of tests/rtsp_server.py; the fixture kills it afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> RtspServer:
        if not SYSTEM_PYTHON.exists():
            pytest.skip(f"no {SYSTEM_PYTHON} to run the RTSP server")
        script = Path(__file__).with_name("rtsp_server.py")
        process = subprocess.Popen([SYSTEM_PYTHON, script, *arguments], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        line = process.stdout.readline().strip()  # the server prints its port when it is ready
        if not line.isdecimal():
            assert process.wait(120) == 77, line
            pytest.skip(f"no RTSP server: {line} (make system-deps)")
        return RtspServer(f"rtsp://127.0.0.1:{line}/cam", process)

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.fixture
def rtsp_server(start_rtsp_server: Callable[..., RtspServer]) -> RtspServer:
    """A camera at ``rtsp_server.url``: 320x240, 25 frames a second; ``rtsp_server.process`` can be killed."""
    return start_rtsp_server()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["framecast", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()  # includes the output of native libraries
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a script of benchmarks/ by its name. All are forgotten afterwards: their names are common words."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name, module in [*sys.modules.items()]:
        if Path(getattr(module, "__file__", None) or "").parent == BENCHMARKS:
            del sys.modules[name]


@pytest.fixture
def exports_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line export the same weights only once in a test run."""
    from .exported import once, render_once  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

    monkeypatch.setattr("framecast.export.exporter.to_onnx", once)
    monkeypatch.setattr("framecast.export.exporter.to_render", render_once)


@pytest.fixture(autouse=True)
def fresh_weights() -> None:
    """Seed torch differently in every run; a failing test prints the seed, to repeat it with ``torch.manual_seed``."""
    if torch := sys.modules.get("torch"):  # tests that do not need torch run without it
        print(f"torch's seed: {torch.seed()}")  # noqa: T201
