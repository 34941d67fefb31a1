"""Tables of rivals, as Markdown: ``python benchmarks/report.py [FILE.jsonl] [MODEL…]``.

It reads the output of ``rivals.py --jsonl`` and shows the last run of each model, because ratios hold only within a
run. The same file gives the same text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framecast.bench.results import number
from framecast.tables import Table, to_markdown

RESULTS = Path(__file__).parent / "results" / "rivals.jsonl"
COLUMNS = ("", "median, ms", "p99, ms", "n", "times as fast", "95 % interval", "error", "of change", "peak, MB")
Entry = Mapping[str, Any]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="models to show (default: all in the file)")
    args = parser.parse_args()
    if not args.file.is_file():
        print(f"no file {args.file}: make it with 'python benchmarks/rivals.py --jsonl {args.file}'")
        return
    print(report([json.loads(line) for line in args.file.read_text().splitlines()], args.models), end="")


def report(entries: Sequence[Entry], models: Sequence[str] = ()) -> str:
    """Return a table, its notes and its provenance for each model, in the order of their first entries."""
    parts = []
    for model in models or dict.fromkeys(entry["model"] for entry in entries):
        of_model = [entry for entry in entries if entry["model"] == model]
        run = [entry for entry in of_model if entry["date"] == of_model[-1]["date"]]
        parts.append("\n".join((to_markdown(table(model, run)), *notes(run), "", provenance(run[0]))))
    return "\n\n".join(parts) + "\n"


def table(model: str, run: Sequence[Entry]) -> Table:
    """Return a table with a row per contestant that was measured."""
    rows = [
        (
            entry["contestant"],
            number(entry["median"]),
            _text(entry["p99"], number),
            str(entry["n"]),
            _text(entry.get("ratio"), "{:.2f}".format),
            f"{entry['low']:.2f} … {entry['high']:.2f}" if "ratio" in entry else "–",
            f"{entry['error']:.1e}",
            f"{entry['error_of_change']:.1e}",
            _text(entry["memory"], lambda size: f"{size / 1e6:.0f}"),
        )
        for entry in run
        if "not_run" not in entry
    ]
    return Table(f"**{model}**, the next frame, {run[0]['threads']} threads", COLUMNS, rows)


def notes(run: Sequence[Entry]) -> list[str]:
    """Return a line for each contestant: its note and, if it was not run, the reason."""
    return [
        f"- {entry['contestant']}: {entry['note']}" + (f"; not run: {entry['not_run']}" if "not_run" in entry else "")
        for entry in run
    ]


def provenance(entry: Entry) -> str:
    """Return the machine, the commit, the date and the versions of a run."""
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    load = "" if entry["load"] is None else f"; load {entry['load']:.2f} before the measurement began"
    return f"*{entry['machine']}; commit {entry['commit'] or 'unknown'}; {entry['date']}{load}; {versions}.*"


def _text(value: float | None, form: Any) -> str:
    return "–" if value is None else form(value)


if __name__ == "__main__":
    main()
