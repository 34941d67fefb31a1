"""Faults of a camera with real parts, and what a run makes of them: the table of ``docs/unattended.md``.

An RTSP server (GStreamer) is killed, frozen, started late and started again at another size; the network is taken away;
a recording is ended by SIGTERM and by SIGKILL, and its disk fills. Needs the packages of ``make system-deps``, and root
for the network and the disk.

    python benchmarks/faults.py [--outages N]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from _machine import header

from framecast.camera import open_source
from framecast.runtime.engines import open_engine
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.shipped import find
from framecast.runtime.sinks.sink import Result

SERVER = Path(__file__).resolve().parents[1] / "tests" / "rtsp_server.py"
FRAMECAST = [sys.executable, "-m", "framecast"]
PATIENCE = 60.0  # seconds until a wait is given up
STALL = 2.5  # seconds, the default


def free_port() -> str:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def serve(port: str, size: str = "320x240") -> subprocess.Popen[str]:
    """Start the camera and wait until it listens."""
    call = ["/usr/bin/python3", str(SERVER), size, "", port]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    if process.stdout.readline().strip() != port:
        raise SystemExit("the RTSP server does not start (make system-deps)")
    return process


def kill(process: subprocess.Popen[str]) -> None:
    """End a process at once."""
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


class Run:
    """A live run with the default model, in a thread of its own.

    Attributes:
        results: the newest ones.
        pipeline: the run.
    """

    def __init__(self, url: str) -> None:
        source = open_source(url, stall=STALL, reconnect=True)
        self.predictor = Predictor(open_engine(find("edge"), "opencv"), owns_engine=True)
        self.pipeline = Pipeline(source, self.predictor, rival=False)
        self.results: deque[Result] = deque(maxlen=200)
        self._new = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for result in self.pipeline:
            with self._new:
                self.results.append(result)
                self._new.notify_all()

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait until something is true of the results."""
        with self._new:
            if not self._new.wait_for(done, PATIENCE):
                raise SystemExit(f"waited for {PATIENCE:g} s: {self.pipeline.source.trouble}")

    def of(self, epoch: int) -> list[Result]:
        """The results of an epoch."""
        return [result for result in list(self.results) if result.frame.epoch == epoch]

    def trouble(self) -> float:
        """The moment at which the source notices that it is lost."""
        while self.pipeline.source.trouble is None:
            time.sleep(0.005)
        return time.monotonic()

    def end(self) -> None:
        """End the run."""
        self.pipeline.stop()
        self._thread.join(20)
        self.predictor.close()


@contextlib.contextmanager
def running(url: str) -> Iterator[Run]:
    """A run for a while."""
    run = Run(url)
    try:
        yield run
    finally:
        run.end()


def row(fault: str, figure: str) -> None:
    """Print a row."""
    print(f"{fault:52s} {figure}", flush=True)


def spread(seconds: list[float]) -> str:
    """Median and worst."""
    return f"p50 {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s (n={len(seconds)})"


def killed(outages: int) -> None:
    """The server dies and comes back, each time at another size."""
    port = free_port()
    server, recovery, noticed, stale, rescaled = serve(port), [], [], 0, 0
    with running(f"rtsp://127.0.0.1:{port}/cam") as run:
        for outage in range(outages):
            run.wait(lambda epoch=outage: len(run.of(epoch)) >= 10)  # type: ignore[misc]
            kill(server)
            died = time.monotonic()
            noticed.append(run.trouble() - died)
            time.sleep(0.5 + 0.1 * (outage % 10))
            size = ((160, 120), (320, 240))[outage % 2]
            server = serve(port, f"{size[0]}x{size[1]}")
            back = time.monotonic()
            run.wait(lambda epoch=outage + 1: len(run.of(epoch)) >= 8)  # type: ignore[misc]
            after = run.of(outage + 1)
            recovery.append(after[0].stamps.handed - back)
            stale += sum(result.frame.time < died for result in after)
            rescaled += sum(result.frame.image.shape != (*size[::-1], 3) for result in after)
    kill(server)
    row("server killed: to the failed read", spread(noticed))
    row("server back: to the first prediction", spread(recovery))
    row("  frames of before the outage, after it", str(stale))
    row("  frames at another size than the camera's", str(rescaled))


def frozen(times: int) -> None:
    """The server stops answering and goes on."""
    port = free_port()
    server, noticed, stale = serve(port), [], 0
    with running(f"rtsp://127.0.0.1:{port}/cam") as run:
        for epoch in range(times):
            run.wait(lambda epoch=epoch: len(run.of(epoch)) >= 10)  # type: ignore[misc]
            server.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            noticed.append(run.trouble() - begun)
            stale += sum(result.frame.time > begun + 0.5 for result in run.of(epoch))
            server.send_signal(signal.SIGCONT)
    kill(server)
    row("server frozen: to the outage noticed", spread(noticed))
    row("  frames from the read that timed out", str(stale))


def late() -> None:
    """The camera starts after the run."""
    port = free_port()
    with running(f"rtsp://127.0.0.1:{port}/cam") as run:
        time.sleep(5)
        server = serve(port)
        back = time.monotonic()
        run.wait(lambda: len(run.results) >= 1)
        row("camera starts 5 s after the run: to the prediction", f"{run.results[0].stamps.handed - back:.2f} s")
    kill(server)


def unplugged() -> None:
    """The network is down for 10 s. In a network namespace of its own."""
    port = free_port()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = serve(port)
    with running(f"rtsp://127.0.0.1:{port}/cam") as run:
        run.wait(lambda: len(run.results) >= 10)
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        down = time.monotonic()
        noticed = run.trouble() - down
        time.sleep(max(0.0, down + 10 - time.monotonic()))
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        up = time.monotonic()
        run.wait(lambda: len(run.of(1)) >= 1)
        row("cable pulled for 10 s: to the outage noticed", f"{noticed:.2f} s")
        row("  cable back: to the first prediction", f"{run.of(1)[0].stamps.handed - up:.2f} s")
    kill(server)


def frames_in(video: Path) -> int:
    """Frames that ffprobe can decode."""
    call = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]
    return int(subprocess.run([*call, video], capture_output=True, text=True, check=True).stdout.strip(",\n") or 0)


def recording(name: int) -> None:
    """A signal ends a recording."""
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "run.mp4"
        call = [*FRAMECAST, "run", "demo", "--loop", "--realtime", "--record", str(video)]
        process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(6)
        begun = time.monotonic()
        process.send_signal(name)
        code = process.wait(PATIENCE)
        took, frames = time.monotonic() - begun, frames_in(video)
    row(f"{signal.Signals(name).name} after 6 s of recording", f"exit {code} in {took:.2f} s; {frames} frames play")


def full_disk() -> None:
    """The disk of a recording fills."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "none", folder], check=True)
        try:
            video, fill = Path(folder) / "run.mp4", Path(folder) / "other"
            call = [*FRAMECAST, "run", "demo", "--loop", "--realtime", "--record", str(video)]
            process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            time.sleep(5)
            with contextlib.suppress(OSError), fill.open("wb") as file:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            _, err = process.communicate(timeout=PATIENCE)
            row(
                "another process fills the disk", f"exit {process.returncode}; {frames_in(video)} frames play; it says:"
            )
            print(f"  {err.strip().splitlines()[-1].replace(folder, '')}")
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outages", type=int, default=30, help="how often the server is killed (default: 30)")
    parser.add_argument("--unplugged", action="store_true", help=argparse.SUPPRESS)  # within the namespace
    arguments = parser.parse_args()
    if arguments.unplugged:
        unplugged()
        return
    print(header(), flush=True)
    print()
    killed(arguments.outages)
    frozen(5)
    late()
    if os.geteuid() == 0:
        subprocess.run(["unshare", "-n", sys.executable, __file__, "--unplugged"], check=True)
    else:
        row("cable pulled", "not run: needs root")
    recording(signal.SIGTERM)
    recording(signal.SIGKILL)
    if os.geteuid() == 0:
        full_disk()
    else:
        row("another process fills the disk", "not run: needs root")


if __name__ == "__main__":
    main()
