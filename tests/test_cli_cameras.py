"""Several cameras on the command line of ``framecast run``, and in ``[[camera]]`` tables of its configuration file."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import typer

from framecast.cli import logs
from framecast.cli.cameras import Reading
from framecast.cli.config import check_file
from framecast.cli.config_file import ConfigFile, options
from framecast.cli.run import run as run_command
from framecast.cli.signals import on_signals

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

CLIP = "synthetic://?size=64x48&fps=30&frames=3&seed=1"
CAMERA = '[[camera]]\nsource = "demo"\n'


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for a file, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return Path("box.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('\n[[camera]]\nsource = "demo"\nstall = 3', ":4: stall is for all cameras: put it above the first [[camera]]"),
        ('[[camera]]\nsource = "demo"\nnme = "a"', ':3: unknown key "nme" (did you mean "name"?)'),
        ('[[camera]]\nsource = "demo"\nname = "a b"', ":3: name: cannot name a camera 'a b'"),
        ("[[camera]]\nsource = 1", ':2: source takes a string, not 1: write source = "1"'),
        ("\n[[camera]]\n[[camera]]\nsource = '0'", ':2: this camera has no source: add source = "…"'),
        ("[[camera]]\nnow = true", ':1: this camera has no source: add source = "…"'),
        ('source = "demo"\n[[camera]]\nsource = "demo"', ":1: source is in each [[camera]]: leave this one out"),
        ('name = "a"', ':1: unknown key "name"'),
        (f'{CAMERA}name = "a"\n{CAMERA}name = "A"', ":6: two cameras are named 'A': give each its own name"),
        (f'{CAMERA}name = "camera2"\n{CAMERA}', ":5: two cameras are named 'camera2'"),
        (f"{CAMERA}ahead = '1s'\nhorizon = 1", ":3: now, ahead and horizon exclude each other"),
        (f"now = true\n{CAMERA}camera-delay = '1s'\nhorizon = 1", ":4: the camera delay has no effect without 'now'"),
        (f"{CAMERA}record = ['a.mkv']\n{CAMERA}record = ['a.mkv']", ":3: a.mkv is among the inputs, or named twice"),
        (f"out = ['udp://h:1']\n{CAMERA}{CAMERA}", ":1: two cameras would send to one address"),
        ("source = 'demo'\nout = ['-', '-']", ":2: --out names - twice: leave one out"),
        ("[[camera]]\nsource = '-'\n" * 2, ":4: two cameras would read standard input"),
        (f"{CAMERA}out = ['udp://h:1', 'udp://h:1']", ":3: --out names udp://h:1 twice: leave one out"),
        (f"show = true\n{CAMERA}", ":1: --show is for one camera: use --serve"),
        ('batch-wait = "2s"', ":1: batch-wait: must be 0 to 1 s, not 2 s"),
    ],
)
def test_every_mistake_has_its_place(text: str, message: str, box: Path, capfd: pytest.CaptureFixture[str]) -> None:
    box.write_text(text)
    with pytest.raises(typer.Exit) as ended:
        check_file(str(box))
    err = capfd.readouterr().err
    assert (ended.value.exit_code, err.count("\n")) == (2, 1), err
    assert err.startswith(f"box.toml{message}"), err


def test_each_camera_has_what_its_table_says_and_else_what_the_file_says(
    box: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    calls: list[tuple[list[Any], dict[str, Any]]] = []

    def called(cameras: list[Any], **given: Any) -> Any:
        calls.append((cameras, given))
        return {"total": {"failed": {}, "refused": []}}

    monkeypatch.setattr("framecast.runtime.fleet.run_cameras", called)
    monkeypatch.setenv("YARD", CLIP)
    box.write_text("""
        now = true
        camera-delay = "180ms"
        record = ["run.mkv"]
        batch-wait = "5ms"

        [[camera]]
        name = "door"
        source = "demo"
        camera-delay = "90ms"

        [[camera]]
        source = "env:YARD"
        ahead = "120ms"
        camera-delay = "0ms"
        record = ["yard.png"]
        out = ["udp://127.0.0.1:9"]
        conceal = "1s"
    """)
    assert run("run", "--config", box)[0] == 0
    code, _, err = run("run", "--config", box, "--now", "demo", CLIP, "--camera-delay", "1s")
    assert (code, err) == (0, f"warning: SOURCE on the command line replaces every [[camera]] of {box}\n")
    (door, yard), given = calls[0]
    assert (door.name, door.source, door.now, door.ahead, door.camera_delay) == ("door", "demo", True, None, 0.09)
    assert (yard.name, yard.source, yard.now, yard.ahead, yard.camera_delay) == ("camera2", CLIP, False, 0.12, 0)
    assert (door.record, yard.record) == ([Path("run-door.mkv")], [Path("yard.png")])
    assert (yard.out, yard.conceal, given["batch_wait"]) == (["udp://127.0.0.1:9"], 1.0, 0.005)
    first, second = calls[1][0]  # the command line wins
    assert [(one.name, one.source, one.camera_delay) for one in (first, second)] == [
        ("camera1", "demo", 1.0),
        ("camera2", CLIP, 1.0),
    ]


def test_a_run_of_several_cameras_goes_on_without_one(box: Path, run: Run) -> None:
    box.write_text(f'json = "run.json"\n[[camera]]\nname = "door"\nsource = "{CLIP}"\n[[camera]]\nsource = "no.mp4"\n')
    code, out, err = run("run", "--config", box)
    assert code == 1
    assert err.splitlines() == [
        "camera2: no such file: no.mp4 (check the path, or use 'demo' for the shipped clip)",
        "framecast: 1 of 2 cameras failed: camera2",
    ]
    assert "2 cameras" in out
    report = json.loads(Path("run.json").read_text())
    assert {name: one["frames"] for name, one in report["cameras"].items()} == {"door": 3, "camera2": 0}
    assert report["total"]["ended"] == "error: 1 of 2 cameras failed: camera2"


def test_the_file_is_read_again_on_sighup(box: Path, capfd: pytest.CaptureFixture[str]) -> None:
    known = options(run_command)
    box.write_text(f'record = ["run.mkv"]\nframes = 9\n{CAMERA}name = "door"\n')
    config = ConfigFile(str(box))
    config.load(known)
    given = {one.name: one.default for one in known} | {name: config.give(name) for name in config.sets}
    reading = Reading(config, given, known)
    assert reading.take() is None  # nobody has asked

    with on_signals(lambda: pytest.fail("it ends"), reload=reading.ask):
        handler: Any = signal.getsignal(signal.SIGHUP)
        handler(signal.SIGHUP, None)  # not a signal: one that comes too late would end pytest
        while (found := reading.take()) is None:
            pass
    assert [(one.name, one.record) for one in found] == [("door", [Path("run-door.mkv")])]

    top = 'record = ["new.mkv"]\nframes = 8\nhorizon = 3\nthreads = 1\nmodel = "stip-edge"\n'
    box.write_text(f'{top}{CAMERA}{CAMERA}name = "yard"\nahead = "90ms"')
    reading.ask()
    found = reading.take()
    assert found is not None
    assert [(one.name, one.record, one.given["ahead"], one.given["horizon"]) for one in found] == [
        ("camera1", [Path("new-camera1.mkv")], None, 3),
        ("yard", [Path("new-yard.mkv")], "90ms", None),
    ]
    assert [one.given["frames"] for one in found] == [9, 9]  # it is for all cameras
    assert reading.take() is None
    wrongs = [f"{CAMERA}nme = 1", f'{CAMERA}name = "a"\n{CAMERA}name = "a"', '[[camera]]\nsource = "env:NONESUCH"']
    for wrong in ["", "source = 'demo'", *wrongs]:
        box.write_text(f"frames = 8\n{wrong}")
        reading.ask()
        assert reading.take() is None
    err = capfd.readouterr().err.splitlines()
    assert err[:3] == [
        f"warning: box.toml:{line}: {key} stays as it was: restart framecast to change it"
        for key, line in {"model": 5, "frames": 2, "threads": 4}.items()
    ]
    assert [line.partition(": ")[0] for line in err[3:]] == [
        *["keeping the cameras as they are"] * 2,
        "box.toml:4",
        "keeping the cameras as they are",
        "box.toml:7",
        "keeping the cameras as they are",
        "keeping the cameras as they are",
    ]


def test_a_mistake_in_a_file_that_is_read_again_is_no_end_in_json(box: Path, capfd: pytest.CaptureFixture[str]) -> None:
    known = options(run_command)
    box.write_text(CAMERA)
    config = ConfigFile(str(box))
    config.load(known)
    reading = Reading(config, {one.name: one.default for one in known} | {"source": config.give("source")}, known)
    with logs.prepared([]):
        logs.use("json")
        box.write_text(f"{CAMERA}nme = 1")
        reading.ask()
        assert reading.take() is None
        box.write_text('[[camera]]\nsource = "rtsp://user:s3cret-word@h/s"')
        box.chmod(0o644)
        reading.ask()
        assert reading.take() is not None
    found = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(one["event"], one["message"].partition(" (")[0]) for one in found] == [
        ("warning", 'box.toml:3: unknown key "nme"'),
        ("cameras_kept", "keeping the cameras as they are"),
        ("warning", 'box.toml: other users can read its password: chmod 600 box.toml, or use source = "@FILE"'),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("demo demo --show", "--show is for one camera: use --serve, whose page shows all"),
        ("demo demo --out udp://127.0.0.1:9", "two cameras would send to one address"),
        ("demo demo --batch-wait 2s", "--batch-wait must be 0 to 1 s, not 2 s"),
        ("demo demo --record run.gif", "cannot record run.gif: unknown suffix"),
        ("run-camera2.mkv demo --record run.mkv", "run-camera2.mkv is among the inputs, or named twice"),
        ("demo --now demo --ahead 1s", "now, ahead and horizon exclude each other"),
    ],
)
def test_bad_input_is_one_line(words: str, message: str, run: Run) -> None:
    code, out, err = run("run", *words.split())
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err


def test_several_sources_have_a_recording_each(box: Path, run: Run) -> None:
    code, out, err = run("run", CLIP, CLIP.replace("seed=1", "seed=2"), "--record", "run.mkv", "--record", "run.png")
    assert (code, err) == (0, "")
    assert {path.name for path in Path().iterdir()} >= {"run-camera1.mkv", "run-camera2.mkv"}
    assert out.count("3 predicted, 0 dropped, 1 stream") == 2
    assert "6 predicted, 0 dropped" in out
