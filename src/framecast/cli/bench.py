"""``framecast bench``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from framecast.cli.checks import check_amounts, check_clips, check_ending, check_numbers, check_outputs
from framecast.cli.checks import duration as seconds_of
from framecast.cli.complete import complete_engines, complete_models
from framecast.cli.extras import needs_extra
from framecast.cli.model_ref import ModelRef
from framecast.cli.progress import progress
from framecast.cli.secret import address
from framecast.errors import OptionError

if TYPE_CHECKING:
    from framecast.bench.machine import Machine

ALL = "all"


def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Paths of artifacts, or names that 'framecast models' lists. all: every shipped model.",
            autocompletion=complete_models,
        ),
    ],
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:PRECISION],…",
            autocompletion=complete_engines,
            help="Engines to compare. all: every engine that works here (default: auto; with the model all, all).",
        ),
    ] = None,
    warmup: Annotated[
        float, typer.Option(metavar="MS", help="Run each case for MS milliseconds before it is measured.")
    ] = 200,
    duration: Annotated[float, typer.Option(metavar="S", help="Measure each case for at least S seconds.")] = 3.0,
    iterations: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Take at least N samples of each case (default: 10; with --single-stream, as many as p90 needs).",
        ),
    ] = None,
    percentiles: Annotated[str, typer.Option(metavar="P,…", help="Percentiles to print.")] = "50,90,95,99",
    threads: Annotated[int, typer.Option(metavar="N", help="CPU threads of a step. 0: one per core.")] = 0,
    source: Annotated[
        str,
        typer.Option(
            metavar="SOURCE", help="A clip to take the frames from, as for 'run'; with --stream also a camera."
        ),
    ] = "demo",
    ahead: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Predict this far ahead, such as 100ms or 0.1s (default: one frame)."),
    ] = None,
    single_stream: Annotated[
        bool,
        typer.Option(
            "--single-stream", help="MLPerf's single-stream scenario: one query after another, p90 at 99 % confidence."
        ),
    ] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Measure end to end, from when a frame is due until it is handed over.")
    ] = False,
    fps: Annotated[
        float | None,
        typer.Option(metavar="N", help="With --stream: play a clip at N fps (default: its own rate)."),
    ] = None,
    cameras: Annotated[
        bool, typer.Option("--cameras", help="With --stream: also find how many cameras this machine can serve.")
    ] = False,
    cold_starts: Annotated[
        int, typer.Option(metavar="N", help="Time the cold start in N new processes. 0: do not.")
    ] = 3,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a CSV row for each sample.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with tables and plots.")] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the plots as a picture.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables in Markdown.")] = False,
) -> None:
    """Measure the latency of a step and its picture.

    Models and engines alternate, so that other load on the machine affects all of them equally. docs/benchmarking.md
    explains the figures.
    """
    from framecast import terminal
    from framecast.bench.benchmark import Settings, benchmark
    from framecast.files import check_writable, write
    from framecast.runtime.engines import choose
    from framecast.runtime.report import to_json
    from framecast.tables import to_markdown

    source = address(source)
    settings: dict[str, Any] = {
        "source": source,
        "ahead": None if ahead is None else seconds_of("--ahead", ahead),
        "stream": stream,
        "fps": fps,
        "cameras": cameras,
        "single_stream": single_stream,
        "warmup": warmup / 1e3,
        "duration": duration,
        "iterations": iterations,
        "percentiles": _percentiles(percentiles),
        "cold_starts": cold_starts,
    }
    check_numbers(iterations=iterations)
    check_amounts(warmup=warmup, duration=duration, cold_starts=cold_starts)
    Settings(**settings)
    outputs = _check_outputs(models, source, json=json, csv=csv, html=html, png=png)
    for path in outputs:
        check_writable(path)
    check_clips(source)
    engines = (engine or (ALL if ALL in models else "auto")).split(",")
    for name in engines:
        if name != ALL:
            choose(name, threads)
    chosen = [model if model == ALL else ModelRef.resolve(model) for model in models]
    with progress() as show:
        found = benchmark(chosen, engines=engines, threads=threads, advance=show, **settings)
    typed = shlex.join(["framecast", *sys.argv[1:]])
    notes = [typed, *found.not_run, *found.warnings]
    if json is not None:
        write(json, f"{to_json({'command': sys.argv[1:], **found.to_dict()})}\n".encode())
    if csv is not None:
        write(csv, found.csv.encode())
    if html is not None or png is not None:
        from framecast.bench import page

        traces = found.traces()
        if html is not None:
            write(html, page.html(found.title, found.machine, found.tables, traces, notes).encode())
        if png is not None:
            write(png, page.picture(found.title, found.machine, traces, notes))
    for table in found.tables:
        if markdown:
            print(to_markdown(table))
        else:
            terminal.table(table.title, table.columns, table.rows)
    _print_machine(found.machine, typed, markdown)
    for line in (*found.not_run, *(f"wrote {path}" for path in outputs)):
        print(line)
    for line in found.warnings:
        print(f"warning: {line}", file=sys.stderr)


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        raise OptionError(f"--percentiles {text}: give numbers between 0 and 100, such as 50,90,95,99") from None


def _check_outputs(models: list[str], source: str, **outputs: Path | None) -> list[Path]:
    given = {name: path for name, path in outputs.items() if path is not None}
    for place in (*models, source):
        check_outputs(place, list(given.values()))
    for name, path in given.items():
        check_ending(f"--{name}", path, f".{name}")
    for name in given.keys() & {"html", "png"}:
        with needs_extra(f"--{name}", "eval"):
            import matplotlib  # noqa: F401 (fails here, before the work)
    return list(given.values())


def _print_machine(machine: Machine, typed: str, markdown: bool) -> None:
    from framecast.bench.machine import lines

    if markdown:
        described = "; ".join(value for label, value in lines(machine) if label != "load")
        print(f"*Measured by `{typed}`: {described}.*")
        return
    for label, value in (("command", typed), *lines(machine)):
        print(f"{label:9s} {value}")
