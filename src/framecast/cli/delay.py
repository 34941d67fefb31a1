"""``framecast delay``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from framecast.cli.checks import check_ending
from framecast.cli.secret import address
from framecast.errors import OptionError, SourceError

LEAST, MOST = 12.0, 600.0  # seconds


def delay(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A webcam's number, v4l2:///dev/video0, csi://0 or rtsp://….")
    ],
    duration: Annotated[float, typer.Option(metavar="S", help="Measure for S seconds.")] = 20.0,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures as JSON.")] = None,
) -> None:
    """Measure a camera's delay, glass to glass.

    A window blinks on this machine's screen. Point the camera at it, or at its image in a mirror. The measured delay
    includes the screen's own. The last line is the command to run next: 'run --now' with this delay.
    """
    from framecast import terminal
    from framecast.camera import is_camera, open_source
    from framecast.files import check_writable, write
    from framecast.redact import redact
    from framecast.runtime.delay import measure
    from framecast.runtime.report import to_json
    from framecast.runtime.sinks.blink import BlinkWindow

    if not LEAST <= duration <= MOST:
        raise OptionError(f"--duration must be {LEAST:g} to {MOST:g}, not {duration:g}")
    check_ending("--json", json, ".json")
    if json is not None:
        check_writable(json)
    shown = redact(source)
    source = address(source)
    if not is_camera(source):
        raise SourceError(f"{shown} is not a camera (give a webcam's number, v4l2:///dev/video0, csi://0 or rtsp://…)")
    with BlinkWindow() as window, open_source(source, sender_clock=False) as camera:
        print(f"Point {camera.name} at the blinking window: measuring for {duration:g} s.", file=sys.stderr, flush=True)
        found = measure(camera, window, duration)
        times = camera.times
    milliseconds = round(1e3 * found.seconds)
    command = f"framecast run {shlex.quote(shown)} --now --camera-delay {milliseconds}ms"
    rows = [
        ("source", f"{camera.name}, a frame every {1e3 * found.interval:.1f} ms, times by {times}"),
        ("glass to glass", f"{milliseconds} ms, including the screen's own delay"),
        ("single blinks", f"{1e3 * found.low:.0f} to {1e3 * found.high:.0f} ms (p5 to p95)"),
        ("blinks", f"{found.seen} of {found.shown} seen"),
        ("next", command),
    ]
    terminal.table("framecast delay", ("", ""), rows)
    if json is not None:
        figures = {
            "source": camera.name,
            "times": times,
            "interval_ms": round(1e3 * found.interval, 2),
            "delay_ms": round(1e3 * found.seconds, 1),
            "spread_ms": {"p5": round(1e3 * found.low, 1), "p95": round(1e3 * found.high, 1)},
            "blinks": {"seen": found.seen, "shown": found.shown},
            "next": command,
        }
        write(json, f"{to_json(figures, indent=2)}\n".encode())
        print(f"wrote {json}")
