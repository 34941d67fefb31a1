"""The command line: what a user types, and the output, files and errors that result."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from framecast.errors import SinkError

from .conftest import RtspServer, Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


def frames_in(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count


def wait_for(recording: Path) -> None:
    """Wait until a recording has begun to grow."""
    deadline = time.monotonic() + 120
    while (not recording.exists() or recording.stat().st_size < 20_000) and time.monotonic() < deadline:
        time.sleep(0.1)


def spawn(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "framecast", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_run_records_and_reports_the_demo(run: Run, tmp_path: Path) -> None:
    video, strip, report = tmp_path / "a.mp4", tmp_path / "a.png", tmp_path / "a.json"
    code, out, _ = run("run", "demo", "--record", video, "--record", strip, "--json", report)
    assert code == 0
    assert "predicted" in out
    assert frames_in(video) == 217
    assert cv2.imread(str(strip)) is not None
    figures = json.loads(report.read_text(), parse_constant=pytest.fail)
    assert set(figures) >= {"frames", "dropped", "fps", "latency_ms", "psnr_db", "engine", "model", "versions"}
    assert set(figures["latency_ms"]) == {"p50", "p90", "p99", "max", "n"}
    assert figures["frames"] == figures["latency_ms"]["n"] == 217
    assert figures["dropped"] == 0
    assert figures["psnr_db"]["prediction"] > figures["psnr_db"]["copy_last"]


def test_a_folder_of_images_and_a_file(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    for i in range(15):
        image = np.zeros((120, 160, 3), np.uint8)
        cv2.circle(image, (20 + 4 * i, 60), 12, (200, 180, 40), -1)
        cv2.imwrite(str(folder / f"{i}.png"), image)
        writer.write(image)
    writer.release()
    for source in (folder, folder / "*.png", tmp_path / "clip.avi"):
        report = tmp_path / "report.json"
        assert run("run", source, "--json", report, "--horizon", 3)[0] == 0
        figures = json.loads(report.read_text())
        assert figures["frames"] == 15
        assert [q["ahead_ms"] for q in figures["psnr_db_by_ahead"]] == [pytest.approx(120, abs=0.5)]
        assert figures["psnr_db_by_ahead"][0]["n"] == figures["psnr_db"]["n"] > 0


@pytest.mark.parametrize("ahead", ["120ms", "0.12s", "120", ".12 s"])
def test_a_lookahead_in_milliseconds_or_seconds(run: Run, tmp_path: Path, ahead: str) -> None:
    report = tmp_path / "report.json"
    assert run("run", "synthetic://?size=160x120&frames=12", "--ahead", ahead, "--json", report)[0] == 0
    assert json.loads(report.read_text())["ahead_ms"] == 120


def test_now_plays_a_file_at_its_own_frame_rate(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    clip = "synthetic://?size=160x120&frames=45"
    code, out, err = run("run", clip, "--now", "--camera-delay", "100ms", "--json", report)
    assert code == 0, err
    figures = json.loads(report.read_text())
    assert figures["now"]["n"] == figures["frames"]
    assert figures["now"]["late"] >= 100
    assert figures["ahead_ms"] >= 100
    assert figures["fps"] < 32
    assert "shown: now " in out
    assert "ms old when it is shown" in out


def test_lists(run: Run) -> None:
    code, out, _ = run("models")
    assert code == 0
    for name in ("stip-ucf", "stip-h36m", "stip-4k", "stip-edge"):
        assert name in out
    code, out, _ = run("doctor")
    assert code == 0
    assert "onnxruntime" in out
    assert run("--version")[1].startswith("framecast ")


def test_bad_input_is_one_line_with_the_cure(run: Run, tmp_path: Path) -> None:
    empty, text, fifo = tmp_path / "empty.mp4", tmp_path / "text.onnx", tmp_path / "pipe.mp4"
    empty.touch()
    text.write_text("no protobuf")
    os.mkfifo(fifo)
    folder = tmp_path / "folder"
    folder.mkdir()
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = f"127.0.0.1:{busy.getsockname()[1]}"
        cases: list[tuple[list[object], int, str]] = [
            (["run", tmp_path / "none.mp4"], 1, "demo"),
            (["run", empty], 1, "empty"),
            (["run", folder], 1, "image"),
            (["run", fifo], 1, "regular file"),
            (["run", "gopher://host"], 1, "unknown scheme"),
            (["run", "demo", "--timeout", "15"], 1, "--timeout 15 is 15 ms, too short to wait: write seconds as 15s"),
            (["run", "demo", "--conceal", "0ms"], 1, "--conceal 0ms is 0 ms, too short to wait: give at least 100ms"),
            (["run", "demo", "--conceal=-1s"], 1, "--conceal '-1s' is not a time"),
            (["run", "demo", "--conceal", "36000s"], 1, "conceal must be above 0 and at most 10 s, not 36000 s"),
            (["run", "demo", "--conceal", "500ms"], 1, "cannot conceal in a file at full speed"),
            (["run", "rtsp://user:s3cret@127.0.0.1:1/x", "--no-reconnect"], 1, "connection refused"),
            (["run", "demo", "--model", "nope"], 1, "stip-edge"),
            (["run", "demo", "--model", text], 1, "framecast export"),
            (["run", "demo", "--engine", "nope"], 1, "onnxruntime"),
            (["run", "demo", "--horizon", 0], 1, "at least 1"),
            (["run", "demo", "--frames", -3], 1, "at least 1"),
            (["run", "demo", "--ahead", "soon"], 1, "--ahead 'soon' is not a time: give milliseconds or seconds"),
            (["run", "demo", "--ahead=-5ms"], 1, "--ahead '-5ms' is not a time"),
            (["run", "demo", "--ahead", "0ms"], 1, "ahead must be above 0"),
            (["run", "demo", "--ahead", "20s"], 1, "at most 10 s"),
            (["run", "demo", "--now", "--horizon", 2], 1, "give one of them"),
            (["run", "demo", "--now", "--ahead", "80ms"], 1, "give one of them"),
            (["run", "demo", "--ahead", "80ms", "--horizon", 2], 1, "give one of them"),
            (["run", "demo", "--camera-delay", "150ms"], 1, "has no effect without 'now'"),
            (["run", "demo", "--now", "--camera-delay", "near"], 1, "--camera-delay 'near' is not a time"),
            (["run", "demo", "--now", "--max-ahead", "0ms"], 1, "the longest lookahead must be above 0"),
            (["run", "demo", "--refresh", 0, "--realtime"], 1, "the refresh rate must be 1 to 1000 a second"),
            (["run", "demo", "--serve", taken], 1, "choose another"),
            (["run", "demo", "--record", "/proc/no/x.mp4"], 1, "another path"),
            (["run", "demo", "--record", tmp_path / "x.gif"], 1, ".mp4"),
            (["run", "demo", "--json", "/proc/no/x.json"], 1, "another path"),
            (["export", "nope"], 1, "stip-edge"),
            (["export", "stip-edge", "-o", tmp_path / "x.txt"], 1, "ends in .onnx"),
            (["export", "stip-edge", "-o", "/proc/x.onnx"], 1, "choose another"),
            (["export", "stip-edge", "--seed", -1], 1, "--seed must be from 0"),
            (["export", "stip-edge", "--source", empty, "-o", tmp_path / "x.onnx"], 1, "empty"),
            (
                ["export", "stip-edge", "--weights", "no.safetensors", "-o", tmp_path / "x.onnx"],
                1,
                "no such weights file",
            ),
            (["inspect", "mau-mnist", empty, "-o", tmp_path / "look"], 1, "empty"),
            # mau-mnist needs an export first. Errors that are known without it are reported before it begins.
            (["run", "demo", "--model", "mau-mnist", "--engine", "nope"], 1, "onnxruntime"),
            (["run", "demo", "--model", "mau-mnist", "--threads", -1], 1, "threads must be 0"),
            (["run", "demo", "--model", "mau-mnist", "--record", tmp_path / "x.gif"], 1, ".mp4"),
            (["run", "demo", "--model", "mau-mnist", "--json", "/proc/no/x.json"], 1, "another path"),
            (["run", empty, "--model", "mau-mnist"], 1, "empty"),
            (["run"], 2, "framecast run needs SOURCE"),
            (["run", "demo", "--horizon", "far"], 2, "--horizon takes a whole number, not 'far'"),
            (["run", "demo", "--zzz"], 2, "framecast run has no option --zzz (see 'framecast run --help')"),
            (["nope"], 2, "no command 'nope': use run, config, delay, eval"),
            (["rtsp://user:s3cret@127.0.0.1/x"], 2, "--help"),
            (["delay", "demo", "rtsp://user:s3cret@127.0.0.1/x"], 2, "--help"),
            (["run", "demo", "--model", "rtsp://user:s3cret@127.0.0.1/x"], 1, "no such artifact"),
            (["run", "demo", "--record", fifo], 1, "regular file"),
        ]
        for arguments, expected, cure in cases:
            code, _, err = run(*arguments)
            assert (code, err.count("\n")) == (expected, 1), (arguments, err)
            assert err.startswith("framecast: "), (arguments, err)
            assert cure in err, (arguments, err)
            assert "s3cret" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_cleanly_with_a_playable_file(tmp_path: Path, number: signal.Signals) -> None:
    video, report = tmp_path / "run.mp4", tmp_path / "run.json"
    process = spawn("run", "demo", "--loop", "--realtime", "--record", str(video), "--json", str(report))
    wait_for(video)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 0, err
    figures = json.loads(report.read_text())
    assert figures["ended"] == "interrupted"
    assert frames_in(video) >= figures["frames"] > 5  # a slow machine drops frames; the recording fills in


def test_a_run_that_fails_before_its_first_frame_has_a_summary(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"x")
    code, out, err = run("run", tmp_path / "a.heic")
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot decode HEIC" in err
    assert "error: cannot decode HEIC" in out


def test_a_lost_camera_is_reported_and_the_recording_stays_playable(rtsp_server: RtspServer, tmp_path: Path) -> None:
    video, report = tmp_path / "run.mp4", tmp_path / "run.json"
    process = spawn("run", rtsp_server.url, "--record", str(video), "--json", str(report), "--no-reconnect")
    wait_for(video)
    rtsp_server.process.kill()
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("framecast: lost rtsp://")
    assert "Traceback" not in err
    figures = json.loads(report.read_text())
    assert figures["ended"].startswith("error: lost rtsp://")
    assert frames_in(video) >= figures["frames"] > 5  # the recording fills in dropped frames


def test_the_page_shows_a_run(tmp_path: Path) -> None:
    video = tmp_path / "run.avi"
    process = spawn("run", "--serve", "127.0.0.1:0", "demo", "--loop", "--record", str(video))
    assert process.stderr is not None
    url = process.stderr.readline().removeprefix("watch it at ").strip()
    wait_for(video)
    with urllib.request.urlopen(f"{url}stats.json") as answer:
        figures = json.load(answer)
    assert figures["model"] == "edge"
    assert figures["frames"] > 0
    with urllib.request.urlopen(url) as answer:
        assert b"framecast" in answer.read()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert frames_in(video) > 0


def test_a_failing_output_is_recorded_in_the_report(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, event: object) -> None:
        raise SinkError("the disk is full: make room")

    monkeypatch.setattr("framecast.runtime.sinks.strip.StripSink.show", fail)
    video, report = tmp_path / "a.avi", tmp_path / "a.json"
    code, out, err = run("run", "demo", "--record", video, "--record", tmp_path / "a.png", "--json", report)
    assert (code, err) == (1, "framecast: the disk is full: make room\n")
    assert json.loads(report.read_text())["ended"] == "error: the disk is full: make room"
    assert "not written" in out
    assert frames_in(video) > 0


def test_an_output_never_overwrites_an_input(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip = Path("clip[/b].avi")  # also looks like markup
    assert run("run", "synthetic://?frames=12", "--record", clip)[0] == 0
    before = clip.read_bytes()
    Path("frames").mkdir()
    for source, outputs in (
        (clip, ["--record", clip.parent / ".." / clip.parent.name / clip.name]),
        (f"file://{clip.absolute()}", ["--record", clip]),
        ("demo", ["--record", "x.png", "--record", tmp_path / "x.png"]),
        ("frames", ["--record", "frames/strip.png"]),
        ("frames/*.png", ["--record", "frames/strip.png"]),
    ):
        code, _, err = run("run", source, *outputs)
        assert code == 1
        assert "give each output its own path" in err
    assert clip.read_bytes() == before
    assert "clip[/b].avi" in run("run", clip)[1]


def test_an_unexpected_error_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framecast.runtime.doctor.examine", lambda: 1 / 0)
    code, _, err = run("doctor")
    assert code == 1
    assert err.startswith("framecast: unexpected ZeroDivisionError: division by zero: rerun with --verbose")
