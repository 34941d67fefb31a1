"""A real RTSP server that is killed, frozen, reset, and started again at another size, seen by a whole run."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from framecast.camera import open_source
from framecast.camera.network import answers
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.sinks.sink import Result
from framecast.testing import DriftEngine

from ..conftest import RtspServer  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

Start = Callable[..., RtspServer]


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


class Watched:
    """A run in a thread of its own.

    Attributes:
        results: the newest ones.
        pipeline: the run.
    """

    def __init__(self, url: str, stall: float) -> None:
        source = open_source(url, stall=stall, reconnect=True)
        self.pipeline = Pipeline(source, Predictor(DriftEngine()), rival=False)
        self.results: deque[Result] = deque(maxlen=60)
        self._new = threading.Condition()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        for result in self.pipeline:
            with self._new:
                self.results.append(result)
                self._new.notify_all()

    def of(self, epoch: int) -> list[Result]:
        """The results of an epoch."""
        return [result for result in self.results if result.frame.epoch == epoch]

    def wait_for(self, done: Callable[[], bool], seconds: float = 30.0) -> None:
        with self._new:
            assert self._new.wait_for(done, seconds), self.pipeline.report()

    def end(self) -> None:
        self.pipeline.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextmanager
def watched(url: str, stall: float) -> Iterator[Watched]:
    run = Watched(url, stall)
    try:
        yield run
    finally:
        run.end()


def test_a_server_that_is_killed_and_comes_back_at_another_size(start_rtsp_server: Start) -> None:
    port = free_port()
    server = start_rtsp_server("320x240", "", port)
    with watched(server.url, stall=2.5) as run:
        run.wait_for(lambda: len(run.results) >= 5)
        server.process.kill()
        server.process.wait()
        start_rtsp_server("160x120", "", port)
        back = time.monotonic()
        run.wait_for(lambda: len(run.of(1)) >= 5)
        report = run.pipeline.report()
    assert {result.frame.image.shape for result in run.of(0)} == {(240, 320, 3)}
    assert {result.frame.image.shape for result in run.of(1)} == {(120, 160, 3)}
    indexes = [result.frame.index for result in run.results]
    assert indexes == sorted(set(indexes))
    assert all(result.frame.time > back - 1 for result in run.of(1))  # no frame of before
    assert run.of(1)[0].psnr is None
    assert report["events"]["reconnects"] == 1
    assert report["epochs"] == 2


def test_a_server_that_freezes_and_goes_on(start_rtsp_server: Start) -> None:
    server = start_rtsp_server("160x120")
    with watched(server.url, stall=0.5) as run:
        run.wait_for(lambda: len(run.results) >= 5)
        server.process.send_signal(signal.SIGSTOP)
        frozen = time.monotonic()
        deadline = frozen + 10
        while run.pipeline.source.trouble is None and time.monotonic() < deadline:
            time.sleep(0.02)
        noticed = time.monotonic() - frozen
        server.process.send_signal(signal.SIGCONT)
        run.wait_for(lambda: len(run.of(1)) >= 3)
    assert 0.4 < noticed < 5
    assert all(result.frame.time - frozen < 0.4 for result in run.of(0))  # none from the read that timed out


class Relay:
    """Passes one connection on to a server, until it resets it (RST)."""

    def __init__(self, to: str) -> None:
        host, port = to.removeprefix("rtsp://").partition("/")[0].split(":")
        self._to = (host, int(port))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._server.getsockname()[1]}/cam"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # until it is closed
            while True:
                ours = self._server.accept()[0]
                theirs = socket.create_connection(self._to)
                self._open += [ours, theirs]
                for one, other in ((ours, theirs), (theirs, ours)):
                    self._threads.append(threading.Thread(target=self._pass_on, args=(one, other)))
                    self._threads[-1].start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)

    def reset(self) -> None:
        ended, self._open = self._open, []
        for connection in ended:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST instead of FIN
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)  # its thread lets go of it
            connection.close()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)  # wakes its thread
        self._server.close()
        self._threads[0].join()
        self.reset()
        for thread in self._threads:
            thread.join()


def test_a_connection_that_is_reset(start_rtsp_server: Start) -> None:
    relay = Relay(start_rtsp_server("160x120").url)
    with contextlib.closing(relay), watched(relay.url, stall=2.5) as run:
        run.wait_for(lambda: len(run.results) >= 5)
        relay.reset()
        cut = time.monotonic()
        run.wait_for(lambda: len(run.of(1)) >= 3)
        assert run.pipeline.report()["events"]["reconnects"] == 1
    assert all(result.frame.time > cut for result in run.of(1))
    assert run.of(1)[0].psnr is None


def test_a_camera_that_starts_later(start_rtsp_server: Start) -> None:
    port = free_port()
    with watched(f"rtsp://127.0.0.1:{port}/cam", stall=2.5) as run:
        trouble = run.pipeline.source.trouble
        start_rtsp_server("160x120", "", port)
        run.wait_for(lambda: len(run.results) >= 3)
    assert trouble is not None
    assert "connection refused" in trouble


def test_a_host_that_accepts_refuses_or_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert answers(f"rtsp://cam:pw@127.0.0.1:{port}/cam", 0.2)
    assert answers(f"rtsp://127.0.0.1:{port}/cam", 0.2)  # refused: the error will say so
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        held: list[socket.socket] = []
        with contextlib.suppress(OSError):
            while len(held) < 10:  # until the kernel accepts no more for the server
                held.append(socket.create_connection(("127.0.0.1", port), 0.05))
        assert not answers(f"rtsp://127.0.0.1:{port}/cam", 0.05)
        for connection in held:
            connection.close()
    assert answers("udp://@:5000", 0.2)
    assert answers("rtsp://[x/cam", 0.2)


@pytest.mark.slow
def test_forty_outages_leave_nothing_behind(start_rtsp_server: Start) -> None:
    process, port = psutil.Process(), free_port()
    server = start_rtsp_server("160x120", "", port)
    before = (0, 0, 0)
    with watched(server.url, stall=2.5) as run:
        for outage in range(40):
            run.wait_for(lambda epoch=outage: len(run.of(epoch)) >= 3)  # type: ignore[misc]
            server.process.kill()
            server.process.wait()
            assert server.process.stdout
            server.process.stdout.close()
            server = start_rtsp_server("160x120", "", port)
            if outage == 10:
                before = process.num_fds(), process.num_threads(), process.memory_info().rss
        run.wait_for(lambda: len(run.of(40)) >= 3)
        after = process.num_fds(), process.num_threads(), process.memory_info().rss
        assert run.pipeline.report()["events"]["reconnects"] == 40
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1] + 1
    assert after[2] - before[2] < 8e6
