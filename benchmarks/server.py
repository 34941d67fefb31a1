"""Cameras on a real Triton server on this machine: throughput, latency, bytes a frame, and what a kill -9 costs.

    make test-server
    python benchmarks/server.py [--model edge] [--seconds 15] --json benchmarks/results/server.json

The server is nvidia-pytriton's, with the Python backend on the CPU; all clients are threads of this process, each
camera with a connection of its own, on the same cores. Run nothing else meanwhile. Each camera's frames are due 10
times a second, not in step. Latency counts from when a frame is due to its prediction; a camera that is late takes its
newest frame and drops the others. Bytes are those that cross the loopback device, both ways, with all headers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
from _machine import header, script

from framecast.camera import Image, open_source
from framecast.files import write
from framecast.graph.repository import Serving, write_repository
from framecast.runtime.convert import to_model_size
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.server import ServerEngine
from framecast.runtime.shipped import find
from framecast.runtime.stepper import Stepper
from framecast.testing.triton import TritonServer

FPS = 10.0
COUNTS = (1, 4, 16, 64)
PICTURES = 100


@dataclass
class Camera:
    """What one camera saw: seconds each."""

    latencies: list[float] = field(default_factory=list)  # from due to answered
    services: list[float] = field(default_factory=list)  # from asked to answered
    answered: list[float] = field(default_factory=list)  # when
    dropped: int = 0


def watch(engine: ServerEngine, pictures: list[Image], begin: float, end: float, camera: Camera) -> None:
    """Play a camera from ``begin`` to ``end``."""
    stepper, due, i = Stepper(engine), begin, 0
    while due < end:
        if (now := time.monotonic()) < due:
            time.sleep(due - now)
        elif now - due >= 1 / FPS:  # a newer frame is there
            camera.dropped += 1
            due += 1 / FPS
            continue
        asked, unanswered = time.monotonic(), engine.unanswered
        stepper.advance([pictures[i % len(pictures)]], 1 / FPS)
        stepper.at([1 / FPS], 1 / FPS)
        done = time.monotonic()
        if engine.unanswered == unanswered:
            camera.latencies.append(done - due)
            camera.services.append(done - asked)
            camera.answered.append(done)
        due += 1 / FPS
        i += 1


def play(
    servers: list[TritonServer], model: str, count: int, seconds: float, pictures: list[Image], kill: bool = False
) -> tuple[str, list[Camera]]:
    """Run so many cameras; the figures as a line, and the cameras. With ``kill``, kill and restart the first server."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    with ExitStack() as stack:
        engines = [stack.enter_context(open_engine(find("edge"), f"server://{hosts}/{model}")) for _ in range(count)]
        cameras, begin = [Camera() for _ in engines], time.monotonic() + 0.5
        end = begin + seconds
        phases = np.random.default_rng(0).uniform(0, 1 / FPS, count)
        threads = [
            threading.Thread(target=watch, args=(engine, pictures, begin + phase, end, camera))
            for engine, phase, camera in zip(engines, phases, cameras, strict=True)
        ]
        before, cpu = psutil.net_io_counters(pernic=True)["lo"].bytes_sent, time.process_time()
        for thread in threads:
            thread.start()
        said = ""
        if kill:
            time.sleep(max(0.0, begin + seconds / 3 - time.monotonic()))
            killed = time.monotonic()
            servers[0].kill()
            servers[0].start()
            said = f"; killed, ready again after {time.monotonic() - killed:.1f} s"
        for thread in threads:
            thread.join()
        sent = psutil.net_io_counters(pernic=True)["lo"].bytes_sent - before
        cpu = time.process_time() - cpu
        if kill:
            gaps = [float(np.diff([begin, *camera.answered, end]).max()) for camera in cameras]
            lost = sum(engine.faults["states_lost"] for engine in engines)
            unanswered = sum(engine.faults["unanswered"] for engine in engines)
            ended = sum(not camera.answered or camera.answered[-1] < end - 1.0 for camera in cameras)
            said += (
                f"; states lost {lost}, frames without an answer {unanswered}, longest gap {max(gaps):.1f} s, cameras "
                f"that did not come back {ended}"
            )
    return figures(cameras, seconds, sent, cpu) + said, cameras


def figures(cameras: list[Camera], seconds: float, sent: int, cpu: float) -> str:
    """One line of the table."""
    latencies = np.array([latency for camera in cameras for latency in camera.latencies]) * 1e3
    if not len(latencies):
        return f"{len(cameras):3d} cameras: no answer"
    p50, p99 = np.percentile(latencies, [50, 99])
    worst = max(float(np.percentile(camera.latencies, 99)) * 1e3 for camera in cameras if camera.latencies)
    dropped = sum(camera.dropped for camera in cameras)
    return (
        f"{len(cameras):3d} cameras: {len(latencies) / seconds:6.1f} predictions a second; p50 {p50:6.1f} ms, p99 "
        f"{p99:6.1f} ms (n {len(latencies)}), worst camera's p99 {worst:6.1f} ms; dropped "
        f"{dropped / (dropped + len(latencies)):6.2%}; {sent / len(latencies) / 1e3:.1f} kB a frame; clients "
        f"{cpu / seconds:.2f} cores"
    )


def main() -> None:
    """Measure, print, and write the service times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="edge")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each run")
    parser.add_argument("--json", type=Path, help="write the service times of one camera, for benchmarks/fleet.py")
    args = parser.parse_args()
    print(header())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artifact = find(args.model)
        _, manifest = write_repository(artifact, folder / "repository", Serving("python", cameras=256))
        with open_source("demo") as source:
            pictures = [to_model_size(frame.image, manifest) for frame in islice(source, PICTURES)]
        with ExitStack() as stack:
            servers = []
            for number in range(2):
                (scratch := folder / f"server{number}").mkdir()
                servers.append(stack.enter_context(TritonServer(folder / "repository", scratch)))
            width, height = manifest.size
            print(f"server    Triton {manifest.config} {width}x{height}, Python backend, one instance, on the CPU\n")

            def measured(title: str, used: list[TritonServer], count: int, kill: bool = False) -> list[Camera]:
                line, cameras = play(used, artifact.stem, count, args.seconds, pictures, kill)
                print(f"{title:12s} {line}", flush=True)
                return cameras

            services = [s for camera in measured("one server", servers[:1], COUNTS[0]) for s in camera.services]
            for count in COUNTS[1:]:
                measured("one server", servers[:1], count)
            for count in COUNTS[2:]:
                measured("two servers", servers, count)
            measured("kill -9", servers[:1], 4, kill=True)
            measured("kill -9", servers, 4, kill=True)
    if args.json is not None:
        times = [round(1e3 * seconds, 3) for seconds in services]
        found = {"model": args.model, "size": [width, height], "fps": FPS, "service_ms": times}
        write(args.json, f"{json.dumps(found)}\n".encode())


if __name__ == "__main__":
    script(main)
