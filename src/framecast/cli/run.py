"""``framecast run``."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framecast.cli.announce import announce
from framecast.cli.checks import check_clips, check_ending, check_numbers, check_outputs
from framecast.cli.model_ref import MODEL_HELP, ModelRef, complete_models
from framecast.cli.signals import on_signals

if TYPE_CHECKING:
    from framecast.runtime.report import Report

DEFAULT_ADDRESS = "127.0.0.1:8000"


def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A video file, a folder or glob of images, a webcam's number, v4l2:///dev/video0, csi://0, rtsp://…, "
            "synthetic:// or demo.",
        ),
    ],
    model: Annotated[str, typer.Option(metavar="MODEL", help=MODEL_HELP, autocompletion=complete_models)] = "edge",
    engine: Annotated[
        str, typer.Option(metavar="NAME[:PRECISION]", help="What runs the step (see 'framecast doctor').")
    ] = "auto",
    horizon: Annotated[int, typer.Option(metavar="N", help="How many frames ahead to predict.")] = 1,
    serve: Annotated[
        str | None,
        typer.Option(metavar="[HOST:PORT]", help=f"Show the run in a browser (default address: {DEFAULT_ADDRESS})."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the run in a window; q, Esc or ✕ ends it.")] = False,
    record: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Record a video (.mp4, .mkv, .avi) or a strip of pictures (.png). Repeatable."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures as JSON.")] = None,
    frames: Annotated[
        int | None, typer.Option(metavar="N", help="End after N frames (default: at the end of the source).")
    ] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Play a file at its own pace (always so with --serve and --show).")
    ] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Start a file over at its end, until Ctrl-C.")] = False,
    threads: Annotated[
        int, typer.Option(metavar="N", help="CPU threads of the step (default: one a core).", show_default=False)
    ] = 0,
) -> None:
    """Predict a camera, a stream or a file, live.

    Every prediction is scored against the frame that comes, beside copying the last frame.
    """
    from framecast import terminal
    from framecast.files import check_writable, write
    from framecast.runtime.engines import choose
    from framecast.runtime.report import to_json
    from framecast.runtime.run import check_recording
    from framecast.runtime.run import run as run_live

    check_numbers(horizon=horizon, frames=frames)
    check_ending("--json", json, ".json")
    outputs = [*(record or []), *([json] if json else [])]
    check_outputs(source, outputs)
    choose(engine, threads)
    for place in record or []:
        check_recording(place)
    if json is not None:
        check_writable(json)
    ref = ModelRef.resolve(model)
    if ref.path is None:  # an export takes long
        check_clips(source)
    stop = threading.Event()
    newest: list[Report] = []
    try:
        with terminal.status_line() as status, ref.artifact(engine) as path, on_signals(stop.set):

            def observe(report: Report) -> None:
                newest[:] = [report]
                status(report)

            run_live(
                source,
                model=path,
                engine=engine,
                threads=threads,
                horizon=horizon,
                frames=frames,
                realtime=realtime,
                loop=loop,
                record=record or (),
                serve=serve,
                show=show,
                observe=observe,
                announce=announce,
                stop=stop,
            )
    finally:
        for report in newest:  # none if it failed before it began
            if json is not None:
                write(json, f"{to_json(report, indent=2)}\n".encode())
            terminal.summary(report, outputs)
