"""The catalogue of faults: each is caused with real parts, and the table says what a run made of it.

A real RTSP server is killed, frozen, reset, started late and at another size; its network loses packets or is taken
away; the model gets a part of a core; disks fill; nobody reads; a signal ends a recording. Needs the packages of
``make system-deps``, and root for networks, disks and quotas: a row that this machine cannot cause says why.

    python benchmarks/faults.py [--quick] [CASE…]

It takes ten minutes, with --quick three. Run nothing else meanwhile. Exit code 1 if a case failed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import _faults_camera as camera
import _faults_load as load
import _faults_state as state
from _faults_parts import FaultError, Unavailable, row
from _machine import header, script

# Each case in full, and quickly.
CASES: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
    "killed": (lambda: camera.killed(32), lambda: camera.killed(4)),
    "frozen": (lambda: camera.frozen(15), lambda: camera.frozen(2)),
    "reset": (lambda: camera.reset(30), lambda: camera.reset(3)),
    "cable": (lambda: camera.cable(3, 10.0), lambda: camera.cable(1, 5.0)),
    "udp_loss": (lambda: camera.udp_loss(15.0), lambda: camera.udp_loss(5.0)),
    "late": (lambda: camera.late(5), lambda: camera.late(1)),
    "slow_model": (lambda: load.slow_model(15.0, 20), lambda: load.slow_model(6.0, 20)),
    "two_cameras": (lambda: state.two_cameras(150), lambda: state.two_cameras(50)),
    "not_finite": (lambda: state.not_finite(120), lambda: state.not_finite(30)),
    "disk": (lambda: load.disk(10.0), lambda: load.disk(3.0)),
    "viewers": (lambda: load.viewers(10.0), lambda: load.viewers(3.0)),
    "receivers": (lambda: load.receivers(10, 15.0), lambda: load.receivers(2, 8.0)),
    "ended": (lambda: load.ended(5), lambda: load.ended(1)),
}
# Rows of the catalogue that other commands fill.
ELSEWHERE = (
    ("USB unplug, stall, fatal error", "python benchmarks/guest.py (a V4L2 device in a QEMU guest)"),
    ("hang, crash, out of memory", "python benchmarks/guest.py (systemd in a QEMU guest)"),
    ("soak: slopes of RSS, descriptors, threads", "make soak"),
    ("tail latency from the scheduled time", "framecast bench --stream (docs/benchmarking.md)"),
    ("bad video, ONNX, engine", "make fuzz"),
)
# What each case does within a network namespace, or within the process with a quota.
INSIDE: dict[str, Callable[..., None]] = {
    "cable": lambda times, seconds: camera.cable_inside(int(times), float(seconds)),
    "udp_loss": lambda seconds: camera.udp_loss_inside(float(seconds)),
    "slow_model": lambda url, seconds, group: load.slow_model_inside(url, float(seconds), group),
}


def versions() -> str:
    """The versions of the injectors."""
    found = []
    for tool, flag in (("ffmpeg", "-version"), ("gst-launch-1.0", "--version"), ("iptables-legacy", "--version")):
        if shutil.which(tool):
            said = subprocess.run([tool, flag], capture_output=True, text=True, check=False).stdout
            found.append(" ".join(said.splitlines()[0].split()[:3]))
    return ", ".join(found)


def run_case(name: str, *, quick: bool) -> bool:
    """Run a case, which prints its rows. Returns whether it went well, or cannot be run here."""
    try:
        CASES[name][quick]()
    except Unavailable as reason:
        row(name, f"not run: {reason}")
    except (FaultError, OSError, subprocess.SubprocessError) as error:
        row(name, f"FAILED: {error}")
        return False
    return True


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="few repetitions: to see that all of it runs")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        name, *rest = arguments.inside
        INSIDE[name](*rest)
        return
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}: choose from {', '.join(CASES)}")
    print(header(), flush=True)
    print(f"injectors {versions()}\n", flush=True)
    begun = time.monotonic()
    done = [run_case(name, quick=arguments.quick) for name in arguments.cases or CASES]
    if not arguments.cases:
        print()
        for fault, command in ELSEWHERE:
            row(fault, command)
        print(f"\n{time.monotonic() - begun:.0f} s")
    sys.exit(0 if all(done) else 1)


if __name__ == "__main__":
    script(main)
