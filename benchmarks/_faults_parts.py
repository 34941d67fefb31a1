"""The parts of ``faults.py``: a run that is watched, a process that is watched, rows of the table."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from framecast.camera import Image, open_source
from framecast.runtime.engines import Engine, open_engine
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Prediction, Predictor
from framecast.runtime.shipped import find
from framecast.runtime.sinks.sink import Result
from framecast.runtime.sinks.web import WebSink

ROOT = Path(__file__).resolve().parents[1]
FRAMECAST = [sys.executable, "-m", "framecast"]
PATIENCE = 60.0  # seconds until a wait is given up
STALL = 2.5  # seconds, the default
KEPT = 8  # frames at the begin of each epoch that are compared with a fresh run


class FaultError(Exception):
    """A fault could not be caused, or the run did not come back."""


class Unavailable(Exception):  # noqa: N818 (no error: the row says so)
    """This machine cannot cause the fault."""


def row(fault: str, figure: str) -> None:
    """Print a row of the table. A fault that begins with two spaces belongs to the row above."""
    print(f"{fault:63s} {figure}", flush=True)


def hold(promise: bool, broken: str) -> None:
    """Check a promise that allows no exception.

    Raises:
        FaultError: it is broken.
    """
    if not promise:
        raise FaultError(broken)


def spread(seconds: Sequence[float]) -> str:
    """Median and worst, with their number."""
    return f"p50 {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s (N={len(seconds)})"


def free_port() -> str:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def as_root(*tools: str) -> None:
    """Check that faults of the kernel can be caused here.

    Raises:
        Unavailable: this is not root, or a tool is missing.
    """
    if os.geteuid() != 0:
        raise Unavailable("needs root")
    for tool in tools:
        if shutil.which(tool) is None:
            raise Unavailable(f"no {tool} here (Debian: apt-get install {tool.partition('-')[0]})")


class Traced(Predictor):
    """A predictor that keeps what it was asked at the begin of each stream, to ask a fresh one the same.

    Args:
        engine: runs the steps; closed with this predictor.
        kept: frames of each stream.
    """

    def __init__(self, engine: Engine, kept: int = KEPT) -> None:
        super().__init__(engine, owns_engine=True)
        self._kept = kept
        self._streams: list[list[tuple[Image, float, float | None, list[tuple[float, Image]]]]] = []

    def reset(self) -> None:
        """See :meth:`Predictor.reset`."""
        super().reset()
        if hasattr(self, "_streams"):
            self._streams.append([])

    def step(self, frame: Image, time: float | None = None, *, interval: float | None = None) -> None:
        """See :meth:`Predictor.step`."""
        super().step(frame, time, interval=interval)
        if self._streams and len(self._streams[-1]) < self._kept and time is not None:
            self._streams[-1].append((frame.copy(), time, interval, []))

    def at(self, time: float) -> Prediction:
        """See :meth:`Predictor.at`."""
        prediction = super().at(time)
        if self._streams and self._streams[-1] and self._streams[-1][-1][0].shape == prediction.image.shape:
            asked = self._streams[-1][-1][3]
            if not asked:
                asked.append((time, prediction.image.copy()))
        return prediction

    def difference(self) -> tuple[int, int, int]:
        """The largest difference from a fresh predictor that is given each stream's first frames alone.

        Returns:
            The difference in levels, the number of pictures compared, the number of streams.
        """
        largest = pictures = 0
        for stream in self._streams:
            with Predictor(open_engine(find("edge"), "opencv"), owns_engine=True) as fresh:
                for frame, moment, interval, asked in stream:
                    fresh.step(frame, moment, interval=interval)
                    for at, picture in asked:
                        apart = np.abs(fresh.at(at).image.astype(int) - picture)
                        largest, pictures = max(largest, int(apart.max())), pictures + 1
        return largest, pictures, len(self._streams)


class Run:
    """A live run with the default model, in a thread of its own.

    Attributes:
        results: the newest ones.
        pipeline: the run.
        predictor: its predictor.
        page: its page, if it was asked for.
    """

    def __init__(self, url: str, *, page: bool = False, kept: int = KEPT) -> None:
        source = open_source(url, stall=STALL, reconnect=True)
        self.predictor = Traced(open_engine(find("edge"), "opencv"), kept)
        self.pipeline = Pipeline(source, self.predictor, rival=False)
        self.page = WebSink("127.0.0.1:0", snapshot=lambda: dict(self.pipeline.report())) if page else None
        self.results: deque[Result] = deque(maxlen=200)
        self._new = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for result in self.pipeline:
            if self.page is not None:
                self.page.show(result)
            with self._new:
                self.results.append(result)
                self._new.notify_all()

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait until something is true of the results."""
        with self._new:
            if not self._new.wait_for(done, PATIENCE):
                raise FaultError(f"waited for {PATIENCE:g} s: {self.pipeline.source.trouble}")

    def wait_for(self, epoch: int, count: int) -> None:
        """Wait for so many results of an epoch."""
        self.wait(lambda: len(self.of(epoch)) >= count)

    def of(self, epoch: int) -> list[Result]:
        """The results of an epoch."""
        return [result for result in list(self.results) if result.frame.epoch == epoch]

    def trouble(self) -> float:
        """Wait until the source notices that it is lost. Returns the moment."""
        deadline = time.monotonic() + PATIENCE
        while self.pipeline.source.trouble is None:
            if time.monotonic() > deadline:
                raise FaultError("the outage was never noticed")
            time.sleep(0.002)
        return time.monotonic()

    def same_state(self) -> str:
        """What the states are worth after all the resets."""
        largest, pictures, streams = self.predictor.difference()
        hold(largest == 0, f"a state differs from a fresh run's by {largest} levels")
        return f"max difference from a fresh run {largest} levels ({pictures} pictures of {streams} streams)"

    def end(self) -> None:
        """End the run."""
        self.pipeline.stop()
        self._thread.join(20)
        if self.page is not None:
            self.page.close()
        self.predictor.close()


@contextlib.contextmanager
def running(url: str, *, page: bool = False, kept: int = KEPT) -> Iterator[Run]:
    """A run for a while. ``kept``: frames of each stream that are compared with a fresh run."""
    run = Run(url, page=page, kept=kept)
    try:
        yield run
    finally:
        run.end()


def status(url: str) -> int:
    """The status that an address answers with."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


class Box:
    """``framecast run`` as a process of its own, with its page. Leaving its ``with`` kills it.

    Args:
        arguments: of the command.
    """

    def __init__(self, *arguments: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}/"
        address = self.url.removeprefix("http://").rstrip("/")
        call = [*FRAMECAST, "run", *arguments, "--serve", address]
        self._process = subprocess.Popen(
            call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
        )

    def figures(self) -> dict[str, Any]:
        """The run's report so far."""
        with urllib.request.urlopen(f"{self.url}stats.json", timeout=5) as answer:
            return dict(json.load(answer))

    def wait(self, done: Callable[[dict[str, Any]], bool]) -> float:
        """Wait until something is true of the report. Returns the moment."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):  # it has not begun to serve
                if done(self.figures()):
                    return time.monotonic()
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise FaultError(f"framecast: {self.end()[2]}")
            time.sleep(0.05)

    def rate(self, seconds: float) -> float:
        """Predictions a second over the next so many seconds."""
        before, begun = self.figures()["frames"], time.monotonic()
        time.sleep(seconds)
        return float((self.figures()["frames"] - before) / (time.monotonic() - begun))

    @property
    def memory(self) -> float:
        """Resident MB."""
        return float(psutil.Process(self._process.pid).memory_info().rss / 1e6)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float, str, str]:
        """Send a signal and wait. Returns the exit code, the seconds, and what it said on stderr and stdout."""
        begun = time.monotonic()
        if self._process.poll() is None:
            self._process.send_signal(number)
        out, err = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, time.monotonic() - begun, err, out

    def wait_end(self) -> tuple[int, str, str]:
        """Wait until it ends by itself. Returns the exit code, and what it said on stderr and stdout."""
        out, err = self._process.communicate(timeout=3 * PATIENCE)
        return self._process.returncode, err, out

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def environment() -> dict[str, str]:
    """The environment for a framecast of this very clone."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def frames_in(video: Path) -> int:
    """Frames that ffprobe can decode."""
    call = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]
    said = subprocess.run([*call, video], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+", said)
    return int(found.group()) if found else 0


def in_namespace(case: str, *arguments: str) -> None:
    """Run a case of ``faults.py`` in a network namespace of its own; it prints its rows.

    Raises:
        Unavailable: this is not root, or the kernel has no namespaces or no filter here.
        FaultError: it failed.
    """
    as_root("unshare", "ip", "iptables-legacy")
    probe = ["unshare", "-n", "iptables-legacy", "-L", "-n"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        raise Unavailable("no network namespace with iptables-legacy here")
    script = str(ROOT / "benchmarks" / "faults.py")
    call = ["unshare", "-n", sys.executable, script, "--inside", case, *arguments]
    if subprocess.run(call, env=environment(), check=False).returncode:
        raise FaultError("see above")
