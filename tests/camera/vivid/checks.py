"""Webcams on a real V4L2 driver: runs in the virtual machine that ``run`` starts."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import numpy as np

from framecast.camera import Source, open_source
from framecast.errors import SourceError

DEVICE = "/dev/video0"
BARS = [(191, 191, 191), (0, 191, 191), (191, 191, 0), (0, 191, 0), (191, 0, 191), (0, 0, 191), (191, 0, 0), (0, 0, 0)]


def control(**values: int) -> None:
    """Set controls of the driver."""
    for name, value in values.items():
        subprocess.run(["v4l2-ctl", "-d", DEVICE, "-c", f"{name}={value}"], check=True)


def gives(options: str, note: str) -> None:
    """What the driver gives for a URI's options."""
    with open_source(f"v4l2://{DEVICE}{options}") as source:
        assert list(source.notes) == [f"{DEVICE} gives {note}"], source.notes
        frame = source.read()
        assert frame
        size = "x".join(map(str, frame.image.shape[1::-1]))
        assert note.startswith(size)


def fails(source: str | Source, says: str) -> None:
    """The reason why a source cannot be opened, or was lost."""
    reason = "no error"
    try:
        with open_source(source) if isinstance(source, str) else source as opened:
            while opened.read():
                pass
    except SourceError as error:
        reason = str(error)
    assert says in reason, reason


def modes() -> None:
    """Sizes, rates and formats."""
    gives("", "640x480 YUYV at 25 frames a second")
    gives("?size=320x180", "320x180 YUYV at 60 frames a second")
    gives("?size=320x180&fps=15", "320x180 YUYV at 15 frames a second")
    gives("?size=333x222", "320x180 YUYV at 60 frames a second; asked for: 333x222")
    gives("?size=1280x720&fps=60", "1280x720 YUYV at 12.5 frames a second; asked for: 60 frames a second")
    fails(f"{DEVICE}?format=mjpg", "does not give MJPG (it gives YUYV, UYVY,")
    fails("/dev/video1", "cannot open the camera /dev/video1")
    fails("/dev/video97", "no camera /dev/video97 (cameras here: /dev/video0 /dev/video1")


def colours() -> None:
    """The driver's test picture in each format."""
    control(osd_text_mode=2)
    for name in ("yuyv", "uyvy", "nv12", "nv21", "yu12", "yv12", "bgr3", "rgb3"):
        with open_source(f"{DEVICE}?size=320x180&format={name}") as source:
            frame = source.read()
            assert frame
            assert np.abs(frame.image[90, 20::40].astype(int) - BARS).max() <= 3, (name, frame.image[90, 20::40])


def times() -> None:
    """The driver's stamps are the frames' times."""
    control(timestamp_source=1)  # the beginning of the exposure
    with open_source(DEVICE) as source:
        found = [frame.time for frame, _ in zip(source, range(20), strict=False)]
        assert source.times == "capture"
        assert np.diff(found).min() > 0


def stalls() -> None:
    """A camera that stops, that starts late, that never starts, and that is unplugged."""
    with open_source(DEVICE) as source:
        source.read()
        control(percentage_of_dropped_buffers=100)
        fails(source, f"lost {DEVICE}: no frame in 2 s")
    threading.Timer(5, control, kwargs={"percentage_of_dropped_buffers": 0}).start()
    with open_source(DEVICE, timeout=60) as source:
        begun = time.monotonic()
        assert source.read()
        assert time.monotonic() - begun > 3
    control(percentage_of_dropped_buffers=100)
    fails(open_source(DEVICE, timeout=3), f"lost {DEVICE}: no first frame in 4 s")
    control(percentage_of_dropped_buffers=0)
    with open_source(DEVICE) as source:
        source.read()
        Path("/sys/bus/platform/drivers/vivid/unbind").write_text("vivid.0")
        fails(source, f"lost {DEVICE}: it was unplugged")


for check in (modes, colours, times, stalls):
    check()
print("vivid: all checks passed")  # noqa: T201
