"""A long run with many reconnections, and how its memory, descriptors and threads grow.

``framecast run`` reads an HTTP camera (Motion JPEG, 64x48) that closes the connection again and again: each time PyAV
opens a new one. The page is open: one viewer reads all the time, another comes and goes. It records in segments, and
writes its report every two seconds. Then an RTSP camera is opened and closed.

    python benchmarks/soak.py [--frames N] [--each N] [--rtsp N] [--minutes M]

A line is fitted to each figure by least squares, after the first third of the run: until then histories and memory
pools fill. Neighbouring samples are not independent, so the line goes through the means of ``BLOCKS`` blocks, and its
95 % interval is Student's. A figure is flat only if the whole interval is within what is stated; it grows if the whole
interval is above that; otherwise the run does not show it, and a longer one may. "In use" is what malloc has handed
out: it tells a leak from memory that glibc keeps between blocks in use.

Only the policy of the waits is changed: a connection of any length counts as healthy, so that the next one is made at
once. Frames that were read count, whether they were predicted or dropped, so 100,000 take 1,000 connections. The whole
takes about 20 minutes on two quiet cores; ``--minutes`` bounds the first part.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.server
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import cv2
import numpy as np
import psutil
from _heap import in_use
from _machine import header, script

RATE = 150  # frames a second that the camera sends
WARM = 1 / 3  # share of the run before the fit begins
BLOCKS = 12
T95 = 2.228  # Student's t for 95 %, two-sided, with BLOCKS - 2 degrees of freedom
SEGMENT, KEEP = "10s", "2MB"
JSON_EVERY = 2.0  # seconds between two writes of the report
VISIT = 15  # updates that the second viewer reads before it leaves
RTSP_SERVER = Path(__file__).parents[1] / "tests" / "rtsp_server.py"
CHILD = f"""
import pathlib, sys
sys.path.append({str(Path(__file__).parent)!r})
import _heap
_heap.tell(pathlib.Path(sys.argv.pop(1)))
from framecast import backoff
from framecast.cli import saved
assert backoff.HEALTHY and saved.EVERY  # these names are what is changed
backoff.HEALTHY, saved.EVERY = 0.0, {JSON_EVERY}
from framecast.cli import main
main()
"""


class Sample(NamedTuple):
    """What a process held at one moment."""

    done: float  # frames, or connections
    rss: float
    own: float  # without the pages of files, which come and go with the kernel's needs
    used: float  # handed out by malloc
    descriptors: float
    threads: float


def sample(process: psutil.Process, done: float, used: float) -> Sample:
    """Measure a process."""
    memory = process.memory_info()
    return Sample(done, memory.rss, memory.rss - memory.shared, used, process.num_fds(), process.num_threads())


def slope(done: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """The growth of a figure for each count, and half of its 95 % interval."""
    x, y = (np.array([block.mean() for block in np.array_split(np.array(all_), BLOCKS)]) for all_ in (done, values))
    x = x - x.mean()
    spread = float(x @ x)
    growth = float(x @ y) / spread
    rest = y - y.mean() - growth * x
    return growth, T95 * float(np.sqrt(rest @ rest / (BLOCKS - 2) / spread))


def verdict(growth: float, error: float, allowed: float) -> str:
    """``flat`` and ``GROWS`` are shown; neither may be."""
    if growth + error <= allowed:
        return "flat"
    return "GROWS" if growth - error > allowed else "NOT SHOWN"


def table(samples: list[Sample], per: float, unit: str, megabytes: float) -> bool:
    """Print the growth of each figure, and whether it is flat: no more than so many MB for each ``per`` counts."""
    kept = [one for one in samples if one.done >= WARM * samples[-1].done]
    if len(kept) < 4 * BLOCKS:
        print(f"  {len(kept)} samples after the warm-up: too few; give more frames or minutes")
        return False
    print(f"  {len(kept)} samples, from {unit} {kept[0].done:,.0f} on; growth for each {per:,.0f} {unit}:")
    print(f"  {'':14s} {'first':>9s} {'last':>9s} {'growth':>10s} {'± 95 %':>10s} {'flat: up to':>12s}")
    flat = True
    for figure, name, scale, allowed in (
        ("rss", "RSS, MB", 1e-6, megabytes),
        ("own", "anonymous, MB", 1e-6, megabytes),
        ("used", "in use, MB", 1e-6, megabytes),
        ("descriptors", "descriptors", 1.0, 0.5),
        ("threads", "threads", 1.0, 0.5),
    ):
        values = [scale * getattr(one, figure) for one in kept]
        growth, error = (per * value for value in slope([one.done for one in kept], values))
        said = verdict(growth, error, allowed)
        flat &= said == "flat"
        print(f"  {name:14s} {values[0]:9.2f} {values[-1]:9.2f} {growth:+10.3f} {error:10.3f} {allowed:12g}  {said}")
    return flat


class Camera(http.server.BaseHTTPRequestHandler):
    """Sends ``each`` pictures as Motion JPEG, then closes the connection."""

    each = 100
    pictures: tuple[bytes, ...] = ()
    connections = 0

    def do_GET(self) -> None:
        """Send a multipart stream."""
        cls = type(self)
        cls.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        due = time.monotonic()
        with contextlib.suppress(OSError):
            for number in range(cls.each):
                picture = cls.pictures[number % len(cls.pictures)]
                part = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(part.encode() + picture + b"\r\n")
                due = max(due + 1 / RATE, time.monotonic() - 0.1)
                time.sleep(max(0.0, due - time.monotonic()))

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


@contextmanager
def camera(each: int) -> Iterator[str]:
    """An HTTP camera; yields its address."""
    noise = np.random.default_rng(3).integers(0, 256, (6, 20, 3), np.uint8)
    wide = cv2.resize(noise, (64 + 40, 48), interpolation=cv2.INTER_CUBIC)
    Camera.pictures = tuple(cv2.imencode(".jpg", wide[:, k : k + 64])[1].tobytes() for k in range(40))
    Camera.each = each
    with _Server(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/cam.mjpg"
        server.shutdown()


async def look(
    address: str, folder: Path, process: psutil.Process, ended: threading.Event, frames: int
) -> tuple[list[Sample], dict[str, int]]:
    """Keep the page open, and sample the process, until it ends. It is ended after so many frames."""
    report, heap = folder / "run.json", folder / "heap"
    samples: list[Sample] = []
    seen = {"updates read": 0, "visits": 0, "reports written": 0}

    async def stay(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(f"{address}/stream", origin=address) as page:
            async for _ in page:
                seen["updates read"] += 1

    async def visit(session: aiohttp.ClientSession) -> None:
        while True:
            async with session.ws_connect(f"{address}/stream", origin=address) as page:
                for _ in range(VISIT):
                    await page.receive(timeout=30)
                if seen["visits"] % 2 and (transport := page.get_extra_info("socket")) is not None:
                    transport.shutdown(socket.SHUT_RDWR)  # half of them leave without a word
            seen["visits"] += 1

    async def count(session: aiohttp.ClientSession) -> None:
        written = 0
        while not samples or samples[-1].done < frames:
            if report.exists() and (newest := report.stat().st_mtime_ns) != written:
                written = newest
                seen["reports written"] += 1
            async with session.get(f"{address}/stats.json") as answer:
                figures = await answer.json()
            samples.append(sample(process, figures["frames"] + figures["dropped"], float(heap.read_text())))
            await asyncio.sleep(1)
        process.terminate()

    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(task(session)) for task in (stay, visit, count)]
        while not ended.is_set():
            await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(error, (asyncio.CancelledError, aiohttp.ClientConnectionError, type(None))):
                print(f"a viewer failed: {error!r}")
    return samples, seen


def soak(frames: int, each: int, minutes: float) -> bool:
    """Run it, at most for so many minutes, and print the table. Returns whether all is flat."""
    with tempfile.TemporaryDirectory() as place, camera(each) as url:
        folder = Path(place)
        options = ["--record", folder / "run.mkv", "--segment", SEGMENT, "--keep", KEEP, "--json", folder / "run.json"]
        arguments = ["run", url, *options, "--serve", "127.0.0.1:0", "--threads", 1]
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder / "heap"), *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stderr is not None
        address = ""
        while not address:
            line = child.stderr.readline()
            assert line, "the run has ended before it began"
            if "watch it at" in line:
                address = line.split()[3].rstrip("/")
        ended = threading.Event()
        begun = time.monotonic()
        result: list[tuple[list[Sample], dict[str, int]]] = []
        looking = threading.Thread(
            target=lambda: result.append(asyncio.run(look(address, folder, psutil.Process(child.pid), ended, frames)))
        )
        looking.start()
        limit = threading.Timer(60 * minutes, child.terminate)
        limit.start()
        for _ in child.stderr:  # or it would wait for us
            pass
        code = child.wait()
        limit.cancel()
        took = time.monotonic() - begun
        ended.set()
        looking.join()
        samples, seen = result[0]
        report: dict[str, Any] = json.loads((folder / "run.json").read_text())
        output = report["outputs"][0]
        left = sum(path.stat().st_size for path in folder.glob("run-*.mkv"))
    print(f"\nHTTP camera, {took / 60:.1f} minutes, exit code {code}, ended: {report['ended']}")
    read = report["frames"] + report["dropped"]
    print(
        f"  {read:,} frames read: {report['frames']:,} predicted, {report['dropped']:,} dropped; "
        f"{report['events']['reconnects']:,} "
        f"reconnections, {report['epochs']:,} streams; {Camera.connections:,} connections at the camera"
    )
    print(
        f"  {seen['updates read']:,} updates read by the viewer that stays, {seen['visits']:,} visits of the other; "
        f"{output['files']} segments begun, {output['removed']} removed, {left / 1e6:.2f} MB left of them; the report "
        f"was written {seen['reports written']} times"
    )
    if read < frames:
        print(f"  ENDED EARLY: {frames:,} frames were asked for")
    return table(samples, 1e5, "frames", megabytes=2.0) and read >= frames


def rtsp(connections: int) -> bool:
    """Open and close an RTSP camera in a process of its own, which prints the table. Returns whether all is flat."""
    server = subprocess.Popen(["/usr/bin/python3", RTSP_SERVER, "160x120"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    if not port.isdecimal():
        print(f"\nRTSP camera: not run: {port}")
        return False
    code = subprocess.run([sys.executable, __file__, "--opener", port, "--rtsp", str(connections)]).returncode
    server.send_signal(signal.SIGKILL)
    server.wait()
    return not code


def opener(port: str, connections: int) -> bool:
    """Within a process of its own: see :func:`rtsp`."""
    from framecast.camera import open_source

    process, samples = psutil.Process(os.getpid()), []
    begun = time.monotonic()
    for number in range(connections):
        with open_source(f"rtsp://127.0.0.1:{port}/cam") as source:
            for _ in range(3):
                assert source.read() is not None
        samples.append(sample(process, number, in_use()))
    print(f"\nRTSP camera, opened and closed {connections} times, in {(time.monotonic() - begun) / 60:.1f} minutes")
    return table(samples, 100, "connections", megabytes=0.1)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000, help="frames to read (default: 100000)")
    parser.add_argument("--each", type=int, default=100, help="pictures in each connection (default: 100)")
    parser.add_argument("--rtsp", type=int, default=1000, help="RTSP connections (default: 1000)")
    parser.add_argument(
        "--minutes", type=float, default=24, help="end the first part early after so many (default: 24)"
    )
    parser.add_argument("--opener", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.opener:
        raise SystemExit(not opener(arguments.opener, arguments.rtsp))
    print(header(), flush=True)
    flat = soak(arguments.frames, arguments.each, arguments.minutes)
    sys.stdout.flush()
    raise SystemExit(not (rtsp(arguments.rtsp) and flat))


if __name__ == "__main__":
    script(main)
