"""Parsing of the command line: arguments, usage errors, help, completion, and unusual terminals."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from framecast.cli import COMMANDS, app
from framecast.cli.examples import EXAMPLES
from framecast.cli.usage import with_address

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

COMMAND_LINE: Any = get_command(app)
HINT = "(see 'framecast {} --help')"
FOREIGN = re.compile(
    r"input should|unable to parse|no such option|missing (argument|option|parameter)|got unexpected|valid"
)


def framecast(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run framecast in its own process."""
    command = [sys.executable, "-W", "error", "-m", "framecast", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run",), "framecast run needs SOURCE..."),
        (("run", "demo", "--horizon", "far"), "--horizon takes a whole number, not 'far'"),
        (("run", "demo", "--horizon=2.5"), "--horizon takes a whole number, not '2.5'"),
        (("run", "demo", "--zzz"), "framecast run has no option --zzz"),
        (("run", "demo", "--horizn", "2"), "framecast run has no option --horizn: did you mean --horizon?"),
        (("run", "demo", "--model"), "--model needs a value"),
        (("delay", "demo", "more", "and"), "framecast delay takes no further argument: more and"),
        (("run", "demo", "--loop=yes"), "--loop takes no value"),
        (("bench", "edge", "--duration", "long"), "--duration takes a number, not 'long'"),
        (("bench",), "framecast bench needs MODEL..."),
        (("eval", "edge"), "framecast eval needs CLIP..."),
        (("train", "stip-edge", "clips"), "framecast train needs --output"),
        (("moving-mnist", "file"), "framecast moving-mnist needs --output"),
        (("export", "stip-edge", "-o"), "-o needs a value"),
    ],
)
def test_usage_errors_are_ours_and_point_to_the_help(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err == f"framecast: {message} {HINT.format(arguments[0])}\n"
    assert not FOREIGN.search(err.lower())


def test_an_unknown_command(run: Run) -> None:
    assert run("evla", "edge")[2] == "framecast: no command 'evla': did you mean eval? (see 'framecast --help')\n"
    code, _, err = run("prepare", "edge")
    assert code == 2
    assert "use run, config, delay, eval, models" in err
    assert run("--nope")[2] == "framecast: framecast has no option --nope (see 'framecast --help')\n"


def test_no_arguments_show_the_help(run: Run) -> None:
    code, out, _ = run()
    assert code == 0
    assert out == run("--help")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_fits_80_columns_and_ends_with_examples(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(command, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    options, _, examples = out.partition("Examples:")
    assert "--verbose" in options
    assert [line.strip() for line in examples.strip().splitlines()] == list(EXAMPLES[command])


@pytest.mark.parametrize(("command", "example"), [(name, one) for name, them in EXAMPLES.items() for one in them])
def test_every_example_can_be_parsed(
    command: str, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("box.toml").write_text('source = "demo"\n')
    program, *arguments = shlex.split(example)
    assert (program, arguments[0]) == ("framecast", command)
    _, *words = with_address(arguments, "127.0.0.1:8000")
    parsed = COMMAND_LINE.commands[command].make_context(command, words)  # raises if the example is invalid
    assert {name for name, value in parsed.params.items() if value} > {"verbose"} or not words


def test_every_command_has_an_example() -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    assert all(EXAMPLES.values())


def test_an_option_looks_the_same_in_every_command() -> None:
    """An option has the same name, short form and kind of value in every command."""
    looks: dict[str, set[tuple[str, ...]]] = {}
    for command in COMMAND_LINE.commands.values():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                kind = str(parameter.metavar).removesuffix(",…")
                kind = {"FOLDER": "FILE"}.get(kind, kind)  # both are paths
                looks.setdefault(max(parameter.opts, key=len), set()).add((kind, *sorted(parameter.opts)))
    assert {name: look for name, look in looks.items() if len(look) > 1} == {}
    assert {"--output", "--duration"} <= set(looks)
    assert "--seconds" not in looks


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


@pytest.fixture
def complete(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], list[str]]:
    """The completions of a command line, as the script of ``--install-completion`` asks for them."""

    def ask(shell: str, line: str) -> list[str]:
        protocol = {
            "_FRAMECAST_COMPLETE": f"complete_{shell}",
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        for name, value in protocol.items():
            monkeypatch.setenv(name, value)
        code, out, err = run()
        assert (code, err) == (0, "")
        return re.findall(r"[-\w:,.]+", out.replace("\\", ""))  # zsh escapes colons

    return ask


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("framecast mov", "moving-mnist"),
        ("framecast run --mod", "--model"),
        ("framecast run demo --model stip-e", "stip-edge"),
        ("framecast bench ed", "edge"),
        ("framecast run demo --engine openc", "opencv:fast"),
        ("framecast bench edge --engine onnxruntime,openv", "onnxruntime,openvino"),
        ("framecast parity edge --engine al", "all"),
        ("framecast build stip-edge --precision fp3", "fp32"),
        ("framecast train mau-m", "mau-mnist"),
        ("framecast import-checkpoint x.ckpt --as stau-", "stau-mnist"),
    ],
)
def test_every_shell_completes_commands_options_models_and_engines(
    shell: str, line: str, found: str, complete: Callable[[str, str], list[str]]
) -> None:
    assert found in complete(shell, line)


def test_configuration_files_are_completed(
    complete: Callable[[str, str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("boxes").mkdir()
    for name in ("box.toml", "box.txt", "boxes/.hidden.toml", "boxes/a.toml"):
        Path(name).write_text("= wrong")  # completion reads no file
    assert complete("bash", "framecast run --config b") == ["box.toml", "boxes"]  # the fixture drops the slash
    assert complete("bash", "framecast config --check box.toml --check boxes/") == ["boxes", "a.toml"]
    assert complete("bash", "framecast config --check no/such/") == []
    assert "--model" in complete("bash", "framecast run --config box.toml --mod")


def test_only_configurations_can_be_trained(complete: Callable[[str, str], list[str]]) -> None:
    assert complete("bash", "framecast run demo --model edg") == ["edge"]
    assert complete("bash", "framecast train edg") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_can_be_shown(shell: str) -> None:
    # Without this variable, Typer asks which shell runs the test: under make, one that has no completion.
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = framecast("--show-completion", shell, env=environment)
    assert done.returncode == 0, done.stderr
    assert "_FRAMECAST_COMPLETE" in done.stdout


def test_an_ascii_terminal_gets_question_marks_and_no_traceback() -> None:
    done = framecast("models", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "256?192?3" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [("models",), ("--help",), ("--version",)])
def test_a_full_disk_behind_stdout_is_one_line(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "framecast", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.returncode == 1
    assert done.stderr == (
        "framecast: cannot write the output: No space left on device (make room, or send it elsewhere)\n"
    )


def test_a_closed_pipe_gives_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "framecast", "models"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_deleted_current_folder_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = "import os, sys; from framecast.cli import main; os.rmdir(os.getcwd()); sys.argv[1:] = ['models']; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=gone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "framecast: the current folder no longer exists: cd to another one\n"


def test_what_was_typed_cannot_control_the_terminal(run: Run) -> None:
    for arguments in (("models", "a\x1b[31m\u202eb"), ("run", "none\x1b]0;x\x07.mp4"), ("a\rb",)):
        _, _, err = run(*arguments)
        assert err.rstrip("\n").isprintable()
        assert err.count("\n") == 1
