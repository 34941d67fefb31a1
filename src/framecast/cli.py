"""The command line. It puts the rooms together, and imports them only when a command needs them."""

from __future__ import annotations

import logging
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from framecast.errors import FramecastError, OptionError

if TYPE_CHECKING:
    from rich.text import Text

    from framecast.runtime import Pipeline
    from framecast.runtime.report import Report

DEFAULT_ADDRESS = "127.0.0.1:8000"
REFRESH = 0.25  # seconds between updates of the status line

app = typer.Typer(
    name="framecast",
    help="Watch a live camera and show, now, the frames still to come.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point: errors are one line and exit code 1; wrong usage is one line and exit code 2."""
    try:
        sys.exit(app(_with_address(sys.argv[1:]), prog_name="framecast", standalone_mode=False) or 0)
    except FramecastError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        format_message = getattr(error, "format_message", None)  # Typer's own, whichever Click is underneath
        if format_message is None:
            raise
        _fail(f"{' '.join(format_message().split())} (see 'framecast --help')", 2)


def _fail(message: str, code: int) -> None:
    print(f"framecast: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _with_address(arguments: list[str]) -> list[str]:
    """Let ``--serve`` stand alone: an address follows it only if it looks like HOST:PORT."""
    out: list[str] = []
    for index, argument in enumerate(arguments):
        out.append(argument)
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        if argument == "--serve" and not re.fullmatch(r"[^/]*:\d+", following):
            out.append(DEFAULT_ADDRESS)
    return out


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is chosen, and why.")] = False,
) -> None:
    if version:
        from framecast import __version__

        print(f"framecast {__version__}")
        raise typer.Exit
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(name)s: %(message)s")


@app.command()
def run(
    source: Annotated[
        str,
        typer.Argument(
            help="A video file, a folder or glob of images, a webcam's number, v4l2:///dev/video0, rtsp://…, "
            "synthetic:// or demo."
        ),
    ],
    model: Annotated[str, typer.Option(help="A shipped name (framecast models), or an artifact's path.")] = "stip-edge",
    engine: Annotated[str, typer.Option(help="What runs the step (framecast doctor).")] = "auto",
    horizon: Annotated[int, typer.Option(help="Predict so many frames ahead.")] = 1,
    serve: Annotated[
        str | None, typer.Option(metavar="[HOST:PORT]", help=f"Show the run in a browser ({DEFAULT_ADDRESS}).")
    ] = None,
    record: Annotated[
        list[Path] | None,
        typer.Option(help="Record a video (.mp4, .mkv, .avi) or a strip of pictures (.png); repeatable."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="End after so many frames.")] = None,
    realtime: Annotated[bool, typer.Option(help="Play a file at its own pace (always so with --serve).")] = False,
    loop: Annotated[bool, typer.Option(help="Start a file over at its end, until Ctrl-C.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads of the step; 0: one a core.")] = 0,
) -> None:
    """Predict a camera, a stream or a file, live, and score every prediction against the frame that came."""
    from framecast.camera import open_source
    from framecast.runtime import Pipeline, load
    from framecast.runtime import report as reports

    _check(horizon=horizon, max_frames=max_frames, threads=threads)
    with ExitStack() as stack:
        predictor = stack.enter_context(load(model, engine=engine, threads=threads))
        opened = stack.enter_context(open_source(source, loop=loop))
        pipeline = Pipeline(
            opened, predictor, horizon=horizon, max_frames=max_frames, realtime=realtime or serve is not None
        )
        if report is not None:
            from framecast.runtime.sinks.video import make_room

            make_room(report)
        try:
            _drive(pipeline, record or [], serve)
        finally:
            if (figures := pipeline.report())["frames"]:
                if report is not None:
                    reports.write(figures, report)
                _summary(figures, record or [], report)


def _check(*, horizon: int, max_frames: int | None, threads: int) -> None:
    for name, value, least in (("horizon", horizon, 1), ("max-frames", max_frames, 1), ("threads", threads, 0)):
        if value is not None and value < least:
            raise OptionError(f"--{name} must be at least {least}, not {value}")


def _drive(pipeline: Pipeline, record: list[Path], serve: str | None) -> None:
    """Run the pipeline into its sinks, with a status line where there is a terminal."""
    from framecast.runtime.sinks.thread import SinkThread

    fps = pipeline.source.fps or 1 / pipeline.predictor.interval
    with ExitStack() as stack:
        sinks = []
        for path in record:
            sinks.append(SinkThread(_recorder(path, fps)))
            stack.callback(sinks[-1].close)
        if serve is not None:
            from framecast.runtime.sinks.web import WebSink

            page = WebSink(serve, snapshot=lambda: dict(pipeline.report()))
            sinks.append(SinkThread(page))
            stack.callback(sinks[-1].close)
            print(f"watch it at {page.url}", file=sys.stderr, flush=True)
        stack.enter_context(_stop_on_signals(pipeline))
        show = stack.enter_context(_status_line())
        shown = 0.0
        for event in pipeline:
            for sink in sinks:
                sink.show(event)
            if time.monotonic() - shown > REFRESH:
                shown = time.monotonic()
                show(pipeline.report())


def _recorder(path: Path, fps: float) -> Any:
    if path.suffix.lower() == ".png":
        from framecast.runtime.sinks.strip import StripSink

        return StripSink(path)
    from framecast.runtime.sinks.video import VideoSink

    return VideoSink(path, fps)


@contextmanager
def _stop_on_signals(pipeline: Pipeline) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the run cleanly; the second one as it always does."""

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        pipeline.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _status_line() -> Iterator[Any]:
    """Yield a function that shows a report on one line of the terminal, or does nothing where there is none."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda report: None
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda report: live.update(_line(report), refresh=True)


def _line(report: Report) -> Text:
    from rich.text import Text

    latency, fps = report["latency_ms"], report["fps"] or 0
    text = f"{report['source']}  {report['frames']} frames  {fps:.1f} fps"
    if latency["p50"] is not None:
        text += f"  p50 {latency['p50']:.1f} ms  p99 {latency['p99']:.1f} ms"
    text += f"  dropped {report['dropped']}  {_score(report)}"
    return Text(text, no_wrap=True, overflow="ellipsis")


def _score(report: Report) -> str:
    """The score in words."""
    quality = report["psnr_db"]
    if quality["prediction"] is None or quality["copy_last"] is None:
        return "not scored yet"
    gain = quality["prediction"] - quality["copy_last"]
    return f"predicted {quality['prediction']:.2f} dB, copying {quality['copy_last']:.2f} dB ({gain:+.2f})"


def _summary(report: Report, record: list[Path], path: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="framecast", show_header=False, title_justify="left")
    latency, quality = report["latency_ms"], report["psnr_db"]
    table.add_row("source", report["source"])
    table.add_row(
        "model", report["model"] + ("  (random weights: no quality claimed)" if report["weights"] == "random" else "")
    )
    table.add_row("engine", f"{report['engine']} {report['versions'][report['engine']]}")
    table.add_row("frames", f"{report['frames']} predicted, {report['dropped']} dropped, {report['epochs']} stream(s)")
    if report["resets"]:
        table.add_row("resets", f"{report['resets']} after predictions that were not finite")
    if latency["p50"] is not None:
        table.add_row("speed", f"{report['fps']} fps")
        table.add_row(
            "latency",
            "  ".join(f"{k} {latency[k]:.1f}" for k in ("p50", "p90", "p99", "max")) + f" ms  (n={latency['n']})",
        )
    ahead = "next frame" if report["horizon"] == 1 else f"{report['horizon']} frames ahead"
    table.add_row("score", f"{ahead}: {_score(report)}  (n={quality['n']})")
    table.add_row("ended", report["ended"] or "before the first frame")
    for file in [*record, *([path] if path else [])]:
        table.add_row("written", str(file))
    Console().print(table)


@app.command()
def models() -> None:
    """List what can be run and exported: size, resolution, quality."""
    from rich.console import Console
    from rich.table import Table

    from framecast.models.configs import CONFIGS
    from framecast.runtime.engines import open_engine
    from framecast.runtime.shipped import shipped

    table = Table(title="framecast models", title_justify="left")
    for column in ("name", "parameters", "size", "resolution", "quality (PSNR, copying)", "about"):
        table.add_column(column, overflow="fold")
    artifacts = shipped()
    for name, entry in CONFIGS.items():
        parameters = f"{entry.parameters / 1e6:.2f} M"
        if name not in artifacts:
            size = f"{entry.options['width']}×{entry.options['height']}"
            table.add_row(name, parameters, "–", size, "no weights ship: framecast export", entry.about)
            continue
        with open_engine(artifacts[name]) as engine:
            manifest = engine.manifest
        quality = manifest.quality
        score = (
            f"{quality.prediction:.2f} dB ({quality.copy_last:.2f}) on {quality.data}" if quality else "not measured"
        )
        megabytes = f"{artifacts[name].stat().st_size / 1e6:.1f} MB"
        width, height = manifest.size
        table.add_row(name, parameters, megabytes, f"{width}×{height}", score, entry.about)
    Console().print(table)


@app.command()
def doctor() -> None:
    """Say what is here, what is missing, and how to get it."""
    from rich.console import Console
    from rich.table import Table

    from framecast.runtime.doctor import examine

    table = Table(title="framecast doctor", title_justify="left")
    for column in ("part", "state", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in examine():
        table.add_row(finding.part, finding.state, finding.cure)
    Console().print(table)


@app.command()
def export(
    config: Annotated[str, typer.Argument(help="A configuration's name (framecast models).")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The artifact to write; CONFIG.onnx.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Trained weights, .safetensors; random ones without.")] = None,
    frames: Annotated[str, typer.Option(help="The source of real frames for the parity check.")] = "demo",
    steps: Annotated[int, typer.Option(help="Length of the parity check's rollout.")] = 20,
    tolerance: Annotated[float, typer.Option(help="Largest error that parity allows, in [0, 1] pixels.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of random weights and frames.")] = 0,
) -> None:
    """Export a network's step to ONNX, and check that ONNX Runtime equals PyTorch."""
    try:
        from framecast.export.command import export_config
    except ModuleNotFoundError as error:
        raise FramecastError(f"export needs {error.name}: pip install 'framecast[models]'") from error
    if steps < 1:
        raise OptionError(f"--steps must be at least 1, not {steps}")
    export_config(
        config, output or Path(f"{config}.onnx"), weights, frames=frames, steps=steps, tolerance=tolerance, seed=seed
    )
