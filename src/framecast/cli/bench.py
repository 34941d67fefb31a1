"""``framecast bench``."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framecast.cli.shared import artifact, check_clips, check_models, check_numbers, check_outputs, needs_extra
from framecast.errors import ArtifactError, EngineError, OptionError

if TYPE_CHECKING:
    from framecast.bench.benchmark import Opened
    from framecast.bench.machine import Machine

ALL = "all"
ITERATIONS = 10


def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar=f"MODEL…|{ALL}", help=f"Artifacts' paths or names (framecast models); {ALL}: those that ship."
        ),
    ],
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:PRECISION],…", help=f"What runs the step; several are compared. {ALL}: all there are here."
        ),
    ] = None,
    warmup: Annotated[float, typer.Option(metavar="MS", help="Before anything is measured, each.")] = 200,
    duration: Annotated[float, typer.Option(metavar="S", help="Measure each for so long at least.")] = 3.0,
    iterations: Annotated[
        int | None,
        typer.Option(help=f"Measure each so often at least; {ITERATIONS}, and in a single stream what p90 needs."),
    ] = None,
    percentiles: Annotated[str, typer.Option(metavar="P,…", help="Which to give.")] = "50,90,95,99",
    threads: Annotated[int, typer.Option(help="CPU threads of the step; 0: one a core.")] = 0,
    source: Annotated[str, typer.Option(help="Where the frames come from: a clip, as for run.")] = "demo",
    single_stream: Annotated[
        bool, typer.Option("--single-stream", help="MLPerf's scenario: one after the other, p90 with 99 % confidence.")
    ] = False,
    stream: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="End to end instead: from when a frame was due to its hand-over."),
    ] = None,
    fps: Annotated[float | None, typer.Option(help="With --stream: a clip's frames a second; its own without.")] = None,
    cameras: Annotated[
        bool, typer.Option("--cameras", help="With --stream: how many cameras this machine carries as well.")
    ] = False,
    cold_starts: Annotated[int, typer.Option(help="Fresh processes for the cold start; 0 leaves it out.")] = 3,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE.json|.csv", help="Write everything, or a row a sample.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html|.png", help="Write a page or a picture: histogram, timeline.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables for a README.")] = False,
) -> None:
    """Measure what a step costs, in the manner of trtexec; several models and engines take turns and are compared."""
    from framecast import terminal
    from framecast.bench import benchmark as command
    from framecast.bench.machine import busy, describe, load
    from framecast.files import check_writable, write
    from framecast.runtime.report import to_json
    from framecast.tables import to_markdown

    wanted = _percentiles(percentiles)
    _check(warmup, duration, iterations, cold_starts)
    _check_modes(single_stream, stream, fps, cameras, duration)
    outputs = [path for path in (export, report) if path is not None]
    for place in (*models, source if stream is None else stream):
        check_outputs(place, outputs)
    _check_suffixes(export, report)
    for path in outputs:
        check_writable(path)
    check_clips(source if stream is None else stream)
    before = load()
    with ExitStack() as stack:
        opened, missing = _open(stack, models, engine, threads)
        machine = describe({one.engine.name: one.engine.version for one in opened})
        machine["load"] = before  # an export is work too
        if stream is not None:
            said = command.stream(opened, stream, fps=fps, seconds=duration, percentiles=wanted, cameras=cameras)
        else:
            with _progress() as advance:
                said = command.steps(
                    opened,
                    command.Settings(wanted, warmup / 1e3, duration, iterations, source, cold_starts, single_stream),
                    advance,
                )
    warnings = [*filter(None, [busy(machine)]), *said.warnings]
    typed = shlex.join(["framecast", *sys.argv[1:]])
    told = {"command": sys.argv[1:], "machine": machine, "not_run": missing, "warnings": warnings, **said.figures}
    if export is not None:
        write(export, (said.csv if export.suffix.lower() == ".csv" else f"{to_json(told)}\n").encode())
    if report is not None:
        from framecast.bench.page import write_report

        write_report(report, said.title, machine, said.tables, said.traces(), [typed, *missing, *warnings])
    for table in said.tables:
        if markdown:
            print(to_markdown(table))
        else:
            terminal.table(table.title, table.columns, table.rows)
    _print_machine(machine, typed, markdown)
    for line in (*missing, *(f"wrote {path}" for path in outputs)):
        print(line)
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)


def _open(stack: ExitStack, models: Sequence[str], engines: str | None, threads: int) -> tuple[list[Opened], list[str]]:
    """Every model in every engine, opened until the stack is left; and what could not be, where none was named."""
    from framecast.bench.benchmark import Opened
    from framecast.runtime.engines import ENGINES, choose, open_engine
    from framecast.runtime.shipped import find, shipped

    names = list(dict.fromkeys(shipped() if ALL in models else models))
    every = engines == ALL or (engines is None and ALL in models)
    asked = list(dict.fromkeys(ENGINES if every else (engines or "auto").split(",")))
    for engine in asked:
        choose(engine, threads)
    check_models(*names)
    short = [Path(name).stem if name.endswith(".onnx") else name for name in names]
    titles = names if len(set(short)) < len(names) else short
    opened, missing = [], []
    for (name, title), engine in product(zip(names, titles, strict=True), asked):
        what = f"{title} {engine}" if len(asked) > 1 else title
        try:
            path = find(stack.enter_context(artifact(name, engine)))
            made = stack.enter_context(open_engine(path, engine, threads=threads))
        except (EngineError, ArtifactError) as error:
            if not every:
                raise
            missing.append(f"{what}: not run: {error}")
            continue
        opened.append(Opened(what, path, engine, threads, made))
    if not opened:
        raise EngineError(f"no engine can be had here ({missing[0]})")
    return opened, missing


def _percentiles(text: str) -> list[float]:
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = [math.nan]
    if not all(0 < p < 100 for p in found):
        raise OptionError(f"--percentiles {text}: numbers between 0 and 100, such as 50,90,95,99")
    return found


def _check(warmup: float, duration: float, iterations: int | None, cold_starts: int) -> None:
    check_numbers(iterations=iterations)
    for name, value in (("warmup", warmup), ("duration", duration), ("cold-starts", cold_starts)):
        if not 0 <= value < math.inf:
            raise OptionError(f"--{name} must be 0 or more, not {value:g}")


def _check_modes(single_stream: bool, stream: str | None, fps: float | None, cameras: bool, duration: float) -> None:
    from framecast.bench.loop import check

    if stream is None and (fps is not None or cameras):
        raise OptionError("--fps and --cameras are of a stream: give --stream SOURCE with them")
    if stream is not None and single_stream:
        raise OptionError("--stream and --single-stream are two ways of measuring: choose one")
    if stream is not None:
        check(fps, duration)


def _check_suffixes(export: Path | None, report: Path | None) -> None:
    if export is not None and export.suffix.lower() not in (".json", ".csv"):
        raise OptionError(f"{export}: an export ends in .json or .csv")
    if report is not None:
        with needs_extra("--report", "eval"):
            from framecast.bench.page import check
        check(report)


def _print_machine(machine: Machine, typed: str, markdown: bool) -> None:
    from framecast.bench.machine import lines

    if markdown:
        said = "; ".join(value for label, value in lines(machine) if label != "load")
        print(f"*Measured by `{typed}`: {said}.*")
        return
    for label, value in (("command", typed), *lines(machine)):
        print(f"{label:9s} {value}")


@contextmanager
def _progress() -> Iterator[Callable[[float], None]]:
    """A bar on stderr where there is a terminal, drawn between turns: it has no thread that would run beside them."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("measuring"), BarColumn(), TaskProgressColumn())
    shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown, auto_refresh=False) as progress:
        task = progress.add_task("", total=1.0)

        def advance(share: float) -> None:
            if shown:
                progress.update(task, completed=share, refresh=True)

        yield advance
