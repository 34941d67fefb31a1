"""The container files and the systemd unit, as far as they can be tested without a Jetson."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import framecast
from framecast.backoff import MOST
from framecast.camera.csi import parse_csi
from framecast.runtime.engines import ENGINES
from framecast.runtime.shipped import shipped

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

ROOT = Path(__file__).resolve().parents[1]
CONTAINERS = sorted((ROOT / "containers").glob("*.Dockerfile"))
UNIT = ROOT / "containers" / "framecast.service"
PROJECT = (ROOT / "pyproject.toml").read_text()
every_container = pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.stem)


def instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a container file, with their arguments: comments removed, continued lines joined."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    lines = filter(None, re.sub(r"\\\n\s*", " ", text).splitlines())
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def requirements(name: str) -> list[str]:
    """The requirements in a list of pyproject.toml, by a regular expression: Python 3.10 has no tomllib."""
    found = re.search(rf"^{name} = \[(.*?)\]", PROJECT, re.MULTILINE | re.DOTALL)
    assert found
    return re.findall(r'"([^"]+)"', found[1])


def test_there_is_a_container_for_each_jetpack() -> None:
    assert [path.stem for path in CONTAINERS] == ["jetpack6", "jetpack7"]


@every_container
def test_the_base_image_can_be_replaced_and_runs_on_that_jetpack(path: Path) -> None:
    (base,) = [rest for word, rest in instructions(path) if word == "ARG"]
    assert [rest for word, rest in instructions(path) if word == "FROM"] == ["${BASE}"]
    assert re.fullmatch(r"BASE=nvcr\.io/nvidia/(l4t-jetpack:r36\.\d+\.\d+|tensorrt:2[56]\.\d\d-py3)", base)


@every_container
def test_the_copied_files_exist_and_are_those_that_the_build_needs(path: Path) -> None:
    copied = set()
    for word, rest in instructions(path):
        if word == "COPY":
            *sources, target = rest.split()
            assert all((ROOT / source).exists() for source in sources), rest
            assert target == "./" or sources == [target]
            copied |= set(sources)
    rooms = {link.name for link in (ROOT / "src" / "framecast").iterdir() if link.is_symlink()}
    assert copied == rooms | {"src", "pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"}


@every_container
def test_the_installed_packages_are_the_dependencies_of_framecast(path: Path) -> None:
    commands = [shlex.split(rest) for word, rest in instructions(path) if word == "RUN"]
    words = [word for command in commands for word in command]
    start = words.index("--no-cache-dir") + 1
    named = {re.split("[<>=]", word)[0] for word in words[start : words.index("&&", start)]}
    needed = {
        re.split("[<>=]", word)[0]
        for word in requirements("dependencies") + requirements("cuda") + requirements("build")
    }
    assert named == needed - {"opencv-python"} | {"opencv-python-headless"}
    assert words[words.index("--no-deps") : words.index("--no-deps") + 2] == ["--no-deps", "."]
    for package in ("python3-venv", "gstreamer1.0-tools", "--system-site-packages"):
        assert package in words


@every_container
def test_the_container_file_is_well_formed(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 120
    assert "NOT BUILT ON A DEVICE YET" in lines[1]
    found = instructions(path)
    known = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in found} <= known
    assert [rest for word, rest in found if word == "ENTRYPOINT"] == ['["framecast"]']
    assert [word for word, _ in found].index("USER") > max(i for i, (word, _) in enumerate(found) if word == "RUN")
    for word, rest in found:
        if word == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)


def settings() -> dict[str, list[str]]:
    pairs = re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE)
    return {name: [value.strip('"') for other, value in pairs if other == name] for name, _ in pairs}


def test_the_unit_runs_an_existing_command(run: Run) -> None:
    set_ = settings()
    environment = variables()
    (command,) = set_["ExecStart"]
    program, *arguments = re.sub(r"\$\{(MODEL|ENGINE)\}", lambda name: environment[name[1]], command).split()
    assert program == "/opt/framecast/bin/framecast"
    assert arguments == [
        "run",
        "@${CREDENTIALS_DIRECTORY}/camera",
        "--model",
        "stip-edge",
        "--engine",
        "tensorrt",
        "$OPTIONS",
    ]
    assert parse_csi(set_["SetCredential"][0].removeprefix("camera:csi://")).sensor == 0
    assert environment["MODEL"] in shipped()
    assert environment["ENGINE"] in ENGINES
    head = UNIT.read_text().partition("[Unit]")[0]
    for name, text in (("run", f"{command} {environment['OPTIONS']}"), ("run", "OPTIONS="), ("build", "BUILD=")):
        help_text = run(name, "--help")[1]
        shown = text if " " in text else re.findall(rf"^#     {text}(.*)$", head, re.MULTILINE)[0]
        assert re.findall(r"--[\w-]+", shown)
        for option in re.findall(r"--[\w-]+", shown):
            assert option in help_text


def variables() -> dict[str, str]:
    """The environment variables that the unit sets."""
    words = [word for line in settings()["Environment"] for word in ([line] if "=--" in line else line.split())]
    return dict(word.split("=", 1) for word in words)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "build stip-edge"),
        (
            {"MODEL": "a model.onnx", "BUILD": "--camera 1920x1080 --batch 1"},
            "build a model.onnx --camera 1920x1080 --batch 1",
        ),
        ({"ENGINE": "tensorrt:fp32", "BUILD": "--batch 2"}, "build stip-edge --precision fp32 --batch 2"),
        ({"ENGINE": "auto", "MODEL": "edge"}, ""),
    ],
)
def test_the_unit_builds_the_engine_that_it_names(changes: dict[str, str], expected: str) -> None:
    (line,) = settings()["ExecStartPre"]
    environment = {**variables(), **changes}
    # systemd also replaces variables inside quotes. The shell gets the variables in its environment too.
    line = re.sub(r"(?<!\$)\$\{(\w+)\}", lambda name: environment[name[1]], line).replace("$$", "$")
    command = [word.replace("/opt/framecast/bin/framecast", "echo") for word in shlex.split(line)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert (done.returncode, done.stdout.strip()) == (0, expected)


def test_the_watchdog_waits_longer_than_a_run_may() -> None:
    set_, defaults = settings(), inspect.signature(framecast.run).parameters
    assert set_["Type"] == ["notify"]
    assert float(set_["WatchdogSec"][0]) > max(defaults["step_limit"].default, defaults["stall"].default)
    assert float(set_["WatchdogSec"][0]) > defaults["timeout"].default + MOST


def test_the_unit_does_not_block_what_a_camera_needs() -> None:
    set_ = settings()
    assert set_["PrivateTmp"] == ["no"]  # /tmp/argus_socket
    assert set_["PrivateDevices"] == ["no"]
    assert "ProtectClock" not in set_  # it takes the cameras away
    assert set_["KillMode"] == ["mixed"]  # SIGTERM to gst-launch-1.0 would look like a lost camera
    assert set_["Restart"] == ["always"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    text = UNIT.read_text().replace("/opt/framecast/bin/framecast", sys.executable)
    unit.write_text(text.replace("User=framecast", "User=root"))  # there may be no user framecast here
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []
