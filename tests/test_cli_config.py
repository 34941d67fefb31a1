"""The configuration file of ``framecast run``: its example, its checks, and the place of every mistake."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from framecast.cli.config import check_file, example_file
from framecast.cli.config_file import options
from framecast.cli.run import run as run_command
from framecast.cli.run_options import CHECKS
from framecast.cli.statements import MOST, read_statements

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

CLIP = "synthetic://?size=64x48&fps=30&frames=3&seed=1"
SECRET = "s3cret"
Check = Callable[[str | bytes], tuple[int, str]]
NOT_TOML = "not valid TOML"


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for a file, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return Path("box.toml")


@pytest.fixture
def check(box: Path, capfd: pytest.CaptureFixture[str]) -> Check:
    """A function that checks a text: exit code and messages. It is quicker than the command line."""

    def call(text: str | bytes) -> tuple[int, str]:
        box.write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            check_file(str(box))
        except typer.Exit as end:
            return end.exit_code, capfd.readouterr().err
        return 0, capfd.readouterr().err

    return call


def test_the_example_names_every_option_of_run_and_no_other(box: Path, run: Run) -> None:
    code, text, err = run("config", "--example")
    assert (code, err) == (0, "")
    wanted = {name.replace("_", "-") for name in inspect.signature(run_command).parameters} - {"config"}
    text, _, cameras = text.partition("# Several cameras")
    shown = re.findall(r"^#?([\w-]+) = ", text, re.MULTILINE)
    assert set(shown) == wanted
    assert len(shown) == len(wanted)
    assert max(map(len, text.splitlines())) <= 100
    assert f"\n# {'With now: the camera' + chr(39) + 's delay'}" in text  # help, without dashes
    unset = re.findall(r"^#([\w-]+) = .*  # default: not set$", text, re.MULTILINE)
    no_default = {one.key for one in options(run_command) if one.default is None} - {"source", "horizon"}
    assert set(unset) == no_default
    assert "(default: 127.0.0.1:8000)" not in text  # that is what --serve means alone
    box.write_text(text)
    assert run("config", "--check", box) == (0, "box.toml: no mistakes\n", "")
    table = re.sub(r"^# (?=\[|\w+(-\w+)? = )", "", cameras, flags=re.MULTILINE)
    assert table.count("\n[[camera]]\n") == 2
    box.write_text("now = true\n# " + table)
    assert run("config", "--check", box) == (0, "box.toml: no mistakes\n", "")


def test_the_example_is_equal_to_the_defaults_and_each_setting_is_valid(check: Check) -> None:
    text = example_file()
    statements, mistakes = read_statements(text)
    assert ([(one.key, one.value) for one in statements], mistakes) == ([("source", "demo")], [])
    every, mistakes = read_statements(re.sub(r"^#(?=[\w-]+ = )", "", text, flags=re.MULTILINE))
    assert mistakes == []
    values = {one.key: one.value for one in every}
    for option in options(run_command):
        if option.default is not None:
            assert values[option.key] == option.default, option.key
        needs = {
            "camera-delay": "now = true",
            "display-delay": "now = true",
            "token-file": 'serve = "127.0.0.1:8000"',
            "host": 'serve = "127.0.0.1:8000"',
            "segment": 'record = ["run.mkv"]',
            "keep": 'record = ["run.mkv"]\nsegment = "10min"',
        }
        assert check(f"{option.key} = {json.dumps(values[option.key])}\n{needs.get(option.key, '')}") == (0, "")


@pytest.mark.parametrize(
    "source", ["rtsp://camera.invalid/live", "7", "-", "env:NOT_SET", "@/not/there", "udp://:5000"]
)
def test_a_source_is_checked_without_asking_a_camera(source: str, check: Check) -> None:
    assert check(f'source = "{source}"') == (0, "")


def test_every_option_with_a_value_has_a_check() -> None:
    unchecked = {option.name for option in options(run_command) if option.kind is not bool} - set(CHECKS)
    assert unchecked == {"source", "token_file"}  # read at once instead: secret.py
    assert {option.kind for option in options(run_command)} <= {bool, int, float, str, list, Path}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('\n# stall = 3\ncamera_delay = "1s"', ':3: unknown key "camera_delay" (did you mean "camera-delay"?)'),
        ("zzzzzz = 1", ":1: unknown key \"zzzzzz\" (see 'framecast config --example')"),
        ('config = "a.toml"', ':1: unknown key "config"'),
        ("verbose = true", ':1: unknown key "verbose"'),
        ('["camera"]\nstall = 3', ":1: each camera is a table of its own: write [[camera]], and its keys below it"),
        ("camera.delay = 3", ":1: each camera is a table of its own"),
        ("[other]\nstall = 3", ':1: unknown key "other" (the only tables are [[camera]])'),
        ("stall.x = 3", ":1: stall takes a string, not a table"),
        ('source = "rstp://cam/live"', ":1: source: unknown scheme in rstp://cam/live"),
        ('source = "rtsp://cam:99999/live"', ":1: source: not a URL: rtsp://cam:99999/live (its port must be a number"),
        ('source = "rtsp://u:s3cret@cam:99999/"', ":1: source: not a URL: rtsp://***@cam:99999/ (its port must be"),
        (
            'source = "rtsp:///live"',
            ":1: source: not a URL: rtsp:///live (it has no host; write it like rtsp://host/path)",
        ),
        ('source = "v4l2:///dev/video0?sise=1x1"', ":1: source: "),
        ('source = "csi://x"', ":1: source: "),
        ('source = "none.mp4"', ":1: source: no such file: none.mp4 (check the path"),
        ('[[camera]]\nsource = "synthetic://?size=big"', ":2: source: not numbers: synthetic://?size=big"),
        ('stall = "2"', ":1: stall: 2 is 2 ms, too short to wait: write seconds as 2s"),
        ('stall = "soon"', ":1: stall: 'soon' is not a time: give milliseconds or seconds"),
        ('stall = ["2s"]', ":1: stall takes a string, not this list"),
        ("stall = 2026-11-29", ":1: stall takes a string, not a date or time"),
        ('camera-delay = "99s"', ":1: camera-delay: the camera delay must be 0 to 10 s, not 99 s"),
        ('camera-delay = "1s"', ":1: the camera delay has no effect without 'now'"),
        ('ahead = "1s"\nnow = true', ":1: now, ahead and horizon exclude each other"),
        ('ahead = "99s"', ":1: ahead: ahead must be above 0"),
        ('max-ahead = "0"', ":1: max-ahead: the longest lookahead must be above 0"),
        ('stall = "3s"\n"stall" = "3s"', ":2: stall is there already, in line 1: leave one out"),
        ("horizon = 0", ":1: horizon: must be at least 1, not 0"),
        ("horizon = 1.0", ":1: horizon takes a whole number, not 1.0"),
        ('frames = "9"', ':1: frames takes a whole number without quotes, not "9"'),
        ("threads = true", ":1: threads takes a whole number, not true"),
        ("threads = -1", ":1: threads: threads must be 0"),
        ("refresh = nan", ":1: refresh: the refresh rate must be 1 to 1000"),
        ("now = 1", ":1: now takes true or false, not 1"),
        ("serve = 8000", ':1: serve takes a string, not 8000: write serve = "8000"'),
        ('serve = "/x"', ":1: serve: cannot serve on '/x'"),
        ('record = "a.mkv"', ':1: record takes a list of strings, as in record = ["…"], not "a.mkv"'),
        ("record = [1]", ":1: record takes a list of strings"),
        ('record = ["a.gif"]', ":1: record: cannot record a.gif: unknown suffix"),
        ('record = ["a.mkv", "./a.mkv"]', ":1: a.mkv is among the inputs, or named twice"),
        ('segment = "1h"', ":1: segment is for videos"),
        ('keep = "1GB"', ":1: keep removes the oldest segments, but there are none"),
        ('keep = "1"', ":1: keep: '1' is not a size"),
        ('json = "a.txt"', ":1: json: a.txt: give a file that ends in .json"),
        ('out = ["gopher://x"]', ":1: out: cannot send pictures to gopher://x"),
        ('host = ["http://x"]', ":1: host: cannot serve as 'http://x'"),
        ('host = ["x"]', ":1: --host is for the page: give --serve as well"),
        ('token-file = "x"', ":1: --token-file is for the page: give --serve as well"),
        ('engine = "nope"', ":1: engine: no engine 'nope'"),
        ('model = "nope"', ":1: model: no model 'nope'"),
        (r'source = "a\u0000"', ":1: source has a NUL character"),
        ("stall = 2.5s", f":1: {NOT_TOML}, column 12: Expected newline"),
        (
            "now = True",
            f":1: {NOT_TOML}, column 7: Invalid value (write text in quotes, and switches as true or false)",
        ),
        ("\n\nrun.mkv", f":3: {NOT_TOML}"),
        ('record = [\n"a.mkv"\n"b.mkv"]', f":3: {NOT_TOML}, column 1: Unclosed array"),
        ('stall = "2s\nnow = true', f":1: {NOT_TOML}"),
        ('source = """demo', f":1: {NOT_TOML}: Unterminated string"),
        ("source = '''demo\n\n", f":1: {NOT_TOML}"),
        ("record = [", f":1: {NOT_TOML}"),
        ("] = 1", f":1: {NOT_TOML}"),
        ("\\", f":1: {NOT_TOML}"),
        ('source = "a\0"', f":1: {NOT_TOML}: the character U+0000"),
        ("now = true\n# \f", f":2: {NOT_TOML}: the character U+000C"),
        ("now = true\rloop = true", f":1: {NOT_TOML}: the character U+000D"),
        ("x = " + "[" * 10_000, f":1: {NOT_TOML}: nested too deeply"),
        ("x" + ".x" * 101 + " = 1", f":1: {NOT_TOML}: more than 20 dots"),
        (f'stall = "rtsp://{"pass" * 1_000}"', ":1: stall: 'rtsp://passpass"),  # once cubic time in redact
        (f"record = {['a'] * 101}", ":1: record has more than 100 values"),
        ("stall = 0x" + "f" * 5_000, ":1: stall is too large"),
        ("frames = 9223372036854775808", ":1: frames is too large"),
        ("x = " + "9" * 5_000, f":1: {NOT_TOML}: Exceeds the limit"),
        (f'stall = "{"x" * 4_000}"', ":1: stall: 'xxx"),
        (f'record = ["{"x" * 5_000}"]', ":1: record is longer than 4096 characters"),
        (b'# \xe9\nstall = "\xe9"', ":1: not UTF-8: save the file as UTF-8"),
        ('stall = "1"'.encode("utf-16"), ":1: not UTF-8"),
        (b"#" * (MOST + 1), ": it is larger than 1 MB"),
    ],
)
def test_every_mistake_has_its_place(text: str | bytes, message: str, check: Check) -> None:
    code, err = check(text)
    assert (code, err.count("\n")) == (2, 1), err[:500]
    assert err.startswith(f"box.toml{message}"), err
    assert len(err) < 400


def test_all_mistakes_are_shown_at_once_and_the_command_line_is_not_enough(box: Path, run: Run) -> None:
    box.write_text('stall = "2"\nnow = True\n\ntimeout = """\nstall = 3\n"""\nsourc = "x"\n[t]\nstall = 3\nbroken\n')
    for arguments in (["config", "--check", box], ["run", "--config", box, "demo", "--stall", "3s"]):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert [line.partition(": ")[0] for line in err.splitlines()] == [f"box.toml:{n}" for n in (1, 2, 4, 7, 8, 10)]
    box.write_text("x = 1\n" * 50)
    lines = run("config", "--check", box)[2].splitlines()
    assert len(lines) == 21
    assert lines[-1] == "box.toml: and 30 more mistakes"


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, run: Run) -> None:
    fifo, closed = tmp_path / "fifo", tmp_path / "closed"
    os.mkfifo(fifo)
    closed.touch(0)
    cases = {
        "/no/such": "No such file",
        tmp_path: "it is a folder",
        fifo: "it is not a regular file",
        "": "",
        "a\0b": "no such",
    }
    if os.geteuid():
        cases[closed] = "Permission denied"
    for path, reason in cases.items():
        code, out, err = run("run", "--config", path)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f": cannot read it: {reason}" in err
    assert run("config")[:2] == (1, "")
    assert run("config", "--example", "--check", "x")[:2] == (1, "")


def test_the_command_line_wins_and_lists_replace_lists(box: Path, run: Run) -> None:
    box.write_text(
        f'\N{ZERO WIDTH NO-BREAK SPACE}source = "{CLIP}"\r\nframes = 2\r\njson = "a.json"\r\nhorizon = 2\r\n'
    )
    assert run("run", "--config", box)[0] == 0
    report = json.loads(Path("a.json").read_text())
    assert (report["frames"], report["source"]) == (2, CLIP)
    assert run("run", "--config", box, CLIP.replace("seed=1", "seed=2"), "--frames", 1, "--json", "b.json")[0] == 0
    report = json.loads(Path("b.json").read_text())
    assert (report["frames"], report["source"]) == (1, CLIP.replace("seed=1", "seed=2"))
    code, _, err = run("run", "--config", box, "--ahead", "1s")
    assert code == 2  # two options that exclude each other, one of them from the file
    assert err == "box.toml:4: now, ahead and horizon exclude each other: give one of them\n"
    code, _, err = run("run", "--config", box, "--json", "c.txt")
    assert (code, err[:26]) == (1, "framecast: --json c.txt: g")  # not a mistake of the file, which also sets it
    box.write_text("frames = 2")
    assert run("run", "--config", box)[2].startswith("framecast: framecast run needs SOURCE")


def test_values_are_those_of_the_command_line(box: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Both ways lead to the same call of ``framecast.run``."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("framecast.runtime.run.run", lambda *source, **given: calls.append({**given, "source": source}))
    monkeypatch.setenv("HOME", str(box.parent.resolve()))
    Path("token").write_text("a-token-of-16-characters")
    box.write_text("""
        source = "demo"
        now = true
        camera-delay = "180ms"
        refresh = 60
        serve = ":0"
        token-file = "~/token"
        host = ["cam.example.org", "b"]
        record = ["~/a.mkv", "b.png"]
        segment = "10min"
        keep = "20GB"
        conceal = "1s"
        reconnect = false
        stall = "3s"
        threads = 2
    """)
    assert run("run", "--config", box)[0] == 0
    words = "demo --now --camera-delay 180ms --refresh 60 --serve :0 --token-file token --host cam.example.org --host b"
    words += f" --record {Path.cwd()}/a.mkv --record b.png --segment 10min --keep 20GB --conceal 1s --no-reconnect"
    assert run("run", *words.split(), "--stall", "3s", "--threads", "2")[0] == 0
    first, second = (
        {name: value for name, value in call.items() if name not in ("observe", "stuck", "stop", "sinks")}
        for call in calls
    )
    assert first == second
    assert first["token"] == "a-token-of-16-characters"


def test_secrets_come_from_elsewhere_and_are_never_shown(box: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAMERA_URL", raising=False)
    box.write_text('\nsource = "env:CAMERA_URL"\nframes = 2')
    code, _, err = run("run", "--config", box)
    assert code == 1  # systemd starts it again: the variable is not in the file
    assert err.startswith("framecast: box.toml:2: cannot read the source from the environment: CAMERA_URL is not set")
    monkeypatch.setenv("CAMERA_URL", CLIP)
    assert run("run", "--config", box)[0] == 0
    Path("camera").write_text(CLIP)
    box.write_text('source = "@camera"\nframes = 2\nserve = "127.0.0.1:0"\ntoken-file = "none"')
    code, _, err = run("run", "--config", box)
    assert (code, "box.toml:4: cannot read the token from none: No such file" in err) == (1, True)


def test_a_password_in_a_readable_file_gives_a_warning(box: Path, run: Run, check: Check) -> None:
    address = f"rtsp://user:{SECRET}@127.0.0.1:1/x"
    box.write_text(f'source = "{address}"\nreconnect = false\nframes = 2')
    box.chmod(0o644)
    code, _, err = run("run", "--config", box)
    warning, error = err.splitlines()
    assert code == 1
    assert warning.startswith("warning: box.toml: other users can read its password: chmod 600 box.toml")
    assert "no stream from rtsp://***@127.0.0.1:1/x" in error
    box.chmod(0o600)
    assert run("config", "--check", box) == (0, "box.toml: no mistakes\n", "")
    for wrong in (
        "stall",
        "serve",
        "model",
        "engine",
        "json",
        "token-file",
        "segment",
        "horizon",
        "now",
        "zzz",
        "record",
    ):
        for value in (
            f'"{address}"',
            f'["{address}"]',
            f'"http://h/x?password={SECRET}"',
            f'"rtsp://u:a {SECRET}@h/x"',
        ):
            assert SECRET not in check(f"{wrong} = {value}")[1], (wrong, value)
    assert check(f'engine = "torch:{address}"')[1].startswith("box.toml:1: engine: no engine '***@127.0.0.1:1/x'")
    assert SECRET not in check(f'"{address}" = 1\nsource = "{address}')[1]


BITS = [
    '"',
    "'",
    '"""',
    "'''",
    "\\",
    "#",
    "[",
    "]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\n",
    " ",
    "a",
    "b",
    "1",
    '"a"',
    "a = 1",
    "a = [",
]


@given(st.lists(st.sampled_from([*BITS, 'b = """', "\n\n", '\\"', '"""\n', "c = '''"])).map("".join))
def test_statement_by_statement_is_what_tomllib_reads(text: str) -> None:
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    statements, mistakes = read_statements(text)
    lines = text.split("\n")
    for one in statements:
        assert one.key in lines[one.line - 1]  # keys here have no escapes
    try:
        whole = tomllib.loads(text)
    except ValueError:  # otherwise a key is given twice, or a table
        keys = [one.key for one in statements]
        assert mistakes or len(set(keys)) < len(keys)
    else:
        assert mistakes == []
        assert {one.key for one in statements if not one.table} == set(whole)
        for one in statements:
            if not one.table and not isinstance(one.value, (dict, list)):
                assert whole[one.key] == one.value
