"""``framecast run``: where its pictures and lines go, and what is said when they cannot go there."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from framecast.cli.run import all_of
from framecast.cli.signals import on_signals
from framecast.errors import SinkError

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .probing import probed  # noqa: TID252

COMMAND = [sys.executable, "-W", "error", "-m", "framecast", "run"]
CLIP = "synthetic://?size=160x120&frames=12"


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which ``framecast run`` is ``$RUN``."""
    environment = {**os.environ, "RUN": " ".join(COMMAND)}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_summary_names_codec_and_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("run", CLIP, "--record", "a.mp4", "--record", "a.png", "--json", "a.json")
    assert code == 0
    assert re.search(r"written +│ a\.mp4  \(H\.264\) ", out)
    figures = json.loads(Path("a.json").read_text())
    written = {"asked": "a.mp4", "to": "a.mp4", "codec": "H.264", "files": 1, "removed": 0}
    assert figures["outputs"][0] == {**written, "lost": 0, "missed": 0, "trouble": None}
    _, out, _ = run("run", CLIP, "--record", "a.mp4")
    assert re.search(r"written +│ a-\d{8}-\d{6}\.mp4  \(H\.264; a\.mp4 was there already\)", out)
    _, out, _ = run(
        "run", "synthetic://?size=160x120&frames=70", "--record", "b.mkv", "--segment", "1s", "--keep", "1MB"
    )
    assert re.search(r"written +│ b-\d{8}-\d{6}(-\d+)?\.mkv  \(H\.264; the last of 3 segments\)", out)


def test_bad_outputs_are_one_line(run: Run, tmp_path: Path) -> None:
    video = tmp_path / "x.mp4"
    cases: list[tuple[list[object], str]] = [
        (["--record", video, "--segment", "soon"], "--segment 'soon' is not a time: give seconds, minutes or hours"),
        (["--record", video, "--segment", "10"], "--segment '10' is not a time"),
        (["--record", video, "--segment", "0.5s"], "at least 1 s, not 0.5 s"),
        (["--record", video, "--segment", "1h", "--keep", "20"], "--keep '20' is not a size: give MB, GB or TB"),
        (["--record", video, "--segment", "1h", "--keep", "0GB"], "at least 1 MB, not 0 MB"),
        (["--record", video, "--keep", "1GB"], "give segment as well"),
        (["--record", tmp_path / "x.png", "--segment", "1h"], "give record as well, such as run.mp4"),
        (["--out", "gopher://u:s3cret@host/x"], "cannot send pictures to gopher://***@host/x: use rtsp://"),
        (["--out", "rtsp://u:s3cret@127.0.0.1:1/x"], "connection refused"),
    ]
    for arguments, said in cases:
        code, _, err = run("run", CLIP, *arguments)
        assert (code, err.count("\n")) == (1, 1), (arguments, err)
        assert err.startswith("framecast: "), (arguments, err)
        assert said in err, (arguments, err)
        assert "s3cret" not in err
    assert list(tmp_path.iterdir()) == []


def test_frames_on_standard_output_are_alone_there(tmp_path: Path) -> None:
    done = shell(f"$RUN '{CLIP}' --out - --record a.mp4 --json a.json > frames.y4m", tmp_path)
    assert done.returncode == 0
    assert "12 predicted" in done.stderr  # the summary
    assert (tmp_path / "frames.y4m").stat().st_size == 12 * (6 + 160 * 120 * 3 // 2) + 64
    assert len(probed(tmp_path / "frames.y4m")["frames"]) == 12
    done = shell(f"$RUN '{CLIP}' --out - | head -c 30000 > frames.y4m; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("framecast: lost standard output: what received the pictures has")


def test_a_closed_or_full_standard_output_costs_no_recording(tmp_path: Path) -> None:
    done = shell(f"$RUN '{CLIP}' --record a.mp4 --json a.json >&- <&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = shell(f"$RUN '{CLIP}' --record b.mp4 --json b.json >/dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "framecast: cannot write the output: No space left on device (make room, or send it elsewhere)\n"
    )
    done = shell(f"$RUN '{CLIP}' --record c.mp4 --json c.json | head -1", tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("framecast", "")
    for name in "abc":
        assert json.loads((tmp_path / f"{name}.json").read_text())["ended"] == "end of source"
        assert len(probed(tmp_path / f"{name}.mp4")["frames"]) == 12


def test_a_removed_working_folder_is_said_and_the_summary_printed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    from framecast.runtime.sinks.video import VideoSink

    real = VideoSink.show

    def show(self: VideoSink, result: object) -> None:
        if folder.exists():
            (folder / "a.mkv").unlink()
            folder.rmdir()
        real(self, result)  # type: ignore[arg-type]

    monkeypatch.setattr(VideoSink, "show", show)
    code, out, err = run("run", "synthetic://?size=160x120&frames=90", "--record", "a.mkv", "--json", "a.json")
    monkeypatch.chdir(tmp_path)
    assert code == 1
    assert err == (
        "framecast: cannot record to a.mkv: it was removed or renamed meanwhile "
        "(leave it in its place until the run ends)\n"
    )
    assert "not written" in out
    assert list(tmp_path.iterdir()) == []


def test_the_first_error_is_the_one_that_is_shown() -> None:
    done: list[str] = []

    def fail(name: str) -> None:
        done.append(name)
        raise SinkError(name)

    with pytest.raises(SinkError, match="first"):
        all_of(lambda: fail("first"), lambda: fail("second"), lambda: done.append("third"))
    assert done == ["first", "second", "third"]


def test_a_closed_terminal_ends_a_run_cleanly(tmp_path: Path) -> None:
    report = tmp_path / "a.json"
    terminal, ours = pty.openpty()
    arguments = ["demo", "--loop", "--realtime", "--record", str(tmp_path / "a.mp4"), "--json", str(report)]
    # A session of its own, with this terminal: closing our end hangs up.
    code = (
        "import os, sys, fcntl, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *COMMAND, *arguments], stdin=ours, stdout=ours, stderr=ours)
    os.close(ours)
    while b"fps" not in os.read(terminal, 10_000):  # the status line
        pass
    os.close(terminal)
    process.wait(60)
    assert json.loads(report.read_text())["ended"] == "interrupted"
    assert len(probed(tmp_path / "a.mp4")["frames"]) > 0


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with on_signals(lambda: None):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--realtime"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_reader_that_has_paused_does_not_outlive_the_first_signal(options: list[str], number: int) -> None:
    command = [sys.executable, "-m", "framecast", "run", "demo", "--loop", "--out", "-", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1000)  # then no more
        time.sleep(2)
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert b"interrupted" in process.stderr.read()
