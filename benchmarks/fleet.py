"""A site of 10,000 cameras on model servers, some of which fail: simulated, with measured service times.

    python benchmarks/fleet.py --service benchmarks/results/server.json

The service times are those that benchmarks/server.py measured with one camera: from request to answer, through the
loopback device. A server has 16 workers, as with 16 instances of the Python backend on 16 cores: that they do not slow
each other down is assumed, not measured. The simulation itself (``bench/fleet.py``) adds no time of its own. There are
as many servers as the arithmetic asks for at 70 % load; then fewer, and with failures. It takes three minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

from _machine import header, script

from framecast.bench.fleet import Outcome, Site, simulate

LOAD = 0.7  # share of a server's time to plan for


def main() -> None:
    """Simulate, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", type=Path, required=True, help="the JSON that benchmarks/server.py wrote")
    parser.add_argument("--cameras", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    measured = json.loads(args.service.read_text())
    service = [1e-3 * ms for ms in measured["service_ms"]]
    mean = sum(service) / len(service)
    planned = math.ceil(args.cameras * args.fps * mean / LOAD / args.workers)
    print(header())
    print(f"service   {measured['model']}: {len(service)} measured answers, mean {1e3 * mean:.2f} ms")
    print(
        f"planned   {args.cameras} cameras x {args.fps:g} a second x {1e3 * mean:.2f} ms / {LOAD} / {args.workers} "
        f"workers = {planned} servers\n"
    )
    site = Site(args.cameras, planned, service, args.workers, args.fps, args.seconds, seed=args.seed)
    cases = {
        "planned": site,
        "a fifth fewer": replace(site, servers=max(1, round(0.8 * planned))),
        "two fifths fewer": replace(site, servers=max(1, round(0.6 * planned))),
        "one crashes": replace(site, failures=1),
        "one falls silent": replace(site, failures=1, silent=True),
        "ten crash": replace(site, failures=10),
        "ten crash, a fifth fewer": replace(site, failures=10, servers=max(1, round(0.8 * planned))),
    }
    for name, case in cases.items():
        begun = time.perf_counter()
        print(row(name, case, simulate(case)), f"[{time.perf_counter() - begun:.0f} s]", flush=True)


def row(name: str, site: Site, found: Outcome) -> str:
    """One line of the table."""
    return (
        f"{name:26s} {site.servers:3d} servers: {found.carried:6d} cameras carried; p50 {1e3 * found.p50:6.1f} ms, "
        f"p99 {1e3 * found.p99:6.1f} ms (n {found.answered}); dropped {found.dropped / found.frames:6.2%}, unanswered "
        f"{found.unanswered}, states lost {found.lost}, longest gap {found.longest:.2f} s, load {found.idlest:.0%} to "
        f"{found.busiest:.0%}"
    )


if __name__ == "__main__":
    script(main)
