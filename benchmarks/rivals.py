"""The next frame, by everyone who can predict it: the authors' way, PyTorch's steps, and framecast's engines.

``python benchmarks/rivals.py [MODEL…] [--seconds S] [--jsonl FILE]``: the contestants of ``_cases.py`` take turns of a
quarter of a second (five predictions at least), until each has been measured for so many seconds; ratios are taken turn
by turn, so that the machine's moods fall on all of them alike.

Before that each is held to the float32 step after 20 steps of state on real frames: "error" is relative to the
prediction, "of change" to what the frames changed in it, which with random weights may be little. One that should be
the same and is not is not timed. Peak memory is that of a process that does nothing else, libraries and weights
included. With ``--jsonl`` an entry a contestant is added to a file, which ``report.py`` makes the README's tables of.
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
from _machine import header

from framecast.bench.machine import Machine, busy, describe
from framecast.bench.results import number
from framecast.bench.steps import Series, called, measure
from framecast.bench.summary import ratio, summarize

LIBRARIES = ("torch", "onnxruntime", "openvino")
Entry = dict[str, Any]


def main() -> None:
    """Print a table a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, choices=[*MODELS, MODELS], metavar="MODEL")
    parser.add_argument("--seconds", type=float, default=5.0, help="of samples of each contestant")
    parser.add_argument("--jsonl", type=Path, help="add the entries to this file")
    args = parser.parse_args()
    print(header())
    if warning := busy(look()):  # later on the load is our own
        # Threads of PyTorch wait for each other by spinning: it suffers more from what else runs than others do.
        print(f"\nWARNING   {warning}; ratios to PyTorch are flattered")
    for model in args.models:
        run = provenance(look())
        entries = [{**entry, **run} for entry in compare(model, args.seconds)]
        if args.jsonl:  # first: whoever reads the table may have gone
            args.jsonl.parent.mkdir(parents=True, exist_ok=True)
            with args.jsonl.open("a") as file:
                file.writelines(f"{json.dumps(entry)}\n" for entry in entries)
        show(model, entries)


def look() -> Machine:
    """The machine as it is now, with the libraries that are here."""
    return describe({library: version(library) for library in LIBRARIES if find_spec(library)})


def provenance(machine: Machine) -> Entry:
    """What an entry says of its run; the date tells runs apart."""
    return {
        "commit": machine["commit"],
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['system']}",
        "versions": machine["versions"],
        "date": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        "load": machine["load"],
        "threads": THREADS,
    }


def compare(model: str, seconds: float) -> list[Entry]:
    """Measure all contestants of a model; an entry each, in the table's order."""
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
        ready.clear()  # the machine's memory is theirs now
        for contestant in measured:
            entries[contestant]["memory"] = memory(task, contestant)
    return list(entries.values())


def figures(series: Series, baseline: Series | None) -> Entry:
    """Of a contestant's samples, in milliseconds; the ratio says how many times as fast as the baseline it is."""
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
    """Print a model's table, and what is equal and what is not."""
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
    main()
