"""What the command line shows in a terminal: the status line, the summary, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from framecast.runtime.report import Report


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; cells are text as it is, no markup."""
    printed = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        printed.add_column(column, overflow="fold", no_wrap=index == 0)
    for row in rows:
        printed.add_row(*map(Text, row))
    Console().print(printed)


@contextmanager
def status_line() -> Iterator[Callable[[Report], None]]:
    """Yield what shows a report on one line of the terminal, or does nothing where there is none."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda report: None
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda report: live.update(_line(report), refresh=True)


def _line(report: Report) -> Text:
    latency, fps = report["latency_ms"], report["fps"] or 0
    text = f"{_score(report)}  {fps:.1f} fps"
    if latency["p50"] is not None:
        text += f"  p50 {latency['p50']:.1f} ms  p99 {latency['p99']:.1f} ms"
    text += f"  {report['frames']} frames, {report['dropped']} dropped  {report['source']}"
    return Text(text, no_wrap=True, overflow="ellipsis")  # the score first: a narrow terminal cuts the end


def _score(report: Report) -> str:
    """The score in words."""
    psnr = report["psnr_db"]
    if psnr["prediction"] is None or psnr["copy_last"] is None:
        return "not scored yet"
    gain = psnr["prediction"] - psnr["copy_last"]
    return f"predicted {psnr['prediction']:.2f} dB, copying {psnr['copy_last']:.2f} dB ({gain:+.2f})"


def summary(report: Report, outputs: Iterable[Path]) -> None:
    """Print what a run came to, and what it left."""
    latency, engine = report["latency_ms"], report["engine"]
    random = "  (random weights: no quality claimed)" if report["weights"] == "random" else ""
    ahead = "next frame" if report["horizon"] == 1 else f"{report['horizon']} frames ahead"
    rows = [
        ("source", report["source"]),
        ("model", report["model"] + random),
        ("engine", f"{engine} {report['versions'][engine]}, {report['precision']}"),
        ("frames", f"{report['frames']} predicted, {report['dropped']} dropped, {report['epochs']} stream(s)"),
        ("score", f"{ahead}: {_score(report)}  (n={report['psnr_db']['n']})"),
    ]
    if report["resets"]:
        rows.append(("resets", f"{report['resets']} after predictions that were not finite"))
    if latency["p50"] is not None:
        figures = (
            f"p50 {latency['p50']:.1f}  p90 {latency['p90']:.1f}  p99 {latency['p99']:.1f}  max {latency['max']:.1f} ms"
        )
        rows += [("speed", f"{report['fps']} fps"), ("latency", f"{figures}  (n={latency['n']})")]
        if latency["p50"] > report["ahead_ms"]:
            what = f"a prediction takes {latency['p50']:.0f} ms, and looks only {report['ahead_ms']:.0f} ms ahead"
            rows.append(("too slow", f"{what}: its moment is past by then (a smaller horizon or model, or a GPU)"))
    rows.append(("ended", report["ended"] or "before the first frame"))
    rows += [("written", str(p)) if p.exists() else ("not written", f"{p}  (nothing was scored)") for p in outputs]
    printed = Table(title="framecast", show_header=False, title_justify="left")
    for row in rows:
        printed.add_row(*map(Text, row))
    Console().print(printed)
