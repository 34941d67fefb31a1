"""How a command line is read: what is typed, what is said of what cannot be read, help, completion, odd terminals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from framecast.cli import COMMANDS
from framecast.cli.examples import EXAMPLES
from framecast.cli.usage import with_address

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

HINT = "(see 'framecast {} --help')"
FOREIGN = re.compile(
    r"input should|unable to parse|no such option|missing (argument|option|parameter)|got unexpected|valid"
)


def framecast(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """In a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "framecast", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run",), "framecast run needs SOURCE"),
        (("run", "demo", "--horizon", "far"), "--horizon takes a whole number, not 'far'"),
        (("run", "demo", "--horizon=2.5"), "--horizon takes a whole number, not '2.5'"),
        (("run", "demo", "--zzz"), "framecast run has no option --zzz"),
        (("run", "demo", "--horizn", "2"), "framecast run has no option --horizn: did you mean --horizon?"),
        (("run", "demo", "--model"), "--model needs a value"),
        (("run", "demo", "more"), "framecast run takes no further argument: more"),
        (("run", "demo", "--loop=yes"), "--loop takes no value"),
        (("bench", "edge", "--duration", "long"), "--duration takes a number, not 'long'"),
        (("bench",), "framecast bench needs MODEL..."),
        (("eval", "edge"), "framecast eval needs CLIP..."),
        (("train", "stip-edge", "clips"), "framecast train needs --out"),
        (("moving-mnist", "file"), "framecast moving-mnist needs --output"),
        (("export", "stip-edge", "-o"), "-o needs a value"),
    ],
)
def test_usage_errors_are_ours_and_name_the_commands_own_help(run: Run, arguments: tuple[str, ...], says: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err == f"framecast: {says} {HINT.format(arguments[0])}\n"
    assert not FOREIGN.search(err.lower())


def test_a_command_that_there_is_not(run: Run) -> None:
    assert run("evla", "edge")[2] == "framecast: no command 'evla': did you mean eval? (see 'framecast --help')\n"
    code, _, err = run("prepare", "edge")
    assert code == 2
    assert "use run, delay, eval, models" in err
    assert run("--nope")[2] == "framecast: framecast has no option --nope (see 'framecast --help')\n"


def test_no_arguments_show_the_help(run: Run) -> None:
    code, out, _ = run()
    assert code == 0
    assert out == run("--help")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_fits_80_columns_and_has_examples_of_options_that_there_are(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(command, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    options, _, examples = out.partition("Examples:")
    assert "--verbose" in options
    assert [line.strip() for line in examples.strip().splitlines()] == list(EXAMPLES[command])
    for example in EXAMPLES[command]:
        program, name, *words = example.split()
        assert (program, name) == ("framecast", command)
        for option in (word for word in words if word.startswith("-")):
            assert re.search(rf"(^|\s){option}[\s,]", options), (example, option)


def test_the_list_of_commands_is_not_cut_short(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    listed = run("--help")[1].partition("Commands:")[2]
    cut = {line.split()[0] for line in listed.splitlines() if line.endswith("...")}
    assert cut <= {"run"}
    assert all(re.search(rf"^  {name} ", listed, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--serve"], ["--serve", "127.0.0.1:8000"]),
        (["--serve", "demo"], ["--serve", "127.0.0.1:8000", "demo"]),
        (["--serve", "0"], ["--serve", "127.0.0.1:8000", "0"]),
        (["--serve", "--loop"], ["--serve", "127.0.0.1:8000", "--loop"]),
        (["--serve", "rtsp://host:554/x"], ["--serve", "127.0.0.1:8000", "rtsp://host:554/x"]),
        (["--serve", ":8123", "demo"], ["--serve", "127.0.0.1:8123", "demo"]),
        (["--serve=:8123"], ["--serve=127.0.0.1:8123"]),
        (["--serve", "localhost", "demo"], ["--serve", "localhost", "demo"]),
        (["--serve", "localhost:9000"], ["--serve", "localhost:9000"]),
        (["--serve", "8123"], ["--serve", "8123"]),
        (["--serve", "0.0.0.0:80"], ["--serve", "0.0.0.0:80"]),
        (["--serve", "192.168.0.7"], ["--serve", "192.168.0.7"]),
        (["--serve", "[::1]:8000"], ["--serve", "[::1]:8000"]),
        (["--serve=host"], ["--serve=host"]),
    ],
)
def test_serve_takes_an_address_or_stands_alone(typed: list[str], meant: list[str]) -> None:
    assert with_address(["run", *typed], "127.0.0.1:8000") == ["run", *meant]


def test_verbose_works_after_the_command_too() -> None:
    for arguments in (("-v", "models"), ("models", "-v"), ("models", "--verbose")):
        done = framecast(*arguments)
        assert done.returncode == 0
        assert "framecast.runtime.engines: engine onnxruntime on cpu" in done.stderr, arguments
    assert framecast("models").stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_every_shell_knows_the_commands_and_models(shell: str) -> None:
    environment = {
        **os.environ,
        "_TYPER_COMPLETE_ARGS": "framecast bench stip-e",
        "COMP_WORDS": "framecast bench stip-e",
    }
    environment |= {
        "COMP_CWORD": "2",
        "_FRAMECAST_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = framecast(env=environment)
    assert "stip-edge" in done.stdout, done.stderr
    environment |= {"_TYPER_COMPLETE_ARGS": "framecast mov", "COMP_WORDS": "framecast mov", "COMP_CWORD": "1"}
    assert "moving-mnist" in framecast(env=environment).stdout


def test_an_ascii_terminal_gets_question_marks_and_no_traceback() -> None:
    done = framecast("models", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "256?192?3" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [("models",), ("--help",), ("--version",)])
def test_a_full_disk_below_the_output_is_one_line(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "framecast", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.returncode == 1
    assert done.stderr == (
        "framecast: cannot write the output: No space left on device (make room, or send it elsewhere)\n"
    )


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "framecast", "models"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_folder_that_was_deleted_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = "import os, sys; from framecast.cli import main; os.rmdir(os.getcwd()); sys.argv[1:] = ['models']; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=gone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "framecast: the current folder no longer exists: cd to another one\n"
