"""``framecast run``."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from framecast.cli import logs
from framecast.cli.cameras import Reading, camera_of, check_together, chosen, sources
from framecast.cli.checks import amount, check_clips, duration, patience, period
from framecast.cli.complete import complete_configurations, complete_engine, complete_models
from framecast.cli.config_file import ConfigFile, options, placed
from framecast.cli.model_ref import MODEL_HELP, ModelRef
from framecast.cli.run_options import check_option
from framecast.cli.secret import token
from framecast.cli.signals import end_process, exit_code, on_signals
from framecast.cli.usage import DEFAULT_ADDRESS
from framecast.errors import FramecastError, SinkUnavailableError, SourceRefusedError
from framecast.notice import Notice

if TYPE_CHECKING:
    from framecast.runtime.fleet_report import FleetReport
    from framecast.runtime.lane import Camera
    from framecast.runtime.report import Report


def _apply(context: typer.Context, config: ConfigFile | None) -> ConfigFile | None:
    """Let the file give all options that the command line does not."""
    if config is not None and not context.resilient_parsing:  # not for a shell that completes
        config.load(options(run))
        logs.use(config.values.get("log", "text"))
        context.default_map = {name: partial(config.give, name) for name in config.sets}
        config.warn()
    return config


def run(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="A video file, a folder or glob of images, a webcam's number, v4l2:///dev/video0, csi://0, rtsp://…, "
            "http://…, - (standard input), synthetic://, mnist:// or demo. Files and images at N frames a second: "
            "FILE?fps=N. With a password: env:NAME, a variable that holds the address, or @FILE. Several: one run with "
            "one page.",
        ),
    ],
    model: Annotated[str, typer.Option(metavar="MODEL", help=MODEL_HELP, autocompletion=complete_models)] = "edge",
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME[:PRECISION]",
            autocompletion=complete_engine,
            help="The engine that runs the step (see 'framecast doctor').",
        ),
    ] = "auto",
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Show the frame of now: measure the delay of the picture, and predict that far ahead."
        ),
    ] = False,
    ahead: Annotated[
        str | None, typer.Option(metavar="TIME", help="Predict this far ahead, such as 120ms or 0.5s.")
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(metavar="N", help="Predict N of the camera's frames ahead (default: 1).")
    ] = None,
    camera_delay: Annotated[
        str, typer.Option(metavar="TIME", help="With --now: the camera's delay, from the lens to this machine.")
    ] = "0ms",
    display_delay: Annotated[str, typer.Option(metavar="TIME", help="With --now: the display's delay.")] = "0ms",
    max_ahead: Annotated[str, typer.Option(metavar="TIME", help="With --now: the longest lookahead.")] = "1s",
    refresh: Annotated[
        float | None,
        typer.Option(
            metavar="HZ", help="Show HZ pictures a second: between two frames, later moments predicted from the newest."
        ),
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:PORT]", help=f"Show the run in a browser, at this address (default: {DEFAULT_ADDRESS})."
        ),
    ] = None,
    conceal: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Where frames are late or lost, go on with predictions for this long."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --serve: the page's token (default: $FRAMECAST_TOKEN, else a new one)."
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --serve: the page's name behind a proxy on this machine. Repeatable."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the run in a window; q, Esc or ✕ ends it.")] = False,
    record: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Record a video (.mp4, .mkv, .webm, .avi) or a strip of pictures (.png). "
            "Replaces no file. Repeatable. With several cameras, run.mkv becomes run-camera1.mkv, ….",
        ),
    ] = None,
    segment: Annotated[
        str | None, typer.Option(metavar="TIME", help="Begin a new video file after each 30s, 10min or 1h.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Remove the oldest segments beyond 500MB, 20GB or 1TB.")
    ] = None,
    out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Send the predictions as a camera: rtsp://host:port/path, udp://host:port, "
            "v4l2:///dev/video10, or - for Y4M on standard output. Repeatable.",
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures as JSON, each minute.")] = None,
    frames: Annotated[
        int | None, typer.Option(metavar="N", help="Stop after N frames (default: at the end of the source).")
    ] = None,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime",
            help="Play a file at its own frame rate. --now, --serve, --show, and --out except to -, always do.",
        ),
    ] = False,
    every_frame: Annotated[
        bool, typer.Option("--every-frame", help="Drop no frame of a file that plays at its own rate, however late.")
    ] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Repeat a file until Ctrl-C.")] = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long a camera may take to answer.")] = "15s",
    stall: Annotated[str, typer.Option(metavar="TIME", help="How long it may take for each later frame.")] = "2.5s",
    reconnect: Annotated[
        bool, typer.Option("--reconnect/--no-reconnect", help="Open a camera again when it was lost, until Ctrl-C.")
    ] = True,
    step_limit: Annotated[
        str, typer.Option(metavar="TIME", help="How long a step may take; the run then ends with an error.")
    ] = "30s",
    threads: Annotated[int, typer.Option(metavar="N", help="CPU threads of a step. 0: one per core.")] = 0,
    batch_wait: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="With several cameras: how long a frame may wait for others, to share a step where that is faster.",
        ),
    ] = "2ms",
    log: Annotated[
        str, typer.Option(metavar="FORM", help="json: only JSON on stderr, one object a line, for machines.")
    ] = "text",
    config: Annotated[
        ConfigFile | None,
        typer.Option(
            metavar="FILE",
            help="Take SOURCE and options from a TOML file; those given here win. See 'framecast config --help'.",
            parser=ConfigFile,
            is_eager=True,
            callback=_apply,
            autocompletion=complete_configurations,
        ),
    ] = None,
) -> None:
    """Predict a camera, a stream or a file, live; or several of them.

    Every prediction is scored against the real frame when it arrives, and compared with copying the last frame.
    """
    given = {**locals()}
    from framecast.backoff import REFUSED
    from framecast.camera import is_camera
    from framecast.cli.saved import SavedReport, check_replaced
    from framecast.files import check_writable
    from framecast.runtime import fleet
    from framecast.runtime import run as single
    from framecast.runtime.fleet_report import several
    from framecast.runtime.outputs import check_recordings
    from framecast.runtime.shipped import read_by
    from framecast.runtime.sinks.out import PIPE, standard_output
    from framecast.runtime.sinks.systemd import Systemd, longest_start

    with placed(config, "engine"):
        read = os.fspath(read_by(engine, model))
    for name, value in {**given, "model": read}.items():
        with placed(config, name):
            check_option(name, value)
    logs.use(log)
    cameras = sources(chosen(given, config), config)
    if config is not None and config.cameras and "source" not in config.given:
        replaced = f"warning: SOURCE on the command line replaces every [[camera]] of {config.path}"
        logs.announce(Notice("warning", replaced, logging.WARNING))
    check_together(cameras, config)
    with placed(config, "token_file", lasting=False):
        secret = None if serve is None else token(token_file)
    places: list[str] = [camera.given["source"] for camera in cameras]
    for place in places:
        logs.hide(place, secret)
    saved = None if json is None else SavedReport(json)
    segment_s = None if segment is None else period("--segment", segment)
    keep_bytes = None if keep is None else amount("--keep", keep)
    if any(PIPE in (camera.given["out"] or []) for camera in cameras):
        standard_output()  # before anything else is printed there
    for camera in cameras:
        with placed(config, "record", table=camera.table):
            check_recordings(camera.record, segment_s, keep_bytes)
    if json:
        # A camera is predicted on a full disk as well: the report is written once there is room.
        patient = any(map(is_camera, places))
        with placed(config, "json"), suppress(SinkUnavailableError) if patient else nullcontext():
            check_writable(json)
            check_replaced(json)
    ref = ModelRef.resolve(read)
    if ref.path is None and not cameras[0].name:  # first, so that a wrong source need not wait for the export
        check_clips(places[0])
    waits = patience("--timeout", timeout), patience("--stall", stall), patience("--step-limit", step_limit)
    systemd = Systemd(os.environ, pid=os.getpid(), first=longest_start(waits[0], waits[2]))
    if line := systemd.caution(timeout=waits[0] + REFUSED, stall=waits[1], step_limit=waits[2]):
        logs.announce(Notice("warning", f"warning: {line}", logging.WARNING))
    stop = threading.Event()
    reading = Reading.of(config, given, options(run))

    def update() -> list[Camera] | None:
        again = reading.take() if reading else None
        return None if again is None else [camera_of(camera, [systemd.show]) for camera in again]

    newest: list[Report | FleetReport] = []

    def work() -> None:
        with logs.status() as status, ref.artifact(engine) as path, saved or nullcontext():

            def observe(report: Report | FleetReport) -> None:
                if not newest and (code := exit_code()) is not None:
                    raise SystemExit(code)  # a signal has ended the start, but a library has swallowed that
                newest[:] = [report]
                status(report)
                systemd.look(report["total"] if several(report) else report)
                if saved:
                    saved.put(report)

            common: dict[str, Any] = {
                "model": path,
                "engine": engine,
                "threads": threads,
                "display_delay": duration("--display-delay", display_delay),
                "max_ahead": duration("--max-ahead", max_ahead),
                "refresh": refresh,
                "frames": frames,
                "realtime": realtime,
                "every_frame": every_frame,
                "loop": loop,
                "timeout": waits[0],
                "stall": waits[1],
                "reconnect": reconnect,
                "segment": segment_s,
                "keep": keep_bytes,
                "serve": serve,
                "token": secret,
                "hosts": host or (),
                "observe": observe,
                "announce": logs.announce,
                "stop": stop,
                "step_limit": waits[2],
                "stuck": stuck,
            }
            # systemd's sink is closed at the end, not with the first camera that ends or is refused
            if cameras[0].name:
                asked = [camera_of(camera, [systemd.show]) for camera in cameras]
                wait = duration("--batch-wait", batch_wait)
                failed = fleet.run_cameras(asked, batch_wait=wait, update=update, **common)["total"]
                if failed["failed"]:
                    kind = SourceRefusedError if failed["refused"] else FramecastError
                    raise kind((failed["ended"] or "").removeprefix("error: "))
            else:
                asked_one = camera_of(cameras[0], [systemd.show])
                own = {field.name: getattr(asked_one, field.name) for field in fields(asked_one)}
                del own["source"], own["name"]
                single.run(asked_one.source, show=show, **own, **common)

    def end() -> None:
        if newest:  # not if it ended before it began
            all_of(saved.finish if saved else lambda: None, lambda: logs.summary(newest[0], saved))

    def stuck(reason: str) -> None:
        try:
            end()
        finally:
            end_process(f"{reason}; ended without waiting for it", 1)

    def halt() -> None:
        systemd.stopping()
        stop.set()

    def patiently() -> None:
        try:
            work()
        except SourceRefusedError as error:
            systemd.hold(str(error), REFUSED)  # cameras lock an account that is tried again at once
            raise

    with on_signals(halt, begun=lambda: bool(newest), reload=reading.ask if reading else None):
        all_of(patiently, end, systemd.close)


def all_of(*steps: Callable[[], object]) -> None:
    """Call every step, even after one has failed. The first failure is raised at the end."""
    first: BaseException | None = None
    for step in steps:
        try:
            step()
        except BaseException as error:  # noqa: BLE001, PERF203 (Ctrl-C too: figures are still shown)
            first = first or error
    if first is not None:
        raise first
