"""Recordings: codecs, times, names, segments, and what is left after a kill or a failure. ffprobe reads the files."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from framecast.camera import Frame
from framecast.errors import OptionError, SinkError
from framecast.files import write
from framecast.runtime.predictor import Prediction
from framecast.runtime.sinks import video
from framecast.runtime.sinks.encoder import H264, VP9
from framecast.runtime.sinks.picture import CAPTION
from framecast.runtime.sinks.recorded import check_recordable
from framecast.runtime.sinks.sink import Result
from framecast.runtime.sinks.strip import StripSink
from framecast.runtime.sinks.video import VideoSink
from framecast.testing import STAMPS

from ..probing import decoded, probed  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .browser import CHROMIUM, browse  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

H, W = 40, 320
SIZE = (2 * (H + CAPTION), 2 * W + 4)
UNEVEN = [0.0, 0.04, 0.05, 0.25, 1.25, 1.5, 2.0, 3.04]  # multiples of 10 ms, which every container but AVI can store
TIMED = r"run-\d{8}-\d{6}(-\d+)?"


def shown(time: float, level: int = 100) -> Result:
    real = np.full((H, W, 3), (level, 40, 200), np.uint8)
    return Result(Frame(real, time, 0), real, Prediction(real, time, 0.0), STAMPS)


def noisy(time: float) -> Result:
    rng = np.random.default_rng(round(1e3 * time))
    real = rng.integers(0, 256, (H, W, 3), np.uint8)
    return Result(Frame(real, time, 0), real, Prediction(real, time, 0.0), STAMPS)


def record(path: Path, times: list[float], fps: float = 25) -> VideoSink:
    sink = VideoSink(path, fps)
    for time in times:
        sink.show(shown(7.0 + time))
    sink.close()
    return sink


@pytest.mark.parametrize(("ending", "codec"), [(".mp4", "h264"), (".mkv", "h264"), (".webm", "vp9")])
def test_a_recording_plays_in_a_browser_with_every_frame_at_its_time(tmp_path: Path, ending: str, codec: str) -> None:
    path = tmp_path / f"run{ending}"
    sink = record(path, UNEVEN)
    found = probed(path)
    assert (found["codec_name"], found["pix_fmt"], found["color_range"]) == (codec, "yuv420p", "tv")
    assert {found[key] for key in ("color_space", "color_transfer", "color_primaries")} == {"bt709"}
    assert (found["height"], found["width"]) == SIZE
    assert found["frames"] == pytest.approx(UNEVEN, abs=1e-3)
    assert sink.written()["codec"] == {"h264": "H.264", "vp9": "VP9"}[codec]
    real = decoded(path, SIZE)[SIZE[0] // 2 + CAPTION + H // 2, W // 2]
    assert np.abs(real - np.array([200, 40, 100.0])).max() < 6


PLAYED = """(name) => new Promise((ended) => {
    const video = document.createElement("video");
    video.onerror = () => ended([name, video.error.message]);
    video.onended = () => ended([name, video.videoWidth, video.videoHeight, video.duration]);
    video.onloadedmetadata = () => { video.currentTime = 0.3; video.play(); };  // it can be sought in
    video.muted = true;
    video.src = name;
})"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt install chromium")
def test_a_browser_plays_every_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codecs = {"h264.mp4": H264, "vp9.mp4": VP9, "vp9.webm": VP9}
    for name, codec in codecs.items():
        container = video.CONTAINERS[Path(name).suffix]
        monkeypatch.setitem(video.CONTAINERS, Path(name).suffix, container._replace(codecs=codec))
        record(tmp_path / name, [i / 10 for i in range(5)], fps=10)
    (tmp_path / "page.html").touch()

    async def play() -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open((tmp_path / "page.html").as_uri())
            await page.wait_until("location.href.endsWith('page.html')")
            for played in await page.evaluate(f"Promise.all({list(codecs)}.map({PLAYED}))"):
                assert played[1:3] == [*SIZE[::-1]], played
                assert played[3] == pytest.approx(0.5, abs=0.11)

    asyncio.run(play())


def test_an_avi_has_a_fixed_rate_and_keeps_the_times(tmp_path: Path) -> None:
    record(tmp_path / "run.avi", [0.0, 0.04, 0.08, 0.4, 0.44])
    found = probed(tmp_path / "run.avi")
    assert (found["codec_name"], found["r_frame_rate"]) == ("mjpeg", "25/1")
    assert found["frames"] == pytest.approx([0.0, 0.04, 0.08, 0.4, 0.44])
    real = decoded(tmp_path / "run.avi", SIZE)[SIZE[0] // 2 + CAPTION + H // 2, W // 2]
    assert np.abs(real - np.array([200, 40, 100.0])).max() < 8


def test_a_long_gap_is_cut_and_times_that_run_back_go_on(tmp_path: Path) -> None:
    record(tmp_path / "run.mp4", [0.0, 0.04, 600.0, 600.04, 2.0, 2.0, 2.5])
    found = probed(tmp_path / "run.mp4")["frames"]
    assert found == pytest.approx([0, 0.04, 10.04, 10.08, 10.12, 10.16, 10.66], abs=1e-3)


@pytest.mark.parametrize("suffix", list(video.CONTAINERS))
def test_an_encoder_takes_no_priority_over_the_machine(tmp_path: Path, suffix: str) -> None:
    """As root, libsvtav1 would give the whole process real-time priority."""
    record(tmp_path / f"run{suffix}", [0.0, 0.04])
    threads = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_OTHER}


def test_an_encoder_that_does_not_open_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    absent = tuple(codec for codec in H264 if codec.encoder in ("h264_nvenc", "h264_v4l2m2m"))  # no such hardware
    monkeypatch.setitem(video.CONTAINERS, ".mp4", video.CONTAINERS[".mp4"]._replace(codecs=(*absent, *VP9)))
    record(tmp_path / "run.mp4", [0.0, 0.04])
    assert probed(tmp_path / "run.mp4")["codec_name"] == "vp9"
    assert capfd.readouterr() == ("", "")
    monkeypatch.setitem(video.CONTAINERS, ".mp4", video.CONTAINERS[".mp4"]._replace(codecs=absent))
    with pytest.raises(SinkError, match=r"no encoder for it that opens \(h264_nvenc.*try an \.avi file"):
        record(tmp_path / "other.mp4", [0.0])
    assert not (tmp_path / "other.mp4").exists()


def test_a_recording_replaces_no_file(tmp_path: Path) -> None:
    asked = tmp_path / "run.mp4"
    asked.write_bytes(b"mine")
    outputs = [record(asked, [0.0, 0.1]).written() for _ in range(2)]
    assert asked.read_bytes() == b"mine"
    assert len({output["to"] for output in outputs}) == 2
    for output in outputs:
        assert re.fullmatch(rf"{TIMED}\.mp4", Path(output["to"]).name)
        assert len(probed(Path(output["to"]))["frames"]) == 2
    picture = tmp_path / "run.png"
    picture.write_bytes(b"mine")
    strip = StripSink(picture)
    strip.show(Result(Frame(i := shown(0).input, 0, 0), i, Prediction(i, 0, 0), STAMPS, i, i, 30.0, 30.0))
    strip.close()
    assert picture.read_bytes() == b"mine"
    assert re.fullmatch(rf"{TIMED}\.png", Path(strip.written()["to"]).name)


def test_an_empty_file_is_used_and_no_frame_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "run.mkv"
    path.touch()  # as mktemp does, and a run that was killed before its first frame
    assert record(path, [0.0]).written()["to"] == str(path)
    VideoSink(tmp_path / "other.mkv", 25).close()
    assert {item.name for item in tmp_path.iterdir()} == {"run.mkv"}


@pytest.mark.parametrize("trap", ["link", "hard link", "another owner's", "pipe"])
def test_nobody_can_lead_a_recording_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str) -> None:
    """Somebody else may write to the folder, such as /tmp, and has put something under the name just before."""
    path, other = tmp_path / "run.mp4", tmp_path / "other"
    real = os.open

    def opened(name: str, flags: int, mode: int = 0o777) -> int:
        if Path(name) == path and flags & os.O_CREAT and not os.path.lexists(path):
            if trap == "another owner's":
                os.close(real(name, flags, mode))
                monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
            elif trap == "pipe":
                os.mkfifo(path)
            else:
                other.touch()
                path.symlink_to(other) if trap == "link" else path.hardlink_to(other)
        return real(name, flags, mode)

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(SinkError) if trap in ("link", "another owner's") else contextlib.nullcontext():
        record(path, [0, 0.04])
    assert not other.exists() or other.stat().st_size == 0
    assert not path.is_file() or path.stat().st_size == 0


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        record(tmp_path / "run.mp4", [0, 0.04])
        write(tmp_path / "run.json", b"{}")
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {"0o600"}


def test_two_runs_on_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.mp4"
    first = VideoSink(path, 25)
    with pytest.raises(SinkError, match=r"another run is recording it \(choose another name\)"):
        VideoSink(path, 25)
    first.show(shown(0))
    first.close()
    second = VideoSink(path, 25)  # under another name, with the time
    with pytest.raises(SinkError, match=rf"another run is recording {TIMED}\.mp4"):
        VideoSink(path, 25, segment=10)
    VideoSink(tmp_path / "other.mp4", 25).close()
    second.close()
    VideoSink(path, 25).close()


def test_what_was_recorded_before_a_kill_plays(tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
import numpy as np
from framecast.camera import Frame
from framecast.runtime.predictor import Prediction
from framecast.runtime.sinks.sink import Result
from framecast.runtime.sinks.video import VideoSink
from framecast.testing import STAMPS
sinks = [VideoSink(Path(sys.argv[1]) / f"run{{ending}}", 25) for ending in (".mp4", ".mkv", ".webm", ".avi")]
for i in range(26):
    real = np.full(({H}, {W}, 3), 4 * i, np.uint8)
    for sink in sinks:
        sink.show(Result(Frame(real, i / 25, i), real, Prediction(real, i / 25, 0.0), STAMPS))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    for ending in (".mp4", ".mkv", ".webm", ".avi"):
        times = probed(tmp_path / f"run{ending}")["frames"]
        assert len(times) >= 12, ending  # of the first second, all but the last half
        assert times == pytest.approx([i / 25 for i in range(len(times))], abs=1e-3)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
@pytest.mark.parametrize("room", [0, 100_000, 200_000, None])
def test_a_disk_that_another_process_fills_leaves_a_playable_file(
    tmp_path: Path, ending: str, room: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"run{ending}"
    sink = VideoSink(path, 25)
    real_write, left = os.write, [1 << 40]

    def write(file: int, data: bytes) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real_write(file, bytes(data)[: left[0]])  # a disk takes what fits
        left[0] -= count
        return count

    def fill() -> None:
        for i in range(60):
            if i == 30 and room is not None:
                left[0] = room
            sink.show(noisy(i / 25))
        left[0] = 10  # only the end of the file does not fit
        sink.close()

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(SinkError) as raised:
        fill()
    said = f"cannot record to {path}: No space left on device (make room, or choose another path)"
    assert str(raised.value) == said
    sink.close()  # and no second error
    times = probed(path)["frames"]
    assert times == pytest.approx([i / 25 for i in range(len(times))], abs=1e-3)
    assert len(times) >= (12 if room is not None else 45)


def test_a_disk_that_becomes_read_only_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = VideoSink(tmp_path / "run.avi", 25)
    sink.show(shown(0.0))

    def refuse(file: int, data: bytes) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(SinkError, match=r"run\.avi: Read-only file system \(mount it writable, or choose another"):
        sink.show(shown(0.04))


@pytest.mark.parametrize("kind", ["removed", "renamed", "folder"])
def test_a_file_that_is_taken_away_is_said(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out" / "run.mkv"
    sink = VideoSink(path, 25)
    sink.show(shown(0.0))
    if kind == "removed":
        path.unlink()
    elif kind == "renamed":
        path.rename(path.with_name("other.mkv"))
    else:
        path.parent.rename(tmp_path / "elsewhere")
    with pytest.raises(SinkError, match=r"run\.mkv: it was removed or renamed meanwhile \(leave it in its place"):
        sink.show(shown(1.0))
    sink.close()
    if kind == "renamed":
        assert probed(path.with_name("other.mkv"))["frames"] == [0.0]


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_a_name_must_leave_room_for_the_time(suffix: str, tmp_path: Path) -> None:
    for length in (232, 240):
        with pytest.raises(SinkError, match=r"its name is too long for the time to be added \(shorten it\)"):
            check_recordable(tmp_path / f"{'n' * length}{suffix}")
    check_recordable(tmp_path / f"{'n' * 231}{suffix}")
    assert not [*tmp_path.iterdir()]


def test_segments_are_named_by_time_and_hold_all(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "run.mp4", 10, segment=2)
    for i in range(50):
        sink.show(shown(i / 10))
    sink.close()
    files = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert all(re.fullmatch(rf"{TIMED}\.mp4", path.name) for path in files)
    assert [len(probed(path)["frames"]) for path in files] == [20, 20, 10]
    assert sink.written()["files"] == 3
    assert sink.written()["to"] == str(files[-1])


def test_the_oldest_segments_make_room(tmp_path: Path) -> None:
    stays = [tmp_path / name for name in ("run.avi", "run-notes.avi", "other-20260101-000000.avi")]
    old = tmp_path / "run-20260101-000000.avi"
    for path in (*stays, old):
        path.write_bytes(bytes(900_000))
    os.utime(old, (0, 0))
    sink = VideoSink(tmp_path / "run.avi", 10, segment=1, keep=1e6)
    assert old.exists()  # it is not too much yet
    largest = 0
    for i in range(150):
        sink.show(noisy(i / 10))
        ours = [path for path in tmp_path.iterdir() if path not in stays]
        largest = max(largest, sum(path.stat().st_size for path in ours))
    sink.close()
    assert not old.exists()
    assert all(path.exists() for path in stays)
    assert sink.written()["removed"] > 1
    newest = Path(sink.written()["to"])
    assert newest.exists()
    assert largest < 1.6e6  # checked once a second


def test_what_is_no_recording_neither_blocks_nor_goes(tmp_path: Path) -> None:
    pipe, link, folder = (tmp_path / f"run-2026010{day}-000000.avi" for day in (1, 2, 3))
    os.mkfifo(pipe)
    (tmp_path / "mine").write_bytes(bytes(1_500_000))
    link.symlink_to("mine")
    folder.mkdir()
    undated = tmp_path / "run-99999999-999999.avi"
    undated.write_bytes(bytes(1_500_000))
    sink = VideoSink(tmp_path / "run.avi", 10, segment=1, keep=1e6)
    for i in range(30):
        sink.show(noisy(i / 10))
    sink.close()
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert folder.is_dir()
    assert undated.exists()


def test_segments_out_of_range_are_refused() -> None:
    for segment, keep, said in (
        (0.0, None, "a segment must last at least 1 s, not 0 s"),
        (60.0, 10.0, "the size to keep must be at least 1 MB"),
        (None, 1e9, "give segment as well, such as 10min"),
    ):
        with pytest.raises(OptionError, match=said):
            VideoSink(Path("run.mp4"), 25, segment, keep)
