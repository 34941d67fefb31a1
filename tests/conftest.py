"""Fixtures for all tests."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from framecast.cli import main

# Property tests: the same examples in every run, on a machine of any speed.
settings.register_profile("framecast", max_examples=50, deadline=None, derandomize=True, database=None)
settings.load_profile("framecast")


def pytest_configure(config: pytest.Config) -> None:
    """One folder for the artifacts of this run (exported.py); the workers inherit its name."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="framecast-tests-")
        config.add_cleanup(folder.cleanup)
        os.environ["FRAMECAST_TEST_ARTIFACTS"] = folder.name


SYSTEM_PYTHON = Path("/usr/bin/python3")  # GStreamer's bindings are Debian's, not the virtual environment's


@dataclass(frozen=True)
class RtspServer:
    """A running RTSP server.

    Attributes:
        url: of its stream, without a user.
        process: kill it, or send it SIGSTOP and SIGCONT.
    """

    url: str
    process: subprocess.Popen[str]


@pytest.fixture
def start_rtsp_server() -> Iterator[Callable[..., RtspServer]]:
    """Start servers with the arguments of tests/rtsp_server.py; they are killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> RtspServer:
        if not SYSTEM_PYTHON.exists():
            pytest.skip(f"no {SYSTEM_PYTHON} to run the RTSP server")
        script = Path(__file__).with_name("rtsp_server.py")
        process = subprocess.Popen([SYSTEM_PYTHON, script, *arguments], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        said = process.stdout.readline().strip()  # its port, once it listens
        if not said.isdecimal():
            assert process.wait(120) == 77, said
            pytest.skip(f"no RTSP server: {said} (make system-deps)")
        return RtspServer(f"rtsp://127.0.0.1:{said}/cam", process)

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

    # The command line sets the level of the process's log: the tests that come after it must not find that.
    monkeypatch.setattr(logging.getLogger(), "level", logging.getLogger().level)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["framecast", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()  # native libraries' words too
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def exports_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line exports the same weights once a run, in whichever tests."""
    from .exported import once, render_once  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

    monkeypatch.setattr("framecast.export.exporter.to_onnx", once)
    monkeypatch.setattr("framecast.export.exporter.to_render", render_once)


@pytest.fixture(autouse=True)
def fresh_weights() -> None:
    """Other random numbers in every run; a test that fails shows the seed, for ``torch.manual_seed``."""
    if torch := sys.modules.get("torch"):  # the tests that need none run without it
        print(f"torch's seed: {torch.seed()}")  # noqa: T201
