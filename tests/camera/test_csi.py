"""The CSI camera: a real gst-launch-1.0 with a test picture in the sensor's place."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from framecast.camera import Source, csi, open_source
from framecast.camera.csi import Csi, elements, parse_csi
from framecast.camera.live import LiveSource
from framecast.errors import SourceError

from ..conftest import Run  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .reading import lost, read  # noqa: TID252

SIZE = "320x240"
needs_gstreamer = pytest.mark.skipif(shutil.which(csi.LAUNCH) is None, reason=f"no {csi.LAUNCH} (make system-deps)")


@pytest.fixture
def sensor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a test picture in the sensor's place; what it is called with goes into its element."""

    def put(options: str = "pattern=red") -> None:
        def fake(camera: Csi) -> str:
            width, height = camera.size
            caps = f"video/x-raw,width={width},height={height},framerate={camera.fps}/1,format=BGRx"
            return f"videotestsrc is-live=true {options} ! {caps}"

        monkeypatch.setattr(csi, "elements", fake)

    put()
    return put


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Put a script in the place of gst-launch-1.0: it says what a Jetson's would."""

    def put(text: str, name: str = csi.LAUNCH) -> None:
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return put


def process_of(source: Source) -> subprocess.Popen[bytes]:
    assert isinstance(source, LiveSource)
    launch: object = source._capture
    assert isinstance(launch, csi._Launch)
    assert launch._process is not None
    return launch._process


def is_there(process: subprocess.Popen[bytes]) -> bool:
    """Whether it runs, or is a zombie."""
    return Path(f"/proc/{process.pid}").exists()


def refused(uri: str, timeout: float = 5.0) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(uri, timeout=timeout)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_the_pipeline_of_a_uri() -> None:
    assert parse_csi("0") == Csi(0, 1280, 720, 30, 0)
    assert parse_csi("1?size=1920x1080&fps=60&flip=2") == Csi(1, 1920, 1080, 60, 2)
    assert elements(parse_csi("1?flip=1")) == (
        "nvarguscamerasrc sensor-id=1"
        " ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1,format=NV12"
        " ! nvvidconv flip-method=1 ! video/x-raw,width=720,height=1280,format=BGRx"
    )


def test_what_is_no_camera() -> None:
    for rest in ("", "x", "-1", "0/1", "0?size=1280", "0?fps=fast", "0?size=1x2x3", "user:s3cret@0"):
        message = refused(f"csi://{rest}")
        assert "size=1280x720" in message or "out of range" in message
        assert "s3cret" not in message
    for option in ("size=1281x720", "size=0x0", "size=99999x64", "fps=0", "flip=8"):
        assert "out of range" in refused(f"csi://0?{option}")
    assert "csi:// has no mode (it takes size, fps and flip" in refused("csi://0?mode=3")


@needs_gstreamer
def test_frames_have_the_size_the_colour_and_the_rate(sensor: Callable[..., None]) -> None:
    begun = time.monotonic()
    with open_source(f"csi://0?size={SIZE}&fps=20&flip=1") as source:
        assert source.live
        assert source.name == "csi://0"
        assert source.fps == 20.0
        frames = [read(source) for _ in range(30)]
        now = time.monotonic()
        process = process_of(source)
        assert os.getpgid(process.pid) != os.getpgid(0)  # Ctrl-C is for us alone
    assert process.returncode == 0  # it was asked to end, and let go of the camera
    assert not is_there(process)
    assert [frame.index for frame in frames] == list(range(30))
    for frame in frames:
        assert frame.image.shape == (320, 240, 3)  # turned by 90°
        assert frame.image.dtype == np.uint8
        assert (frame.image == (0, 0, 255)).all()  # red, as BGR
    times = [frame.time for frame in frames]
    assert times == sorted(times)
    assert begun < times[0] < times[-1] < now


@needs_gstreamer
def test_a_width_whose_rows_gstreamer_would_pad(sensor: Callable[..., None]) -> None:
    sensor("pattern=gradient")  # from top to bottom: every row is of one level
    with open_source("csi://0?size=318x240") as source:
        image = read(source).image
    assert image.shape == (240, 318, 3)
    assert (image == image[:, :1]).all()
    assert image[0, 0, 0] < 20 < 200 < image[-1, 0, 0]


@needs_gstreamer
def test_a_slow_reader_gets_the_newest(sensor: Callable[..., None]) -> None:
    sensor("pattern=ball animation-mode=frames motion=sweep")
    with open_source(f"csi://0?size={SIZE}&fps=50") as source:
        source.read()
        time.sleep(1.0)  # 50 frames
        source.read()  # what had been waiting in the pipe
        rest = [read(source) for _ in range(11)]
    assert rest[-1].time - rest[0].time > 0.12  # at their own pace, 0.2 s or slower: no others had queued up
    assert not np.array_equal(rest[0].image, rest[-1].image)  # the ball moves


@needs_gstreamer
def test_a_process_that_is_killed(sensor: Callable[..., None]) -> None:
    with open_source(f"csi://0?size={SIZE}") as source:
        source.read()
        process = process_of(source)
        process.kill()
        for _ in range(2):
            message = "lost csi://0: gst-launch-1.0 was ended by signal 9 (check its ribbon cable"
            assert lost(source).startswith(message)
    assert not is_there(process)


@needs_gstreamer
def test_frames_that_stop_and_a_process_that_does_not_answer(sensor: Callable[..., None]) -> None:
    source = open_source(f"csi://0?size={SIZE}", stall=1)
    source.read()
    process = process_of(source)
    process.send_signal(signal.SIGSTOP)
    assert lost(source).startswith("lost csi://0: no frame for 1 s (check its ribbon cable")
    source.close()
    assert not is_there(process)


@needs_gstreamer
def test_closing_while_a_read_is_blocked(sensor: Callable[..., None]) -> None:
    source = open_source(f"csi://0?size={SIZE}", stall=200)
    source.read()
    process = process_of(source)
    process.send_signal(signal.SIGSTOP)
    results: list[None] = []

    def drain() -> None:
        while (frame := source.read()) is not None:
            del frame
        results.append(None)

    reader = threading.Thread(target=drain)
    reader.start()
    time.sleep(0.3)
    source.close()
    source.close()
    assert reader.is_alive()  # it does not wait for the reader
    process.send_signal(signal.SIGCONT)
    reader.join()
    assert results == [None]  # closed, not lost
    assert not is_there(process)
    assert source.read() is None


@needs_gstreamer
def test_opening_again_and_again_leaves_nothing(sensor: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    before = held()
    for _ in range(5):
        with open_source(f"csi://0?size={SIZE}") as source:
            source.read()
    monkeypatch.undo()  # no sensor
    for _ in range(5):
        refused("csi://0")
    assert held() == before


@needs_gstreamer
def test_no_process_is_left_when_python_is_killed(sensor: Callable[..., None]) -> None:
    code = (
        "import sys, time; from framecast.camera import csi, open_source;"
        f"csi.elements = lambda camera: {csi.elements(Csi(0, 320, 240))!r};"
        "source = open_source('csi://0?size=320x240'); source.read();"
        "print(source._capture._process.pid, flush=True); time.sleep(600)"
    )
    python = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with python:
        assert python.stdout
        camera = int(python.stdout.readline())
        os.kill(camera, 0)  # it is there
        if shutil.which("setpriv"):
            os.kill(camera, signal.SIGSTOP)  # not even one that hangs
        python.kill()
    deadline = time.monotonic() + 120
    state = "?"
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{camera}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # dead; whoever adopted it has yet to see it
            return
        time.sleep(0.05)
    os.kill(camera, signal.SIGKILL)
    pytest.fail(f"gst-launch-1.0 was left over, in state {state}")


@needs_gstreamer
def test_a_machine_that_is_no_jetson(run: Run) -> None:
    code, _, err = run("run", "csi://0")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(
        "framecast: cannot open csi://0: GStreamer has no nvarguscamerasrc here: csi:// needs an NVIDIA"
    )


@needs_gstreamer
def test_a_camera_that_ends_says_gstreamers_reason(
    sensor: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csi, "elements", lambda camera: "v4l2src device=/dev/video97 ! video/x-raw,format=BGRx")
    message = refused("csi://0")
    assert message.startswith("cannot open csi://0: ERROR: from element /GstPipeline:pipeline0/GstV4l2Src:v4l2src0")
    sensor("pattern=red num-buffers=5")
    with open_source(f"csi://0?size={SIZE}") as source:
        assert lost(source).startswith("lost csi://0: it ended or broke off (check its ribbon cable")


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        (
            "(Argus) Error FileOperationFailed: Connecting to nvargus-daemon failed: No such file",
            "restart nvargus-daemon",
        ),
        ("Error generated. gstnvarguscamerasrc.cpp, execute:751 No cameras available", "ribbon cable"),
        ("execute:740 Invalid camera device specified 3 specified, 0 max index", "first one is csi://0"),
        ("execute:656 Failed to create CaptureSession", "another program is using it"),
        ("execute:805 Frame Rate specified is greater than supported", "v4l2-ctl --list-formats-ext"),
        ('WARNING: erroneous pipeline: no element "nvvidconv"', "has no nvvidconv here"),
        ("Unheard-of error \x1b[31m 7", "Unheard-of error"),
    ],
)
def test_what_libargus_says_becomes_one_line_with_the_cure(script: Callable[..., None], said: str, cure: str) -> None:
    script(f"echo 'Opening in BLOCKING MODE'; printf '%s\\n' '{said}' >&2; echo 'Got EOS'")
    message = refused("csi://0")
    assert message.startswith("cannot open csi://0: ")
    assert cure in message


def test_a_camera_that_gives_nothing_is_not_waited_for_forever(script: Callable[..., None]) -> None:
    script("trap '' INT; while :; do sleep 0.1; done")
    assert "no frame from csi://0 within 0.5 s (sudo systemctl restart nvargus-daemon" in refused("csi://0", 0.5)


def test_gst_launch_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    message = refused("csi://0")
    assert "there is no gst-launch-1.0" in message
    assert "apt-get install gstreamer1.0-tools" in message
