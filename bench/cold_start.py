"""Cold start: the time from the start of a fresh process to its first prediction, and the memory that it used.

From the second process on, the files are in the machine's cache. So the medians describe the restart of a service, not
a boot.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from framecast.bench.power import device_memory
from framecast.errors import EngineError

TIMES = 3
TIMEOUT = 600.0  # seconds for one process: an engine may compile


@dataclass(frozen=True)
class ColdStart:
    """Medians over ``times`` processes.

    Attributes:
        seconds: from the process's start to its first prediction.
        load: the part of ``seconds`` that loads the artifact into the engine.
        first: the part of ``seconds`` that makes the first prediction.
        peak_bytes: peak resident memory up to then (VmHWM); None if the system does not report it.
        device_bytes: growth of the device memory in use by all processes up to then; None if nothing reports it.
        times: number of processes.
    """

    seconds: float
    load: float
    first: float
    peak_bytes: int | None
    device_bytes: int | None
    times: int


def cold_start(
    artifact: Path, engine: str, threads: int, size: tuple[int, int], times: int = TIMES, timeout: float = TIMEOUT
) -> ColdStart:
    """Start several processes, one after the other, and return the medians.

    Args:
        artifact: path of the file that the engine opens.
        engine: as for :func:`framecast.runtime.engines.open_engine`.
        threads: as for :func:`framecast.runtime.engines.open_engine`.
        size: (width, height) of the black input frame.
        times: number of processes, 1 or more.
        timeout: seconds for each process.

    Raises:
        EngineError: a process ended before it predicted, or took too long.
    """
    command = [sys.executable, "-m", __name__, str(artifact), engine, str(threads), *map(str, size)]
    found = [_one(command, timeout) for _ in range(times)]

    def median(values: Sequence[float | int | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    peak, device = median([one.peak_bytes for one in found]), median([one.device_bytes for one in found])
    return ColdStart(
        seconds=statistics.median(one.seconds for one in found),
        load=statistics.median(one.load for one in found),
        first=statistics.median(one.first for one in found),
        peak_bytes=None if peak is None else int(peak),
        device_bytes=None if device is None else int(device),
        times=times,
    )


def peak_memory(pid: int | None = None, root: Path = Path("/")) -> int | None:
    """Return a process's peak resident memory so far, in bytes (VmHWM); None if the system does not report it.

    psutil does not read this value. ``getrusage`` would also count the parent's memory from before the exec.
    """
    try:
        status = (root / "proc" / ("self" if pid is None else str(pid)) / "status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _one(command: Sequence[str], timeout: float) -> ColdStart:
    before = device_memory()
    with tempfile.TemporaryFile("w+") as errors:
        begun = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 (this Python, and a module of ours)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        watchdog = threading.Timer(timeout, process.kill)
        watchdog.start()
        with process:
            assert process.stdout is not None  # noqa: S101 (it is a pipe, see above)
            line = process.stdout.readline()  # printed after the prediction; the process then waits to be measured
            seconds = time.perf_counter() - begun
            watchdog.cancel()
            peak, after = peak_memory(process.pid), device_memory()
        errors.seek(0)
        words = errors.read().strip().splitlines()
    if not line:
        reason = words[-1] if words else f"exit code {process.returncode}"
        raise EngineError(f"cannot predict in a fresh process: {reason}; --cold-starts 0 skips this measurement")
    times_of = json.loads(line)
    device = after - before if before is not None and after is not None else None
    return ColdStart(seconds, times_of["load"], times_of["first"], peak, device, 1)


def _main(artifact: str, engine: str, threads: str, width: str, height: str) -> None:
    """Run in the fresh process: predict one frame, print the times, and wait for the parent to close the input."""
    import numpy as np

    from framecast.bench.steps import live_step
    from framecast.runtime.engines import open_engine
    from framecast.runtime.shipped import find

    begun = time.perf_counter()
    opened = open_engine(find(artifact), engine, threads=int(threads))
    case = live_step("", opened, [np.zeros((int(height), int(width), 3), np.uint8)])
    loaded = time.perf_counter()
    case.iterate()
    first = time.perf_counter() - loaded
    print(json.dumps({"load": loaded - begun, "first": first}), flush=True)  # noqa: T201 (its parent reads it)
    sys.stdin.read()


if __name__ == "__main__":
    _main(*sys.argv[1:])
