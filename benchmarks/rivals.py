"""Compares all ways to predict the next frame: the authors' method, steps in PyTorch, and framecast's engines.

``python benchmarks/rivals.py [MODEL…] [--seconds S] [--jsonl FILE]``: the contestants of ``_cases.py`` alternate in
turns of a quarter of a second (at least five predictions) until each has run for S seconds. Ratios are computed turn by
turn, so that slow phases of the machine affect all of them alike.

First, each contestant is compared with the float32 step after 20 steps on real frames. "error" is relative to the
prediction. "of change" is relative to the frames' effect on it, which may be small with random weights. All float32
contestants must match before they are timed; rounded ones need not. Peak memory is that of a separate process,
including libraries and weights. ``--jsonl`` adds one entry per contestant to a file, from which ``report.py`` makes
tables.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _cases import BASELINE, CONTESTANTS, MODELS, THREADS, Ready, Unavailable, memory, note, prepare, set_up
from _machine import header, script

from framecast.bench.machine import Machine, busy, describe
from framecast.bench.results import number
from framecast.bench.steps import Series, called, measure
from framecast.bench.summary import ratio, summarize

LIBRARIES = ("torch", "onnxruntime", "openvino")
Entry = dict[str, Any]


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, choices=[*MODELS, MODELS], metavar="MODEL")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of samples per contestant (default: 5)")
    parser.add_argument("--jsonl", type=Path, help="add the entries to this file")
    args = parser.parse_args()
    print(header())
    if warning := busy(look()):  # check now, before our own work adds to the load
        # PyTorch's threads spin while they wait for each other, so other load slows it more than the others.
        print(f"\nWARNING   {warning}; ratios to PyTorch look too good")
    for model in args.models:
        run = provenance(look())
        entries = [{**entry, **run} for entry in compare(model, args.seconds)]
        if args.jsonl:  # before the table, because printing fails if the reader has closed the pipe
            args.jsonl.parent.mkdir(parents=True, exist_ok=True)
            with args.jsonl.open("a") as file:
                file.writelines(f"{json.dumps(entry)}\n" for entry in entries)
        show(model, entries)


def look() -> Machine:
    """Describe the machine as it is now, with the installed libraries."""
    return describe({library: version(library) for library in LIBRARIES if find_spec(library)})


def provenance(machine: Machine) -> Entry:
    """Return an entry's facts about its run. The date tells runs apart."""
    return {
        "commit": machine["commit"],
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['system']}",
        "versions": machine["versions"],
        "date": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        "load": machine["load"],
        "threads": THREADS,
    }


def compare(model: str, seconds: float) -> list[Entry]:
    """Measure all contestants of a model; return an entry for each, in the table's order."""
    with tempfile.TemporaryDirectory() as name:
        task = prepare(model, Path(name))
        ready: dict[str, Ready] = {}
        entries: dict[str, Entry] = {}
        for contestant in CONTESTANTS:
            entries[contestant] = {"model": model, "contestant": contestant, "note": note(model, contestant)}
            try:
                ready[contestant], errors = set_up(task, contestant)
                entries[contestant] |= errors
            except Unavailable as reason:
                entries[contestant]["not_run"] = str(reason)
        series = measure([called(name, one.predict, one.idle) for name, one in ready.items()], duration=seconds)
        measured = {one.name: one for one in series}
        for contestant, one in measured.items():
            entries[contestant] |= figures(one, measured.get(BASELINE))
        ready.clear()  # frees memory for the separate processes
        for contestant in measured:
            entries[contestant]["memory"] = memory(task, contestant)
    return list(entries.values())


def figures(series: Series, baseline: Series | None) -> Entry:
    """Summarize a contestant's samples, in milliseconds. The ratio is its speed over the baseline's."""
    summary = summarize(series.milliseconds)
    found: Entry = {
        "median": summary.median,
        "p99": None if 99.0 in summary.doubtful else summary.percentiles[99.0],
        "n": summary.n,
    }
    if baseline is not None:
        to_it = ratio(baseline.by_round(), series.by_round())
        found |= {"ratio": to_it.median, "low": to_it.low, "high": to_it.high, "rounds": to_it.rounds}
    return found


def show(model: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Print a model's table, and each contestant's note."""
    print(f"\n{model}: the next frame, {THREADS} threads, {entries[0].get('rounds', 0)} rounds")
    print(
        f"{'':31s} {'median ms':>9} {'p99':>7} {'n':>6}  {'times as fast':>13} {'95 % interval':>15}  "
        f"{'error':>7} {'of change':>9} {'peak MB':>8}"
    )
    for entry in entries:
        begin = f"{entry['contestant']:31s}"
        if "not_run" in entry:
            print(f"{begin} not run: {entry['not_run']}")
            continue
        p99 = "–" if entry["p99"] is None else number(entry["p99"])
        times, interval = "–", "–"
        if "ratio" in entry:
            times, interval = f"{entry['ratio']:.2f}", f"{entry['low']:.2f} … {entry['high']:.2f}"
        peak = "–" if entry["memory"] is None else f"{entry['memory'] / 1e6:.0f}"
        print(
            f"{begin} {number(entry['median']):>9} {p99:>7} {entry['n']:6d}  {times:>13} {interval:>15}  "
            f"{entry['error']:7.1e} {entry['error_of_change']:9.1e} {peak:>8}"
        )
    for entry in entries:
        print(f"  {entry['contestant']}: {entry['note']}")


if __name__ == "__main__":
    script(main)
