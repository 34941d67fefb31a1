"""Start-up time and memory of ``framecast run demo``, each time in a fresh process.

The time to the first prediction is an upper bound: the wall time of a process that predicts one frame and exits. Peak
memory (VmHWM) is measured over a whole clip at full speed, with and without recording and serving a page.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

from _machine import header, script

from framecast.bench.cold_start import peak_memory

ROUNDS = 7
FRAMECAST = [sys.executable, "-m", "framecast"]


def run(*arguments: str) -> tuple[float, float]:
    """Return the wall time in seconds and the peak resident memory in MB of one process."""
    begun = time.perf_counter()
    process = subprocess.Popen([*FRAMECAST, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, peak_memory(process.pid) or 0)
        time.sleep(0.005)
    if process.wait():
        raise SystemExit(f"framecast {' '.join(arguments)} failed")
    return time.perf_counter() - begun, peak / 2**20


def main() -> None:
    """Print the table."""
    print(header())
    first = [run("run", "demo", "--frames", "1")[0] for _ in range(ROUNDS)]
    print(f"\nprocess start to first prediction, at most: median {statistics.median(first):.2f} s,", end=" ")
    print(f"worst {max(first):.2f} s (n={ROUNDS})")
    with tempfile.TemporaryDirectory() as folder:
        cases = {
            "framecast run demo": ["run", "demo"],
            "… --horizon 5": ["run", "demo", "--horizon", "5"],
            "… --record demo.mp4 --serve": ["run", "demo", "--record", f"{folder}/x.mp4", "--serve", "127.0.0.1:0"],
        }
        for name, arguments in cases.items():
            print(f"peak memory of {name:28s} {max(run(*arguments)[1] for _ in range(3)):6.0f} MB (worst of 3)")


if __name__ == "__main__":
    script(main)
