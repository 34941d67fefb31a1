"""PyAV, which reads and writes our videos, beside OpenCV: start, cost per frame, latency, recovery.

Both read the same files and the same RTSP camera, interleaved in one run. The camera is the tests' own (GStreamer, on
this machine). Needs ffmpeg, and the packages of ``make system-deps``.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
from _machine import header, script

import framecast
from framecast.camera import Image, Source, open_source
from framecast.runtime.sinks.encoder import H264, Encoder

ROUNDS = 7
SECONDS = 8.0  # of the camera, for the latency
SERVER = Path(__file__).resolve().parents[1] / "tests" / "rtsp_server.py"
OURS, OPENCV = "PyAV (framecast)", "OpenCV"
os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "rtsp_transport;tcp|analyzeduration;100000"  # as framecast used to

Reader = Callable[[], Image | None]


def ours(place: str) -> tuple[Reader, Callable[[], None]]:
    """A reader of our source, and its close."""
    source: Source = open_source(place, sender_clock=False)

    def read() -> Image | None:
        frame = source.read()
        return None if frame is None else frame.image

    return read, source.close


def opencv(place: str) -> tuple[Reader, Callable[[], None]]:
    """A reader of OpenCV's capture, with one decoder thread for a stream as ours, and its close."""
    threads = [cv2.CAP_PROP_N_THREADS, 1] if "://" in place else []
    capture = cv2.VideoCapture(place, cv2.CAP_FFMPEG, threads)

    def read() -> Image | None:
        more, image = capture.read()
        return image if more else None  # type: ignore[return-value]  # OpenCV's stubs allow any dtype

    return read, capture.release


WAYS = {OURS: ours, OPENCV: opencv}


def decoding(path: Path) -> dict[str, list[float]]:
    """Milliseconds of CPU per frame of a whole file, for each way and round."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, open_ in WAYS.items():
            read, close = open_(str(path))
            begun, frames = time.process_time(), 0
            while read() is not None:
                frames += 1
            found[name].append(1e3 * (time.process_time() - begun) / frames)
            close()
    return found


@contextmanager
def camera() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """An RTSP camera: its address and process."""
    with subprocess.Popen(["/usr/bin/python3", SERVER, "640x480"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield f"rtsp://127.0.0.1:{process.stdout.readline().strip()}/cam", process
        finally:
            process.kill()


def first_frames(url: str) -> dict[str, list[float]]:
    """Seconds from opening a running camera to its first frame: what a reconnection costs."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, open_ in WAYS.items():
            begun = time.perf_counter()
            read, close = open_(url)
            read()
            found[name].append(time.perf_counter() - begun)
            close()
    return found


def lags(url: str) -> list[float]:
    """Milliseconds by which our reader has each frame later than OpenCV's. The camera encodes once for both."""
    seen: dict[str, dict[str, float]] = {name: {} for name in WAYS}

    def follow(name: str) -> None:
        read, close = WAYS[name](url)
        end = time.monotonic() + SECONDS
        while (image := read()) is not None and (now := time.monotonic()) < end:
            seen[name].setdefault(hashlib.sha256(image.tobytes()).hexdigest(), now)
        close()

    threads = [threading.Thread(target=follow, args=(name,)) for name in WAYS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    both = seen[OURS].keys() & seen[OPENCV].keys()
    return [1e3 * (seen[OURS][key] - seen[OPENCV][key]) for key in both]


def noticing() -> dict[str, list[float]]:
    """Milliseconds from the end of the camera's process to the failed read."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(3):
        for name, open_ in WAYS.items():
            with camera() as (url, process):
                read, close = open_(url)
                read()
                process.kill()
                begun = time.perf_counter()
                try:
                    while read() is not None:
                        pass
                except framecast.SourceError:
                    pass
                found[name].append(1e3 * (time.perf_counter() - begun))
                close()
    return found


def recording(folder: Path) -> dict[str, list[float]]:
    """Milliseconds of CPU per picture of a recording: ours, H.264; and OpenCV's, MPEG-4 part 2."""
    with open_source("demo") as demo:
        pictures: list[Image] = [cv2.resize(frame.image, (688, 560)) for frame in demo][:100]  # type: ignore[assignment]
    found: dict[str, list[float]] = {OURS: [], OPENCV: []}
    for number in range(ROUNDS):
        begun = time.process_time()
        encoder = Encoder(str(folder / f"{number}.mp4"), "mp4", H264, pictures[0].shape, fps=25.0)
        for k, picture in enumerate(pictures):
            encoder.write(picture, k / 25)
        encoder.finish()
        found[OURS].append(1e3 * (time.process_time() - begun) / len(pictures))
        begun = time.process_time()
        writer = cv2.VideoWriter(str(folder / f"{number}-cv.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (688, 560))
        for picture in pictures:
            writer.write(picture)
        writer.release()
        found[OPENCV].append(1e3 * (time.process_time() - begun) / len(pictures))
    return found


def importing(module: str) -> float:
    """Seconds of CPU that importing a module takes, the median of fresh processes."""
    code = f"import numpy, time; a = time.process_time(); import {module}; print(time.process_time() - a)"
    call = [sys.executable, "-c", code]
    return statistics.median(float(subprocess.check_output(call, text=True)) for _ in range(ROUNDS))


def show(what: str, found: dict[str, list[float]], unit: str) -> None:
    """Print a row: medians, and the ratio of the medians."""
    mine, other = (statistics.median(found[name]) for name in (OURS, OPENCV))
    print(f"{what:44s} {mine:9.3f} {other:9.3f} {unit:3s} {mine / other:7.2f}")


def main() -> None:
    """Print the table."""
    print(header())
    print(f"\n{'median':44s} {'PyAV':>9s} {'OpenCV':>9s} {'':3s} {'ratio':>7s}")
    show("import, CPU", {OURS: [importing("av")], OPENCV: [importing("cv2")]}, "s")
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.mp4"
        picture = ("-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30:duration=8")
        subprocess.run(["ffmpeg", "-v", "error", *picture, "-pix_fmt", "yuv420p", large], check=True)
        demo = Path(framecast.__file__).parent / "assets" / "demo.mp4"
        show("a frame of the demo, 342x256, CPU", decoding(demo), "ms")
        show("a frame of 1280x720 H.264, CPU", decoding(large), "ms")
        show("recording 688x560: H.264 beside MPEG-4, CPU", recording(Path(folder)), "ms")
    with camera() as (url, _):
        show("RTSP: open to first frame, wall", first_frames(url), "s")
        late = lags(url)
    show("RTSP: the camera dies to the failed read, wall", noticing(), "ms")
    print(f"RTSP: PyAV has a frame later than OpenCV by {statistics.median(late):+.2f} ms (median, n={len(late)})")


if __name__ == "__main__":
    script(main)
