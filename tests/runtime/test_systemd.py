"""What systemd is told of a run, on a real datagram socket. Clocks are virtual."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import framecast
from framecast.camera import Source
from framecast.camera.reconnect import Reconnecting
from framecast.clock import Clock
from framecast.errors import SourceUnavailableError
from framecast.runtime.sinks.systemd import Systemd, longest_start
from framecast.testing import ManualClock, VirtualClock

# Beside this file, and above it; pytest's importlib mode puts no test folder on the path.
from ..conftest import Run  # noqa: TID252
from ..faults.test_reconnect import LOST, Moving  # noqa: TID252
from .browser import event, snapshot  # noqa: TID252

AWAY = SourceUnavailableError("no stream from cam (connection refused)")
PING = "WATCHDOG=1"


def told(manager: Manager, clock: Clock, pid: int = 7) -> Systemd:
    """A run's end of the socket, which the manager closes."""
    manager.told.append(Systemd(manager.environ, pid=pid, clock=clock))
    return manager.told[-1]


class Manager:
    """systemd's end of the socket."""

    def __init__(self, address: str, limit: float | None = 60.0) -> None:
        self.told: list[Systemd] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.environ = {"NOTIFY_SOCKET": address, "HOME": "/"}
        if limit is not None:
            self.environ |= {"WATCHDOG_USEC": f"{1e6 * limit:.0f}", "WATCHDOG_PID": "7"}

    def heard(self) -> list[str]:
        """The lines of all messages since the last call."""
        lines: list[str] = []
        with suppress(BlockingIOError):
            while True:
                lines += self._socket.recv(4096).decode().splitlines()
        return lines

    def close(self) -> None:
        for systemd in self.told:
            systemd.close()
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


def figures(**changes: Any) -> Any:
    return {**snapshot(), "trouble": None, "attempts": 0, "silent_s": 0.0, "frames": 9, "events": {}, **changes}


def test_only_new_predictions_ping(manager: Manager) -> None:
    clock = ManualClock()
    systemd = told(manager, clock)
    assert manager.environ == {"HOME": "/"}  # our child processes do not inherit it
    assert systemd.limit == 60.0
    assert manager.heard() == ["STATUS=loading the model"]
    result = event(0)
    systemd.show(replace(result, between=True))
    systemd.show(replace(result, concealed=True))
    systemd.look(figures(frames=0))
    assert [line for line in manager.heard() if not line.startswith("STATUS")] == []
    systemd.show(result)
    assert manager.heard() == ["READY=1", PING]
    for _ in range(65):  # 30 frames a second
        clock.work(1000 / 30)
        systemd.show(result)
    assert manager.heard() == [PING, PING]
    for _ in range(1000):  # a loop that lives, but predicts nothing
        clock.work(250)
        systemd.look(figures(silent_s=4.0))
        systemd.show(replace(result, concealed=True))
    assert PING not in manager.heard()
    systemd.close()
    systemd.look(figures())
    assert manager.heard() == ["STOPPING=1", "STATUS=closing the outputs"]


def test_while_the_camera_is_out_each_attempt_pings(manager: Manager) -> None:
    clock = ManualClock()
    systemd = told(manager, clock)
    systemd.show(event(0))
    manager.heard()
    systemd.look(figures(trouble="lost cam:\nit ended"))
    clock.work(12_000)
    systemd.look(figures(trouble="lost cam:\nit ended", attempts=1))
    out = "STATUS=out for {} s: lost cam: it ended; trying again"
    assert manager.heard() == [out.format(0), PING, out.format(12)]
    for _ in range(1000):  # an attempt that never returns
        clock.work(250)
        systemd.look(figures(trouble="lost cam:\nit ended", attempts=1))
    assert PING not in manager.heard()
    systemd.look(figures(attempts=2, events={"reconnects": 1}, source="cam", model="edge", engine="opencv"))
    assert manager.heard() == ["STATUS=predicting cam with edge on opencv: 9 frames, 1 reconnections"]


def test_a_run_whose_camera_is_off_is_ready_and_never_ended(manager: Manager) -> None:
    """A minute without a camera: each attempt pings. Then it predicts."""
    clock = VirtualClock()
    begun, tried = clock.now(), []

    def open_camera() -> Source:
        tried.append(clock.now())
        if clock.now() - begun < 60:
            raise AWAY
        return Moving(8, clock)

    class Heard(Systemd):
        """Also notes when it was told what."""

        def _tell(self, message: str) -> bool:
            times.append((clock.now(), message))
            return super()._tell(message)

    times: list[tuple[float, str]] = []
    source = Reconnecting("cam", open_camera, str(AWAY), clock=clock, seed=1)
    systemd = Heard(manager.environ, pid=7, first=longest_start(15, 30), clock=clock)
    framecast.run(source, engine="opencv", frames=8, observe=systemd.look, sinks=[systemd], clock=clock)
    messages = [message for _, message in times]
    assert messages.index("READY=1\nWATCHDOG_USEC=315000000") <= 3
    assert messages[-1] == "STOPPING=1\nSTATUS=closing the outputs"
    assert "WATCHDOG_USEC=60000000" in messages  # once the first step is done
    pings = [moment for moment, message in times if message == PING]
    assert len(tried) > 60
    assert max(after - before for before, after in pairwise(pings)) < 3


def test_a_camera_that_is_lost_is_told(manager: Manager) -> None:
    clock: Clock = VirtualClock()
    rest: Iterator[Source | Exception] = iter([Moving(8, clock, end=LOST), AWAY, AWAY, AWAY, Moving(20, clock)])

    def open_camera() -> Source:
        answer = next(rest)
        if isinstance(answer, Exception):
            raise answer
        return answer

    systemd = told(manager, clock)
    source = Reconnecting("cam", open_camera, open_camera(), clock=clock)
    report = framecast.run(source, engine="opencv", frames=24, observe=systemd.look, sinks=[systemd], clock=clock)
    assert report["attempts"] == 4
    heard = manager.heard()
    assert f"STATUS=out for 0 s: {AWAY}; trying again" in heard
    assert "STATUS=waiting for the first frame of cam" in heard


def test_what_could_not_be_sent_is_sent_again(manager: Manager, tmp_path: Path) -> None:
    clock = ManualClock()
    (tmp_path / "notify").rename(tmp_path / "away")
    systemd = told(manager, clock)
    systemd.show(event(0))
    (tmp_path / "away").rename(tmp_path / "notify")
    systemd.show(event(1))
    assert manager.heard() == ["READY=1", PING]
    for _ in range(30):  # systemd does not read: nothing waits for it
        clock.work(1000)
        systemd.show(event(1))


def test_abstract_sockets_and_watchdogs_of_other_processes(manager: Manager) -> None:
    other = Manager(f"@framecast-test-{os.getpid()}")
    systemd = told(other, ManualClock(), pid=8)
    assert systemd.limit is None
    systemd.show(event(0))
    assert other.heard() == ["STATUS=loading the model", "READY=1"]
    other.close()
    systemd.show(event(1))
    silent = Systemd({"WATCHDOG_USEC": "1"}, pid=8, clock=ManualClock())
    silent.show(event(0))
    silent.look(figures())
    silent.close()


def test_a_watchdog_shorter_than_a_wait_is_a_warning(manager: Manager) -> None:
    systemd = told(manager, ManualClock())
    assert systemd.caution(stall=2.5, step_limit=30.0) is None
    assert systemd.caution(stall=300.0, step_limit=30.0) == (
        "systemd's watchdog ends the run after 60 s, but --stall lets it wait for 300 s: raise WatchdogSec"
    )
    assert Systemd({}, pid=7).caution(stall=300.0) is None


def test_the_command_tells_systemd(run: Run, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.environ["NOTIFY_SOCKET"])
    monkeypatch.setenv("WATCHDOG_USEC", "20000000")
    code, _, err = run("run", "synthetic://?size=64x48&fps=30&frames=9&seed=1", "--engine", "opencv")
    assert code == 0
    assert "watchdog ends the run after 20 s, but --timeout lets it wait for 45 s: raise WatchdogSec" in err
    heard = manager.heard()
    assert heard[:3] == [
        "STATUS=loading the model",
        "STATUS=waiting for the first frame of synthetic://?size=64x48&fps=30&frames=9&seed=1",
        "EXTEND_TIMEOUT_USEC=315000000",
    ]
    assert [line for line in heard[3:] if not line.startswith("STATUS")] == ["READY=1", PING, "STOPPING=1"]
    assert "NOTIFY_SOCKET" not in os.environ


def test_only_a_service_waits_before_it_ends(manager: Manager) -> None:
    clock = ManualClock()
    begun = clock.now()
    Systemd({}, pid=7, clock=clock).hold("401", 30.0)
    assert clock.now() == begun
    systemd = told(manager, clock)
    manager.heard()
    systemd.hold("no stream from cam:\n401", 30.0)
    assert clock.now() == begun + 30.0
    assert manager.heard() == ["STATUS=ends in 30 s: no stream from cam: 401"]


@pytest.mark.parametrize(
    ("code", "cameras", "words"),
    [
        (401, 1, "ends in 0 s: no stream from"),
        (401, 2, "ends in 0 s: 2 of 2 cameras failed: camera1, camera2"),
        (404, 1, ""),
        (404, 2, ""),
    ],
)
def test_a_refused_password_is_not_tried_again_at_once(
    code: int, cameras: int, words: str, run: Run, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd starts a service again 3 s after its end; cameras lock an account after a few attempts."""

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(code)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr("framecast.backoff.REFUSED", 0.2)
    monkeypatch.setenv("NOTIFY_SOCKET", manager.environ["NOTIFY_SOCKET"])
    with HTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        exit_code, _, err = run("run", *[f"http://127.0.0.1:{server.server_port}/cam"] * cameras)
        server.shutdown()
    assert (exit_code, str(code) in err) == (1, True)
    heard = manager.heard()
    before = heard[heard.index("STOPPING=1") - 1]
    assert before.startswith(f"STATUS={words}") if words else "ends in" not in before, heard
