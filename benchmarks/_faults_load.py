"""Faults of the machine and of outputs: CPU, disk, viewers, receivers, signals. Rows of ``faults.py``."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from _faults_parts import (
    PATIENCE,
    ROOT,
    STALL,
    Box,
    FaultError,
    Unavailable,
    as_root,
    environment,
    frames_in,
    free_port,
    row,
    spread,
)
from _faults_server import Camera

import framecast
from framecast.files import RESERVE
from framecast.runtime.report import Report
from framecast.runtime.sinks.sink import Result

GROUPS = Path("/sys/fs/cgroup")


def slow_model(seconds: float, percent: int) -> None:
    """A process that gets only a part of one core predicts a camera."""
    for quota in (None, percent):
        with Camera("640x480") as camera, _group(quota) as (group, kind):
            script = str(ROOT / "benchmarks" / "faults.py")
            call = [sys.executable, script, "--inside", "slow_model", camera.url, str(seconds), group]
            done = subprocess.run(call, env=environment(), capture_output=True, text=True, check=False)
            if done.returncode:
                raise FaultError(done.stderr.strip().splitlines()[-1])
        found = json.loads(done.stdout)
        name = "slow model: no quota" if quota is None else f"slow model: {percent} % of a core ({kind})"
        row(
            f"{name}: frame age at hand-over",
            f"p50 {found['p50']:.0f} ms, max {found['max']:.0f} ms (N={found['frames']})",
        )
        row("  dropped (the newest frame wins); newest taken", f"{found['dropped']}; {found['newest']:.0%}")


def slow_model_inside(url: str, seconds: float, group: str) -> None:
    """The same within the process that gets the quota."""
    ages: list[float] = []
    indexes: list[int] = []
    stop = threading.Event()

    def take(result: Result) -> None:
        if len(indexes) == 5 and group:
            Path(group, "cgroup.procs").write_text(str(os.getpid()))  # not before: it would only start slowly
        ages.append(1e3 * (time.monotonic() - result.frame.time))
        indexes.append(result.frame.index)

    timer = threading.Timer(seconds, stop.set)
    timer.start()
    report = framecast.run(url, sinks=[take], stop=stop)
    late = ages[10:]
    if not late:
        raise FaultError("too few frames")
    newest = (report["frames"] + report["dropped"]) / (indexes[-1] + 1)
    found = {"p50": np.median(late), "max": max(late), "frames": len(late), "dropped": report["dropped"]}
    print(json.dumps(found | {"newest": newest}))


@contextlib.contextmanager
def _group(percent: int | None) -> Iterator[tuple[str, str]]:
    """A control group with a CPU quota in percent of a core: its folder ("" for none) and kind."""
    if percent is None:
        yield "", ""
        return
    as_root()
    old = (GROUPS / "cpu" / "cpu.cfs_quota_us").exists()
    if not old and "cpu" not in _text(GROUPS / "cgroup.subtree_control").split():
        raise Unavailable("no cgroup with a CPU quota here (neither v1's cpu nor v2's cpu controller)")
    group = (GROUPS / "cpu" if old else GROUPS) / f"framecast-faults-{os.getpid()}"
    group.mkdir()
    try:
        if old:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text(str(1000 * percent))
        else:
            (group / "cpu.max").write_text(f"{1000 * percent} 100000")
        yield str(group), "cgroup v1" if old else "cgroup v2"
    finally:
        group.rmdir()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def ended(times: int) -> None:
    """Signals end a recording of a camera."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        codes, took, frames = set(), [], []
        for _ in range(times if number == signal.SIGTERM else 1):
            with (
                tempfile.TemporaryDirectory() as folder,
                Camera() as camera,
                Box(camera.url, "--record", f"{folder}/run.mp4") as box,
            ):
                box.wait(lambda figures: figures["frames"] >= 75)
                predicted = box.figures()["frames"]
                code, seconds, _, _ = box.end(number)
                codes.add(code)
                took.append(seconds)
                frames.append(frames_in(Path(folder) / "run.mp4") / predicted)
        codes_said = ", ".join(map(str, sorted(codes)))
        row(f"{number.name} while recording: exit code; seconds", f"{codes_said}; {spread(took)}")
        row("  playable share of the frames so far", f"min {min(frames):.0%}")


@contextlib.contextmanager
def _small_disk(megabytes: int) -> Iterator[Path]:
    as_root("mount")
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", folder]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            raise Unavailable("cannot mount a tmpfs here")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def _fill(folder: Path) -> Path:
    path = folder / "other"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 14))
    return path


def disk(seconds: float) -> None:
    """The disk of a camera's recording fills and is emptied again; the disk of a clip's recording fills."""
    with _small_disk(80) as folder, Camera() as camera, Box(camera.url, "--record", f"{folder}/run.mp4") as box:
        box.wait(lambda figures: figures["frames"] >= 50)
        before, memory = box.rate(seconds), box.memory
        other = _fill(folder)
        full = time.monotonic()
        noticed = box.wait(lambda figures: figures["outputs"][0]["trouble"] is not None) - full
        during, grown = box.rate(seconds), box.memory - memory
        silent = box.figures()["silent_s"]
        other.unlink()
        back = time.monotonic()
        recovered = box.wait(lambda figures: figures["outputs"][0]["trouble"] is None) - back
        box.rate(3)
        output = box.figures()["outputs"][0]
        code, _, err, _ = box.end()
        files = sorted(folder.glob("run*.mp4"), key=lambda path: path.stat().st_mtime_ns)
        played = [frames_in(file) for file in files]
    row("another process fills a camera's disk: noticed after", f"{noticed:.2f} s")
    row("  predictions a second before, and with a full disk", f"{before:.1f}, {during:.1f}; silent {silent:g} s")
    row("  growth of RSS with a full disk", f"{grown:+.1f} MB in {seconds:g} s")
    row("  room again: to the recording going on", f"{recovered:.2f} s; {output['missed']} pictures missing")
    row("  files; frames that play; exit code after SIGTERM", f"{len(files)}; {played}; {code}")
    for line in err.strip().splitlines():
        if "full" in line or "back" in line:
            print(f"    {line.replace(str(folder), '')}")
    own = f"--record needs {RESERVE >> 20} MB"
    for filled, name in ((True, "another process fills a clip's disk"), (False, f"a clip's own recording ({own})")):
        with (
            _small_disk(40 if filled else 17) as folder,
            Box("demo", "--loop", "--record", f"{folder}/run.mp4") as box,
        ):
            box.wait(lambda figures: figures["frames"] >= 40)
            if filled:
                _fill(folder)
            code, err, out = box.wait_end()
            frames = frames_in(folder / "run.mp4")
        row(f"{name}: exit code; frames that play", f"{code}; {frames}")
        row("  lines on stderr; the summary", f"{len(_lines(err))}; {'there' if 'score' in out else 'MISSING'}")
        print(f"    {_lines(err)[-1].replace(str(folder), '')}")


def _lines(err: str) -> list[str]:
    """The lines of stderr that are errors."""
    return [line for line in err.strip().splitlines() if line.startswith("framecast:")] or ["nothing"]


def viewers(seconds: float) -> None:
    """Nobody watches; then pages that are never read, and silent connections."""
    with Camera() as camera, Box(camera.url) as box:
        box.wait(lambda figures: figures["frames"] >= 50)
        box.rate(2)
        alone, memory = box.rate(seconds), box.memory
        unread = [_unread(box.url) for _ in range(6)]
        port = urlsplit(box.url).port
        silent = [socket.create_connection(("127.0.0.1", port or 0)) for _ in range(20)]
        slow, grown = box.rate(seconds), box.memory - memory
        for connection in [*unread, *silent]:
            connection.close()
        after = box.rate(seconds)
        box.end()
    row("no viewer: predictions a second", f"{alone:.1f}")
    row("  6 pages that are never read, 20 silent connections", f"{slow:.1f} ({(slow / alone - 1):+.1%})")
    row("  growth of RSS meanwhile", f"{grown:+.1f} MB in {seconds:g} s")
    row("  predictions a second after they have left", f"{after:.1f}")


def _unread(url: str) -> socket.socket:
    """A page's stream that is opened and never read."""
    host = urlsplit(url).netloc
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", urlsplit(url).port or 0))
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET /stream?show=now HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return connection


class _Receiver:
    """FFmpeg as an RTSP server that takes one stream."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/now"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it. Returns the moment from which it listens."""
        call = ["ffmpeg", "-v", "error", "-rtsp_flags", "listen", "-i", self.url, "-f", "null", "-"]
        self._process = subprocess.Popen(call, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise FaultError("ffmpeg does not listen (make system-deps)")
            time.sleep(0.01)
        return time.monotonic()

    def _listens(self) -> bool:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(line[3] in ("0A", "01") and line[1].endswith(f":{int(self.port):04X}") for line in rows)

    def send(self, number: int) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def receivers(times: int, frozen: float) -> None:
    """What receives ``--out`` dies and comes back, then freezes and goes on."""
    receiver, moments, reports, stop = _Receiver(), list[float](), list[Report](), threading.Event()
    receiver.start()
    recovery: list[float] = []
    failures: list[BaseException] = []

    def work(url: str) -> None:
        try:
            framecast.run(
                url,
                out=receiver.url,
                stall=STALL,
                sinks=[lambda result: moments.append(time.monotonic())],
                observe=reports.append,
                stop=stop,
            )
        except BaseException as error:  # noqa: BLE001 (shown below)
            failures.append(error)

    def wait_for(trouble: bool) -> float:
        deadline = time.monotonic() + PATIENCE
        while not reports or not reports[-1]["outputs"] or _out(reports[-1]) != trouble:
            if failures or time.monotonic() > deadline:
                raise FaultError(f"receiver: {failures or 'no change'}")
            time.sleep(0.01)
        return time.monotonic()

    with Camera() as camera:
        thread = threading.Thread(target=work, args=(camera.url,), daemon=True)
        thread.start()
        try:
            wait_for(False)
            for number in range(times):
                receiver.kill()
                wait_for(True)
                time.sleep(0.5 + 0.1 * (number % 10))
                back = receiver.start()
                recovery.append(wait_for(False) - back)
            gaps = np.diff(moments)
            receiver.send(signal.SIGSTOP)
            known = len(moments)
            time.sleep(frozen)
            receiver.send(signal.SIGCONT)
            still = float(np.diff(moments[known - 1 :]).max())
            receiver.kill()
            wait_for(True)
            with socket.create_server(("127.0.0.1", int(receiver.port))):  # accepts, and never says anything
                known = len(moments)
                time.sleep(frozen)
                mute = float(np.diff(moments[known - 1 :]).max())
            noticed = reports[-1]["outputs"][0]
        finally:
            stop.set()
            thread.join(PATIENCE)
            receiver.kill()
    row("receiver of --out dies: back to the first picture sent", spread(recovery))
    row("  longest pause of predictions meanwhile", f"{gaps.max():.2f} s (N={len(gaps)} frames)")
    row(f"receiver frozen for {frozen:g} s: longest pause of predictions", f"{still:.2f} s")
    row(f"receiver mute for {frozen:g} s: longest pause of predictions", f"{mute:.2f} s")
    row("  lost, pictures missing so far", f"{noticed['lost']}, {noticed['missed']}")


def _out(report: Report) -> bool:
    output = report["outputs"][0]
    return output["trouble"] is not None or not output["files"]
