"""A cold start: a fresh process, from its beginning to its first prediction; what memory that took.

Files are as the machine has them: in its cache after the first process, as after a restart of a service; not as after a
boot.
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
TIMEOUT = 600.0  # seconds for one: an engine may compile


@dataclass(frozen=True)
class ColdStart:
    """Medians over ``times`` processes.

    Attributes:
        seconds: from the process's start to its first prediction.
        load: seconds of that for loading the artifact into the engine.
        first: seconds of that for the first prediction.
        peak_bytes: of resident memory by then (VmHWM); None where the system does not tell.
        device_bytes: of device memory by then, as far as all processes together use more; None where nothing tells.
        times: how many processes.
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
    """Start so many processes, one after the other.

    Args:
        artifact: path of what the engine opens.
        engine: as :func:`framecast.runtime.engines.open_engine` takes it.
        threads: likewise.
        size: (width, height) of the frame that is predicted from, which is black.
        times: how many, 1 or more.
        timeout: seconds for each.

    Raises:
        EngineError: a process ended, or was too slow, before it had predicted.
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
    """The most resident memory that a process has had so far, in bytes (VmHWM); None where the system does not tell.

    (psutil does not read it; ``getrusage`` would count what the parent had before the process was its own.)
    """
    try:
        status = (root / "proc" / ("self" if pid is None else str(pid)) / "status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _one(command: Sequence[str], timeout: float) -> ColdStart:
    before = device_memory()
    with tempfile.TemporaryFile("w+") as said:
        begun = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 (this Python, and a module of ours)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        )
        watchdog = threading.Timer(timeout, process.kill)
        watchdog.start()
        with process:
            assert process.stdout is not None  # noqa: S101 (asked for above)
            line = process.stdout.readline()  # once it has predicted; then it waits, so that its memory can be seen
            seconds = time.perf_counter() - begun
            watchdog.cancel()
            peak, after = peak_memory(process.pid), device_memory()
        said.seek(0)
        words = said.read().strip().splitlines()
    if not line:
        reason = words[-1] if words else f"exit code {process.returncode}"
        raise EngineError(f"a fresh process could not predict ({reason}): --cold-starts 0 leaves that out")
    told = json.loads(line)
    device = after - before if before is not None and after is not None else None
    return ColdStart(seconds, told["load"], told["first"], peak, device, 1)


def _main(artifact: str, engine: str, threads: str, width: str, height: str) -> None:
    """What the process does: predict one frame, say so, and wait until it is let go."""
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
