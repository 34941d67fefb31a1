"""``framecast run --log json``: every line is JSON, whatever happens, and none has a secret."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
import typer

from framecast.cli.announce import announce
from framecast.cli.config_file import ConfigFile
from framecast.cli.logs import BURST, JsonLines, fail, summary
from framecast.errors import SinkError
from framecast.notice import Notice
from framecast.runtime.report import Report

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

SECRET = "hunter2-s3cret"
TOKEN = "a-token-of-the-owner"
CLIP = "synthetic://?size=160x120&frames=12"


def events(text: str) -> list[dict[str, Any]]:
    """The lines, each of which must be a whole event."""
    found = [json.loads(line) for line in text.splitlines()]
    for one in found:
        assert set(one) == {"time", "level", "event", "message", "fields"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["time"])
        assert one["level"] in ("debug", "info", "warning", "error")
        assert re.fullmatch(r"[a-z_]+", one["event"])
        assert one["message"]
        assert one["message"].isprintable()
    return found


def names(found: list[dict[str, Any]]) -> list[str]:
    return [one["event"] for one in found]


def test_a_run_is_all_json(run: Run) -> None:
    code, out, err = run("run", "demo", "--frames", "30", "--log", "json")
    assert (code, out) == (0, "")
    found = events(err)
    found = [one for one in found if one["event"] != "warning"]  # a slow machine gives more of them
    assert names(found) == ["started", "ready", "stopped", "summary"]
    assert found[0]["fields"] == {"source": "demo", "model": "edge", "engine": "opencv"}
    assert found[1]["fields"]["epoch"] == found[1]["fields"]["index"] == 0
    assert found[2]["fields"]["reason"] == "max frames"
    assert found[3]["fields"]["frames"] == 30
    told = [one["message"] for one in events(err) if one["event"] == "warning"]
    told, summed = ([re.sub(r"[\d.]+", "0", one) for one in some] for some in (told, found[3]["fields"]["warnings"]))
    assert told == summed  # but for the figures, which go on changing
    assert not isinstance(logging.getLogger().handlers[0], JsonLines)  # all is as it was


def test_with_verbose_there_is_more_at_debug_level(run: Run) -> None:
    _, _, err = run("run", CLIP, "--log=json", "-v")
    assert [one["message"] for one in events(err) if one["level"] == "debug"] == [
        "engine opencv on cpu: runs everywhere"
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "error", "message"),
    [
        (("nothing.mp4",), 1, "SourceError", "nothing.mp4"),
        (("demo", "--frames", "x"), 2, "BadParameter", "--frames takes a whole number, not 'x'"),
        (("demo", "--nope"), 2, "NoSuchOption", "no option --nope"),
        (("demo", "--record", "x.gif"), 1, "OptionError", ".mp4"),
        ((f"rtsp://u:{SECRET}@127.0.0.1:1/x", "--no-reconnect"), 1, "SourceUnavailableError", "connection refused"),
    ],
)
def test_an_error_is_an_event(run: Run, arguments: tuple[str, ...], code: int, error: str, message: str) -> None:
    ended, out, err = run("run", *arguments, "--log", "json")
    assert (ended, out) == (code, "")
    last = events(err)[-1]
    assert (last["level"], last["event"]) == ("error", "error")
    assert last["fields"] == {"error": error, "exit_code": code}
    assert message in last["message"]
    assert SECRET not in err


def test_an_unknown_form_is_one_line(run: Run) -> None:
    assert run("run", "demo", "--log", "xml") == (1, "", "framecast: --log takes text or json, not 'xml'\n")


def test_a_signal_ends_a_run_with_json_alone() -> None:
    command = [sys.executable, "-m", "framecast", "run", "demo", "--loop", "--realtime", "--log", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = ""
    while '"ready"' not in lines:
        lines += process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert (process.returncode, out) == (0, "")
    found = events(lines + err)
    assert names(found)[-2:] == ["stopped", "summary"]
    assert found[-2]["fields"]["reason"] == "interrupted"


def test_an_output_that_fails_is_an_event(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, result: object) -> None:
        raise SinkError("the disk is full: make room")

    monkeypatch.setattr("framecast.runtime.sinks.strip.StripSink.show", fail)
    code, _, err = run("run", CLIP, "--record", tmp_path / "a.png", "--log", "json")
    assert code == 1
    found = [one for one in events(err) if one["event"] != "warning"]
    assert names(found)[-4:] == ["output_lost", "stopped", "summary", "error"]
    assert found[-4]["message"] == "the disk is full: make room"


@pytest.mark.filterwarnings("default")
def test_what_libraries_say_is_json_and_shows_no_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also their prints, warnings and tracebacks, in threads too; an error that nobody has foreseen; the token."""
    monkeypatch.setenv("FRAMECAST_TOKEN", TOKEN)
    monkeypatch.setenv("SOURCE", f"rtsp://u:{SECRET}@127.0.0.1:1/x?token={SECRET}")

    def speak(*_: object, **__: object) -> None:
        logging.getLogger("library").warning("cannot open rtsp://u:%s@h/x: %s", SECRET, SECRET)
        logging.getLogger("library").info("not of interest")
        warnings.warn(f"http://h/?password={SECRET} is old", stacklevel=1)
        print(f"out {SECRET}\nof tune {TOKEN}")  # noqa: T201
        print("err", file=sys.stderr)  # noqa: T201

        def break_off() -> None:
            raise ValueError(SECRET)

        thread = threading.Thread(target=break_off, name="worker")
        thread.start()
        thread.join()
        raise ZeroDivisionError(f"by {SECRET}")

    monkeypatch.setattr("framecast.runtime.run.run", speak)
    code, out, err = run("run", "env:SOURCE", "--serve", "127.0.0.1:0", "--log", "json")
    assert (code, out) == (1, "")
    assert SECRET not in err
    assert TOKEN not in err
    found = events(err)
    assert names(found) == ["log", "warning", "printed", "printed", "printed", "thread_failed", "error"]
    assert found[0]["fields"] == {"logger": "library"}
    assert found[5]["fields"]["thread"] == "worker"
    assert "break_off" in found[5]["fields"]["traceback"]
    assert found[6]["fields"]["error"] == "ZeroDivisionError"
    assert "speak" in found[6]["fields"]["traceback"]


def test_a_token_that_was_made_for_the_run_is_not_logged(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRAMECAST_TOKEN", raising=False)
    _, _, err = run("run", CLIP, "--serve", "0.0.0.0:0", "--log", "json")
    (serving,) = [one for one in events(err) if one["event"] == "serving"]
    assert serving["message"].endswith("/?token=***")
    assert serving["fields"]["token"] is True


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """A function that returns what the logger ``test`` has written."""
    path = tmp_path / "lines"
    logger = logging.getLogger("test")
    logger.handlers[:], logger.propagate = [JsonLines(path.open("w"))], False
    return lambda: events(path.read_text())


def test_an_event_that_repeats_does_not_fill_a_disk(lines: Callable[[], list[dict[str, Any]]]) -> None:
    for minute in range(2):
        for number in range(100):
            record = logging.LogRecord("test", logging.WARNING, "", 0, Notice("reset", f"again {number}"), (), None)
            record.created = 60.0 * minute
            logging.getLogger("test").handle(record)
    found = lines()
    assert len(found) == 2 * BURST
    assert found[BURST]["fields"] == {"left_out": 100 - BURST}


def test_each_of_many_cameras_has_its_events_and_warnings(run: Run, tmp_path: Path) -> None:
    """Warnings that differ only in figures are one, but not those of another camera."""
    count = BURST + 1
    code, _, err = run("run", *[CLIP.replace("12", "3")] * count, "--log", "json")
    assert code == 0
    found = events(err)
    every = {f"camera{n}" for n in range(1, count + 1)}
    for event in ("started", "camera_summary", "warning"):
        assert {one["fields"]["camera"] for one in found if one["event"] == event} == every, event
    assert all(one["message"].startswith(f"{one['fields']['camera']}: ") for one in found if one["event"] == "warning")


def test_no_rest_of_a_secret_is_left_that_begins_as_another_one() -> None:
    handler = JsonLines(io.StringIO())
    handler.secrets = {SECRET[:length] for length in range(6, len(SECRET) + 1)}
    said = handler.line(logging.makeLogRecord({"msg": f"cannot open {SECRET}"}))
    assert json.loads(said)["message"] == "cannot open ***"


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    JsonLines(Full()).emit(logging.LogRecord("test", logging.ERROR, "", 0, "lost", (), None))


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_pipe_that_nobody_reads_holds_up_nothing(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    with os.fdopen(reader), os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        if form == "json":
            JsonLines(stream).handle(logging.makeLogRecord({"msg": "hello"}))
        else:
            announce("hello")
            fail("hello", 1)
            with pytest.raises(typer.Exit):  # as when a run reads it again
                ConfigFile("box.toml").fail([(1, "hello")])
            monkeypatch.setattr(sys, "stdout", stream)
            summary(cast("Report", {}), None)


def test_a_long_line_waits_for_no_reader_and_the_next_is_whole() -> None:
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 8192)
    with os.fdopen(reader) as reading, os.fdopen(writer, "w") as stream:
        lines = JsonLines(stream)
        lines.handle(logging.makeLogRecord({"msg": "x" * 10 * size}))  # returns
        lines.handle(logging.makeLogRecord({"msg": "lost"}))  # nothing of it is written
        begun = os.read(reader, 10 * size)
        assert 0 < len(begun) <= size
        lines.handle(logging.makeLogRecord({"msg": "hello"}))
        stream.close()
        torn, whole, rest = (begun.decode() + reading.read()).split("\n")
    assert (torn.count("x") > 100, json.loads(whole)["message"], rest) == (True, "hello", "")


def test_mistakes_in_a_configuration_file_are_one_error(run: Run, tmp_path: Path) -> None:
    box = tmp_path / "box.toml"
    box.write_text("".join(f"wrong{number} = 1\n" for number in range(15)))
    code, out, err = run("run", "--config", box, "--log", "json")
    assert (code, out) == (2, "")
    (event,) = map(json.loads, err.splitlines())
    assert (event["event"], event["fields"]["exit_code"]) == ("error", 2)
    assert event["message"].count("unknown key") == 15
