"""``framecast eval``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framecast.cli.shared import MODEL_HELP, artifact, check_models, check_numbers, check_outputs, needs_extra
from framecast.errors import OptionError

if TYPE_CHECKING:
    from framecast.evaluation.results import Advance, Contender

HORIZON, GIVEN = 5, 10


def evaluate(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    clips: Annotated[
        list[str],
        typer.Argument(help="Videos, folders of videos or of images, demo; or .npy files of sequences [T, N, H, W]."),
    ],
    horizon: Annotated[int | None, typer.Option(help=f"Clips: score 1 … so many frames ahead; {HORIZON}.")] = None,
    also: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="A further model in the same tables; repeatable.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all figures as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with tables, curves and pictures.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of the step; 0: one a core.")] = 0,
    max_frames: Annotated[int | None, typer.Option(help="Clips: take only the first so many frames of each.")] = None,
    given: Annotated[int | None, typer.Option(help=f"Sequences: frames that each begins with; {GIVEN}.")] = None,
    sequences: Annotated[int | None, typer.Option(help="Sequences: take only the first so many of a file.")] = None,
) -> None:
    """Score a model on whole clips, beside copying the last frame, linear extrapolation and optical flow."""
    from framecast import terminal
    from framecast.evaluation.clips import check_together, evaluate_clips, find_clips
    from framecast.evaluation.results import report
    from framecast.evaluation.sequences import evaluate_sequences
    from framecast.evaluation.tables import notes, tables
    from framecast.files import check_writable, write
    from framecast.runtime.engines import choose
    from framecast.runtime.report import to_json

    places = find_clips(clips)
    of_sequences = _is_sequences(places)
    check_numbers(horizon=horizon, max_frames=max_frames, given=given, sequences=sequences)
    if of_sequences:
        _check_unsaid("sequences (.npy)", {"horizon": horizon, "max-frames": max_frames})
    else:
        _check_unsaid("clips", {"given": given, "sequences": sequences})
    outputs = [path for path in (json, html) if path is not None]
    for place in (*places, model, *(also or [])):
        check_outputs(place, outputs)
    if html is not None:
        with needs_extra("--html", "eval"):
            import matplotlib  # noqa: F401 (said before the work)
    for path in outputs:
        check_writable(path)
    choose("auto", threads)
    check_models(model, *(also or []))
    with ExitStack() as stack:
        contenders = _load(stack, list(dict.fromkeys((model, *(also or [])))), threads)
        check_together(contenders)
        if of_sequences:
            with _progress() as advance:
                results = evaluate_sequences(contenders, places, given=given or GIVEN, limit=sequences, advance=advance)
        else:
            with _progress() as advance:
                results = evaluate_clips(
                    contenders, places, horizon=horizon or HORIZON, max_frames=max_frames, advance=advance
                )
    if json is not None:
        write(json, f"{to_json(report(results), indent=2)}\n".encode())
    if html is not None:
        from framecast.evaluation.page import page

        write(html, page(results).encode())
    for table in tables(results):
        terminal.table(table.title, table.columns, table.rows)
    for line in notes(results):
        print(line)
    for path in outputs:
        print(f"wrote {path}")


def _is_sequences(places: Sequence[str]) -> bool:
    """Whether to follow the protocol for sequences rather than that for clips."""
    kinds = {place.lower().endswith(".npy") for place in places}
    if len(kinds) > 1:
        raise OptionError("clips and sequences (.npy) are scored in different ways: evaluate them apart")
    return kinds.pop()


def _check_unsaid(kind: str, options: dict[str, int | None]) -> None:
    for name, value in options.items():
        if value is not None:
            raise OptionError(f"--{name} says nothing of {kind}: leave it out")


def _load(stack: ExitStack, models: Sequence[str], threads: int) -> list[Contender]:
    """The models, opened until the stack is left; each with a short name where that tells them apart."""
    from framecast.evaluation.results import Contender
    from framecast.evaluation.rivals import CopyLast, DisFlow, Linear
    from framecast.runtime import load

    short = [Path(model).stem if model.endswith(".onnx") else model for model in models]
    taken = {CopyLast.name, Linear.name, DisFlow.name}
    names = short if len(set(short) - taken) == len(models) else models
    contenders = []
    for name, model in zip(names, models, strict=True):
        with artifact(model) as path:
            contenders.append(Contender(name, model, stack.enter_context(load(path, threads=threads))))
    return contenders


@contextmanager
def _progress() -> Iterator[Advance]:
    """A bar on stderr where there is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("opening", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)
