"""``framecast delay`` with a simulated camera and window; and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from framecast.camera import Frame
from framecast.errors import SinkError
from framecast.testing import ListSource

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)
from .runtime.blinking import Camera, window  # noqa: TID252


class Window:
    """A fake blinking window.

    Args:
        changes: when it changes, in seconds.
        failure: the error that ``check`` raises, if any.
    """

    def __init__(self, changes: list[float], failure: SinkError | None = None) -> None:
        self.changes, self._failure = changes, failure
        self.closed = False

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


def see(monkeypatch: pytest.MonkeyPatch, shown: Window, frames: list[Frame]) -> ListSource:
    """Make every source yield these frames, and make every blinking window this one."""
    source = ListSource(frames, live=True, fps=30.0, name="camera 0")
    monkeypatch.setattr("framecast.camera.open_source", lambda uri, **_: source)
    monkeypatch.setattr("framecast.runtime.sinks.blink.BlinkWindow", lambda: shown)
    return source


def test_a_camera_is_measured(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    changes = window(random, 20)
    shown = Window(list(changes))
    source = see(monkeypatch, shown, Camera(0.187, jitter=0.005).frames(random, changes, 20))
    file = tmp_path / "new" / "delay.json"
    code, out, err = run("delay", "rtsp://user:secret@camera/stream", "--duration", "12", "--json", file)
    assert (code, err) == (0, "Point camera 0 at the blinking window: measuring for 12 s.\n")
    found = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert found["delay_ms"] == pytest.approx(187, abs=10)
    assert found["spread_ms"]["p5"] <= found["delay_ms"] <= found["spread_ms"]["p95"]
    assert (found["source"], found["times"]) == ("camera 0", "arrival")
    assert found["blinks"]["seen"] == found["blinks"]["shown"] > 15
    assert found["next"] == f"framecast run 'rtsp://***@camera/stream' --now --camera-delay {found['delay_ms']:.0f}ms"
    words = " ".join(out.replace("│", " ").split())
    assert f"{found['delay_ms']:.0f} ms, including the screen's own delay" in words
    assert "--now --camera-delay" in words
    assert "secret" not in out + err + file.read_text()
    assert source.closed
    assert shown.closed


def test_a_window_that_the_camera_does_not_see(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    shown = Window(list(window(random, 20)))
    source = see(monkeypatch, shown, Camera(0.187).frames(random, window(random, 20), 20))  # another window's
    code, out, err = run("delay", "0", "--json", tmp_path / "delay.json")
    assert (code, out) == (1, "")
    assert err.splitlines()[1].startswith("framecast: the blinking window was not seen")
    assert "darken the room" in err
    assert source.closed
    assert shown.closed
    assert not (tmp_path / "delay.json").exists()


def test_a_window_that_is_closed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    shown = Window([], SinkError("the window was closed before the end: leave it open, and try again"))
    see(monkeypatch, shown, Camera(0.2).frames(random, window(random, 2), 2))
    code, out, err = run("delay", "0")
    assert (code, out) == (1, "")
    assert err.splitlines()[1].startswith("framecast: the window was closed before the end")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("demo",), "demo is not a camera (give a webcam's number"),
        (("clip.mp4",), "clip.mp4 is not a camera"),
        (("0",), "no window can be shown: there is no display, DISPLAY is not set (run it on a machine whose screen"),
        (("0", "--duration", "2"), "--duration must be 12 to 600, not 2"),
        (("0", "--duration", "nan"), "--duration must be 12 to 600, not nan"),
        (("0", "--json", "x.txt"), "--json x.txt: give a file that ends in .json"),
        (("0", "--json", "/proc/no/x.json"), "cannot write"),
    ],
)
def test_bad_input_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    code, out, err = run("delay", *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err
