"""The command line. It puts the rooms together, and imports them only when a command needs them."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framecast.errors import FramecastError, OptionError

if TYPE_CHECKING:
    from framecast.runtime import Pipeline
    from framecast.runtime.sinks.sink import Event, Sink

DEFAULT_ADDRESS = "127.0.0.1:8000"
REFRESH = 0.25  # seconds between updates of the status line
MODEL_HELP = "An artifact's path, or a name (framecast models); one that does not ship gets random weights."

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
        if format_message is not None:
            _fail(f"{message.rstrip('.')} (see 'framecast --help')" if (message := format_message()) else "", 2)
        if logging.getLogger().isEnabledFor(logging.INFO):  # --verbose
            raise
        _fail(f"{type(error).__name__}: {error} (not foreseen: run it again with --verbose, and report that)", 1)


def _fail(message: str, code: int) -> None:
    """Leave with a message on one line; wherever a URL has landed in it, its credentials are left out."""
    if message:
        print("framecast:", re.sub(r"(\w+://)\S*@", r"\1***@", " ".join(message.split())), file=sys.stderr)
    sys.exit(code)


def _with_address(arguments: list[str]) -> list[str]:
    """Let ``--serve`` stand alone: an address follows if it looks like HOST:PORT, or a PORT of four digits or five."""
    out: list[str] = []
    for index, argument in enumerate(arguments):
        out.append(argument)
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        if argument == "--serve" and not re.fullmatch(r"[^/]*:\d+|\d{4,5}", following):
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
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "stip-edge",
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
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Play a file at its own pace (always so with --serve).")
    ] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Start a file over at its end, until Ctrl-C.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads of the step; 0: one a core.")] = 0,
) -> None:
    """Predict a camera, a stream or a file, live, and score every prediction against the frame that came."""
    from framecast import terminal
    from framecast.camera import open_source
    from framecast.runtime import Pipeline, load
    from framecast.runtime.report import to_json
    from framecast.runtime.sinks.files import check_writable, write

    _check_numbers(horizon=horizon, max_frames=max_frames)
    outputs = [*(record or []), *([report] if report else [])]
    _check_outputs(source, outputs)
    paced = realtime or serve is not None
    with ExitStack() as stack:
        with _artifact(model) as artifact:
            predictor = stack.enter_context(load(artifact, engine=engine, threads=threads))
        opened = stack.enter_context(open_source(source, loop=loop))
        pipeline = Pipeline(opened, predictor, horizon=horizon, max_frames=max_frames, realtime=paced)
        if report is not None:
            check_writable(report)
        stack.enter_context(_stop_on_signals(pipeline))
        try:
            _drive(pipeline, record or [], serve)
        except Exception as error:
            pipeline.ended = f"error: {error}"
            raise
        finally:
            if pipeline.started:
                if report is not None:
                    write(report, f"{to_json(pipeline.report(), indent=2)}\n".encode())
                terminal.summary(pipeline.report(), outputs)


def _check_numbers(*, horizon: int, max_frames: int | None) -> None:
    """What the pipeline would refuse as well, but only once the camera has been opened."""
    for name, value in (("horizon", horizon), ("max-frames", max_frames)):
        if value is not None and value < 1:
            raise OptionError(f"--{name} must be at least 1, not {value}")


def _check_outputs(source: str, outputs: list[Path]) -> None:
    """No output may take the place of an input, or of another output."""
    place = source.removeprefix("file://")  # or a URI that is no path at all
    taken = {os.path.realpath(path) for path in [place, *glob.glob(place)]}  # noqa: PTH207
    for path in outputs:
        where = os.path.realpath(path)
        # In a folder of images, or under its glob, it would be an input of the next run.
        if where in taken or os.path.realpath(path.parent) in taken or fnmatch.fnmatch(path, place):
            raise OptionError(f"{path} is among the inputs, or named twice: give every output a place of its own")
        taken.add(where)


@contextmanager
def _artifact(model: str) -> Iterator[str]:
    """What to load for a model's name: a configuration that does not ship is exported for this run, untrained."""
    from framecast.models.configs import CONFIGS
    from framecast.runtime.shipped import shipped

    if model not in CONFIGS or model in shipped():
        yield model
        return
    if CONFIGS[model].data.order == "NONE":
        raise OptionError(
            f"{model} takes channels that are no picture: it can be exported, but not shown a camera or clip"
        )
    with _needs_extra(f"{model}, which does not ship,"):
        from framecast.export.command import export_random
    print(f"{model} comes without weights: exporting it with random ones for this run", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="framecast-") as folder:
        yield str(export_random(model, Path(folder)))


def _drive(pipeline: Pipeline, record: list[Path], serve: str | None) -> None:
    """Run the pipeline into its sinks, with a status line where there is a terminal."""
    from framecast import terminal
    from framecast.runtime.sinks.thread import SinkThread

    fps = pipeline.source.fps or 1 / pipeline.predictor.interval
    with ExitStack() as stack:
        show: list[Callable[[Event], None]] = []
        if serve is not None:  # before the recorders, so that it is closed after them: viewers may be slow to leave
            from framecast.runtime.sinks.web import WebSink

            page = WebSink(serve, snapshot=lambda: dict(pipeline.report()))
            stack.callback(page.close)
            show.append(page.show)
            print(f"watch it at {page.url}", file=sys.stderr, flush=True)
        for path in record:
            recorder = SinkThread(_recorder(path, fps))
            stack.callback(recorder.close)
            show.append(recorder.show)
        status = stack.enter_context(terminal.status_line())
        shown = 0.0
        for event in pipeline:
            for call in show:
                call(event)
            if time.monotonic() - shown > REFRESH:
                shown = time.monotonic()
                status(pipeline.report())


def _recorder(path: Path, fps: float) -> Sink:
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


@app.command()
def models() -> None:
    """List what can be run and exported: size, cost, quality."""
    from framecast import terminal
    from framecast.models.configs import CONFIGS
    from framecast.runtime.engines import open_engine
    from framecast.runtime.shipped import shipped

    rows = []
    for name, entry in CONFIGS.items():
        height, width = entry.data.visible or (entry.data.height, entry.data.width)
        published = "–" if entry.window_gmacs is None else f"{entry.window_gmacs:.1f} ({entry.window})"
        cost = (f"{entry.parameters / 1e6:.2f} M", f"{entry.gmacs:.2f}", f"{entry.state_bytes / 1e6:.2f} MB", published)
        rows.append((name, f"{width}×{height}×{entry.data.channels}", *cost))
    columns = ("name", "frame", "parameters", "GMAC", "state", "as published")
    terminal.table("framecast models", columns, rows)
    print("GMAC: of a step, which is the next frame. As published: what the authors' code spends")
    print("on the same frame, from so many known ones. State: what a step reads, float32.")
    for name, artifact in shipped().items():
        with open_engine(artifact) as engine:
            quality = engine.manifest.quality
        score = f"{quality.prediction:.2f} dB, copying {quality.copy_last:.2f} dB" if quality else "not measured"
        print(f"{name} ships trained: next frame {score}. The others come without weights: framecast export")


@app.command()
def doctor() -> None:
    """Say what is here, what is missing, and how to get it."""
    from framecast import terminal
    from framecast.runtime.doctor import examine

    rows = [(finding.part, finding.state, finding.cure) for finding in examine()]
    terminal.table("framecast doctor", ("part", "state", "what to do"), rows)


@contextmanager
def _needs_extra(command: str) -> Iterator[None]:
    """Say how to get what a command's imports miss."""
    try:
        yield
    except ModuleNotFoundError as error:
        cure = "pip install 'framecast[models]', or in a clone pip install -e '.[models]'"
        raise FramecastError(f"{command} needs {error.name}: {cure}") from error


Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="OPTION=VALUE", help="Change an option of the configuration; repeatable."),
]


@app.command()
def export(
    config: Annotated[str, typer.Argument(help="A configuration's name (framecast models).")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The artifact to write; CONFIG.onnx.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Trained weights, .safetensors; random ones without.")] = None,
    settings: Settings = None,
    frames: Annotated[str, typer.Option(help="The source of real frames for the parity check.")] = "demo",
    steps: Annotated[int, typer.Option(help="Length of the parity check's rollout.")] = 20,
    seed: Annotated[int, typer.Option(help="Of random weights and frames.")] = 0,
) -> None:
    """Export a network's step to ONNX, and check that ONNX Runtime equals PyTorch."""
    from framecast import terminal
    from framecast.models.configs import find, parse

    find(config)  # said before torch is asked for
    if steps < 1:
        raise OptionError(f"--steps must be at least 1, not {steps}")
    with _needs_extra("export"):
        from framecast.export.command import export_config

        changes = parse(config, settings or [])
    output = output or Path(f"{config}.onnx")
    for place in (frames, *([str(weights)] if weights else [])):
        _check_outputs(place, [output])
    print(f"exporting {config}, and stepping both through {steps} frames: up to some minutes", file=sys.stderr)
    parity = export_config(config, output, weights, frames=frames, steps=steps, seed=seed, changes=changes)
    rows = [(name, str(p.steps), f"{p.max:.2e}", f"{p.mean:.2e}", f"{p.allowed:.0e}") for name, p in parity.items()]
    columns = ("frames", "steps", "max error", "mean error", "allowed")
    terminal.table(f"{config}: ONNX Runtime against PyTorch", columns, rows)
    kind = "trained" if weights else "random"
    print(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB, {kind} weights)")


@app.command()
def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint as the authors (or OpenSTL) released it.")],
    config: Annotated[str, typer.Option("--as", help="The configuration that it holds (framecast models).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The weights to write; CONFIG.safetensors.")
    ] = None,
    settings: Settings = None,
) -> None:
    """Convert a released checkpoint of STIP, STAU, MAU or TAU to weights that export takes."""
    from framecast.models.configs import find, parse

    find(config)  # said before torch is asked for
    with _needs_extra("import-checkpoint"):
        from framecast.export import command

        changes = parse(config, settings or [])
    output = output or Path(f"{config}.safetensors")
    _check_outputs(str(checkpoint), [output])
    found = command.import_checkpoint(checkpoint, config, output, changes)
    for key in found.unused:
        print(f"left out, the released network does not use it: {key}")
    count = sum(value.numel() for name, value in found.tensors.items())
    print(f"wrote {output} ({len(found.tensors)} tensors, {count:,} values; left out: {len(found.unused)})")
    print(f"next: framecast export {config} --weights {output}")


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    source: Annotated[str, typer.Argument(help="A clip, as for run: a file, a folder of images, demo, ….")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder for pictures and figures; made if it is not there.")
    ] = Path("inspect"),
    frames: Annotated[int, typer.Option(help="Look at so many frames of the source.")] = 40,
) -> None:
    """Draw what happens inside a model over a clip: gates, encoded features, attention."""
    if frames < 1:
        raise OptionError(f"--frames must be at least 1, not {frames}")
    with _needs_extra("inspect"):
        from framecast.export import inspect as inside
    _check_outputs(source, [output / name for name in inside.FILES])
    with _artifact(model) as artifact:
        print("\n".join(inside.inspect(artifact, source, output, frames)))
