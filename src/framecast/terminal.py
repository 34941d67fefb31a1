"""The command line's output in a terminal: the status line, the summary, tables."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from framecast.runtime.fleet_report import FleetReport, several
from framecast.runtime.report import Report
from framecast.runtime.sinks.sink import STDOUT, Output
from framecast.tables import number

WIDTH = 100  # columns, if the output is not a terminal
WORD = 24  # characters: a longer name or path may be split
MORE = " (more)"
SINCE = {"capture": "the driver's stamp", "arrival": "its arrival", "file": "its time in the file"}
EVENTS = {  # what the summary names, if it happened
    "repeats": "repeat",
    "cuts": "cut",
    "gaps": "gap",
    "reconnects": "reconnection",
    "damaged": "damaged picture",
    "concealed": "concealed frame",
}
ENOUGH_DIS = 10  # show DIS flow's score from this many predictions on
JOINED = "\ue000"  # stands for a space that must not break; as wide as a space
_FIGURE = re.compile(r"\W*(\d|$)")  # a cell that begins like this stays on one line


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. Cells are plain text, without markup.

    A figure is never split over two lines. In a narrow terminal the headings wrap first, then text, then the names in
    the first column. Columns that still do not fit go into a second table, which repeats the names. A file or a pipe
    counts as a terminal of 100 columns, unless ``COLUMNS`` is set.
    """
    console, rows, left = Console(), list(rows), list(range(1, len(columns)))
    room = console.width if console.is_terminal or os.environ.get("COLUMNS") else WIDTH
    while left:
        for count in range(len(left), 0, -1):
            shown = (0, *left[:count])
            heads, cells = [columns[i] for i in shown], [[row[i] for i in shown] for row in rows]
            widths = _widths(heads, cells, room - 3 * len(shown) - 1)
            needed = sum(widths) + 3 * len(shown) + 1  # plus the rules, and a space on either side of each cell
            if needed <= room:
                break
        printed = Table(title=title, title_justify="left", show_header=any(heads))
        for head, width in zip(heads, widths, strict=True):
            printed.add_column(head, width=width, overflow="fold")
        for row in cells:
            printed.add_row(*(Text(_folded(cell, width)) for cell, width in zip(row, widths, strict=True)))
        Console(width=needed).print(printed)
        left, title = left[count:], f"{title.removesuffix(MORE)}{MORE}"


def _widths(heads: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """The widths of the columns in characters. They add up to at most ``room``, unless that would split a figure."""
    columns = [[row[i] for row in rows] for i in range(len(heads))]
    whole = [_longest(column) for column in columns]
    loose = [
        whole[i]
        if all(map(_FIGURE.match, column))
        else min(WORD, _longest(word for cell in column for word in cell.split()))
        for i, column in enumerate(columns)
    ]
    for cells in (whole, [whole[0], *loose[1:]], loose):
        widths = [max(cell_len(head), width) for head, width in zip(heads, whole, strict=True)]
        least = [max(_longest(head.split()), width) for head, width in zip(heads, cells, strict=True)]
        while sum(widths) > room and widths != least:
            widths[max(range(len(widths)), key=lambda i: widths[i] - least[i])] -= 1
        if sum(widths) <= room:
            break
    return widths


def _longest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _folded(text: str, width: int) -> str:
    """Wrap a text at double spaces, so that "p50 22.1" stays together; between words if that is not narrow enough."""
    together = re.sub(r"(?<=\S) (?=\S)", JOINED, text)
    text = together if _longest(together.split()) <= width else text
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False)).replace(JOINED, " ")


@contextmanager
def status_line() -> Iterator[Callable[[Report | FleetReport], None]]:
    """Yield a function that shows a report on the terminal, a line for each camera. It does nothing without one.

    A terminal that is closed meanwhile is no error.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda report: None
        return
    live = Live(console=console, auto_refresh=False, transient=True)

    def show(report: Report | FleetReport) -> None:
        if not several(report):
            lines = [_line(report)]
        else:
            lines = [Text(f"{name}: ").append_text(_line(one)) for name, one in report["cameras"].items()]
        with suppress(OSError):
            live.update(Text("\n", no_wrap=True, overflow="ellipsis").join(lines), refresh=True)

    with suppress(OSError):
        live.start()
    try:
        yield show
    finally:
        with suppress(OSError):
            live.stop()


def _line(report: Report) -> Text:
    latency, fps = report["latency_ms"], report["fps"] or 0
    text = f"{_now(report) or _score(report)}  {fps:.1f} fps"
    if latency["p50"] is not None:
        text += f"  p50 {latency['p50']:.1f} ms  p99 {latency['p99']:.1f} ms"
    text += f"  {report['frames']} frames, {report['dropped']} dropped  {report['source']}"
    line = Text(text, no_wrap=True, overflow="ellipsis")  # the score is first, because a narrow terminal cuts the end
    for warning in report["warnings"]:
        line.append(f"\nwarning: {warning}", style="yellow")
    return line


def _score(report: Report) -> str:
    """The score in words."""
    psnr = report["psnr_db"]
    if psnr["prediction"] is None or psnr["copy_last"] is None:
        return "not scored yet"
    gain = number(psnr["prediction"] - psnr["copy_last"], "+.2f") if psnr["trusted"] else "too few to compare"
    return f"predicted {psnr['prediction']:.2f} dB, copying {psnr['copy_last']:.2f} dB ({gain})"


def _now(report: Report) -> str | None:
    """The shown moment and its quality in words; None without ``--now``."""
    now, psnr = report["now"], report["psnr_db"]
    if now is None:
        return None
    shown = f"shown: now {number(now['error'], '+.0f')} ms (p50), ±{now['spread']:.0f} ms (p95)"
    if psnr["prediction"] is None:
        return shown
    return f"{shown}; frame of now: {psnr['prediction']:.1f} dB, late picture: {psnr['copy_last']:.1f} dB"


def _pace(interval: float | None) -> str:
    """The time between two frames in words; it is in milliseconds."""
    return "frames at an unknown rate" if interval is None else f"a frame every {interval:.1f} ms"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _written(output: Output) -> tuple[str, str]:
    """A row of the summary: where pictures went."""
    to, asked = output["to"], output["asked"]
    sent = "://" in asked or asked == STDOUT
    if not output["files"]:
        why = "nothing was predicted or scored" if output["trouble"] is None else "see the warning"
        return ("not sent" if sent else "not written"), f"{to}  ({why})"
    notes = [output["codec"]] if output["codec"] else []
    if not sent and not Path(to).exists():
        return "not written", f"{to}  (it was removed or renamed)"
    if sent and output["files"] > 1:
        notes.append(_many(output["files"], "connection"))
    elif output["files"] > 1 and output["lost"]:
        notes.append(f"the last of {output['files']} files")
    elif output["files"] > 1:
        notes.append(f"the last of {output['files']} segments")
    elif to != asked and Path(asked).exists():
        notes.append(f"{asked} was there already")
    if output["removed"]:
        notes.append(f"{_many(output['removed'], 'old segment')} removed")
    if output["lost"]:
        notes.append(f"{_many(output['missed'], 'picture')} missing")
    return ("sent" if sent else "written"), f"{to}  ({'; '.join(notes)})" if notes else to


def summary(report: Report | FleetReport, files: Mapping[Path, bool]) -> None:
    """Print a run's final figures, where its pictures went, and its further files: a table for each of its cameras.

    Args:
        report: of the run.
        files: its further files, and whether each was written. An earlier run's file may be there even if not.
    """
    written = [("written" if whole else "not written", str(path)) for path, whole in files.items()]
    if not several(report):
        table("framecast", ("", ""), [*_rows(report), *written])
        return
    for name, one in report["cameras"].items():
        table(name, ("", ""), _rows(one))
    total = report["total"]
    shared = (
        f"one {total['engine']} for all" if total["engines"] == 1 else f"{total['engines']} times {total['engine']}"
    )
    rows = [("model", total["model"]), ("engine", shared)]
    if total["batches"]:
        rows.append(("steps", ", ".join(f"{count} of {size}" for size, count in total["batches"].items())))
    rows += [
        ("frames", f"{total['frames']} predicted, {total['dropped']} dropped"),
        ("speed", f"{total['fps']} fps"),
        ("ended", total["ended"] or "before the first frame"),
        *[("failed", f"{name}: {reason}") for name, reason in total["failed"].items()],
        *written,
    ]
    table(total["source"], ("", ""), rows)


def _rows(report: Report) -> list[tuple[str, str]]:
    latency, engine, now, psnr = report["latency_ms"], report["engine"], report["now"], report["psnr_db"]
    random = "  (random weights: no quality claimed)" if report["weights"] == "random" else ""
    scored = [f"{score['ahead_ms']:.0f}" for score in report["psnr_db_by_ahead"]]
    ahead = f"{' to '.join(dict.fromkeys((scored[0], scored[-1])))} ms ahead: " if scored else ""
    rows = [
        ("source", f"{report['source']}, {_pace(report['interval_ms'])}"),
        ("model", report["model"] + random),
        ("engine", f"{engine} {report['versions'][engine]}, {report['precision']}"),
        ("frames", f"{report['frames']} predicted, {report['dropped']} dropped, {_many(report['epochs'], 'stream')}"),
        ("score", f"{ahead}{_score(report)}  (n={psnr['n']})"),
    ]
    if (dis := psnr["dis"]) is not None and dis["n"] >= ENOUGH_DIS:
        rows.append(
            ("", f"where DIS flow was tried: {dis['prediction']:.2f} dB, DIS {dis['dis_flow']:.2f}  (n={dis['n']})")
        )
    if (sharp := report["sharpness"]) is not None:
        rows.append(("sharpness", f"{sharp['prediction']:.2f} of the real frames'"))
    if (shown := _now(report)) is not None and now is not None:
        since = f"the time since {SINCE[report['times']]}, plus the delays you gave"
        late = f"the camera's picture is {number(now['late'], '.0f')} ms old when it is shown: {since}"
        rows += [("now", shown), ("late", late)]
    events = report["events"]
    named = [_many(events[kind], word) for kind, word in EVENTS.items() if events.get(kind)]
    if named or events.get("copied"):
        copies = (
            [f"{_many(events['copied'], 'prediction')} replaced by the late picture, which had lately scored better"]
            if events["copied"]
            else []
        )
        rows.append(("stream", ", ".join([*named, *copies])))
    if (out := report["outages"])["count"]:
        longest = f", the longest {out['longest_s']:.1f} s" if out["count"] > 1 else ""
        rows.append(("outages", f"{out['count']}, {out['total_s']:.1f} s in all{longest}"))
    if report["resets"]:
        rows.append(("resets", f"{report['resets']} after predictions that were not finite"))
    if latency["p50"] is not None:
        figures = (
            f"p50 {latency['p50']:.1f}  p90 {latency['p90']:.1f}  p99 {latency['p99']:.1f}  max {latency['max']:.1f} ms"
        )
        rows += [("speed", f"{report['fps']} fps"), ("latency", f"{figures}  (n={latency['n']})")]
    rows += [("note", note) for note in report["source_notes"]]
    rows += [("warning", warning) for warning in report["warnings"]]
    rows.append(("ended", report["ended"] or "before the first frame"))
    return [*rows, *(_written(output) for output in report["outputs"])]
