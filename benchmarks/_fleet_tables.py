"""The tables of docs/fleet.md and docs/cameras.md, from what server.py, fleet.py, cameras.py and isolation.py print.

Until a benchmark has run, its table says so.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
Cells = list[list[str]]  # rows, the header first
LOAD, FPS = 0.7, 10  # of the arithmetic in docs/fleet.md

_MS = r"([\d.]+) ms"
_RUN = re.compile(
    rf"^(one server|two servers|kill -9) +(\d+) cameras: +([\d.]+) predictions a second; p50 +{_MS}, p99 +{_MS} "
    rf"\(n \d+\), worst camera's p99 +{_MS}; dropped +([\d.]+%); ([\d.]+) kB a frame; clients [\d.]+ cores(.*)$",
    re.MULTILINE,
)
_KILLED = re.compile(
    r"ready again after ([\d.]+) s; states lost (\d+), frames without an answer (\d+), longest gap ([\d.]+) s, cameras "
    r"that did not come back (\d+)"
)
_SITE = re.compile(
    rf"^(\S.*?) +(\d+) servers: +(\d+) cameras carried; p50 +{_MS}, p99 +{_MS} \(n \d+\); dropped +([\d.]+%), "
    r"unanswered (\d+), states lost (\d+), longest gap ([\d.]+) s, load (\d+% to \d+%)",
    re.MULTILINE,
)


def cells(name: str, header: list[str], rows: Cells) -> Cells:
    """A table; without rows it says which file is missing.

    Raises:
        ValueError: the file is there, but has no such rows.
    """
    if rows:
        return [header, *rows]
    if (RESULTS / name).exists():
        raise ValueError(f"no rows in benchmarks/results/{name}: its format has changed")
    return [header, ["not measured yet", *[""] * (len(header) - 1)]]


def text(name: str) -> str:
    """A result's text; "" if the benchmark has not run."""
    path = RESULTS / name
    return path.read_text() if path.exists() else ""


def served() -> Cells:
    """Cameras on one server and on two: throughput and latency."""
    header = ["servers", "cameras", "predictions a second", "p50, ms", "p99, ms", "worst camera's p99, ms", "dropped"]
    found = [run for run in _RUN.findall(text("server.txt")) if run[0] != "kill -9"]
    return cells("server.txt", [*header, "kB a frame"], [[run[0].split()[0], *run[1:8]] for run in found])


def killed() -> Cells:
    """What a kill -9 of one server costs four cameras, without and with a second one."""
    header = ["servers", "ready again, s", "states lost", "frames unanswered", "longest gap, s", "cameras lost"]
    found = [_KILLED.search(run[8]) for run in _RUN.findall(text("server.txt")) if run[0] == "kill -9"]
    rows = [[servers, *one.groups()] for servers, one in zip(("one", "two"), found, strict=False) if one]
    return cells("server.txt", header, rows)


def sizing() -> Cells:
    """The arithmetic of steps, with the measured time of an answer."""
    header = ["model", "answers", "ms an answer", "answers a second", f"cameras at {FPS} fps and {LOAD:.0%} load"]
    rows = []
    if found := text("server.json"):
        measured = json.loads(found)
        times = measured["service_ms"]
        mean = sum(times) / len(times)
        cameras = math.floor(LOAD / (1e-3 * mean * FPS))
        rows = [[f"`{measured['model']}`", f"{len(times)}", f"{mean:.1f}", f"{1e3 / mean:.0f}", f"{cameras}"]]
    return cells("server.json", header, rows)


def site() -> Cells:
    """The simulated site of 10,000 cameras."""
    header = ["case", "servers", "carried", "p50, ms", "p99, ms", "dropped", "unanswered", "states lost"]
    rows = [list(found) for found in _SITE.findall(text("fleet.txt"))]
    return cells("fleet.txt", [*header, "longest gap, s", "load"], rows)


def of_model(file: str, model: str) -> Cells:
    """A model's table in the output of cameras.py or isolation.py."""
    part = text(file).partition(f"## {model}\n")[2].partition("\n## ")[0]
    lines = [line.split(" | ") for line in re.findall(r"^\| (.*) \|$", part, re.MULTILINE)]
    return cells(file, lines[0] if lines else [file], lines[2:])
