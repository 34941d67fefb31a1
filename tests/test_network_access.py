"""No engine and no library of ours opens a socket that the user did not ask for, or writes a file about the user."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .graph.test_manifest import artifact, still  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

ROOT = Path(__file__).resolve().parents[1]
STEPS = """
import sys
import numpy as np
import framecast
from framecast.errors import EngineError
for engine in sys.argv[2:]:
    model = "edge" if engine == "opencv" else sys.argv[1]
    try:
        predictor = framecast.load(model, engine=engine)
    except EngineError as error:
        print("absent:", error)
        continue
    with predictor:
        predictor.step(np.zeros((48, 64, 3), np.uint8))
        predictor.step(np.zeros((48, 64, 3), np.uint8))
        predictor.rollout(1)
    print("stepped", engine)
"""


def traced(home: Path, *command: str, **environment: str) -> tuple[str, list[str]]:
    """Run a command under strace with a home folder of its own: what it printed, and its calls about the network.

    A connection needs ``socket``. Local sockets (AF_UNIX) and netlink do not leave the machine, but a look-up of a host
    may begin with one, so every connection counts.
    """
    if shutil.which("strace") is None:
        pytest.skip("no strace (make system-deps)")
    log = home / "strace.txt"
    kept = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=network", "-e", "signal=none", "-o", log, *command],
        env={**kept, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
    )
    if not log.exists() or "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip(f"strace cannot trace here: {done.stderr.strip()[:200]}")
    assert done.returncode == 0, done.stderr
    return done.stdout, beyond(log.read_text().splitlines())


def beyond(calls: list[str]) -> list[str]:
    """The calls that may leave the machine.

    libc asks its cache daemon (nscd) for the name of a user as well. Where none runs, that leads nowhere, and a look-up
    of a host goes on with calls of its own. Where one runs, it could ask the network for us, so its calls stay.
    """
    kept = [c for c in calls if "AF_INET" in c or "connect(" in c or "sendto(" in c or "sendm" in c]
    return [call for call in kept if not ("/nscd/socket" in call and call.endswith("(No such file or directory)"))]


def test_the_trace_sees_a_look_up_and_a_connection(tmp_path: Path) -> None:
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    _, calls = traced(tmp_path, sys.executable, "-c", code)
    assert any("AF_INET" in call for call in calls)
    user, host = ("import pwd; pwd.getpwuid(0)", "import socket; socket.getaddrinfo('camera.example', 80)")
    _, calls = traced(tmp_path, sys.executable, "-c", user)
    assert calls == []
    quick = {"RES_OPTIONS": "timeout:1 attempts:1"}  # for machines without a network
    _, calls = traced(tmp_path, sys.executable, "-c", f"try: {host}\nexcept OSError: pass", **quick)
    assert calls
    asked = 'connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = '
    assert beyond([asked + "-1 ENOENT (No such file or directory)", asked + "0"]) == [asked + "0"]


def test_no_engine_opens_a_connection_or_writes_to_the_home_folder(tmp_path: Path) -> None:
    graph = artifact(tmp_path / "still.onnx", still())
    out, calls = traced(tmp_path, sys.executable, "-c", STEPS, str(graph), "opencv", "onnxruntime", "openvino")
    assert "stepped opencv" in out
    assert "stepped onnxruntime" in out
    assert calls == []
    assert not (tmp_path / ".cache" / "Microsoft").exists()


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of edge's graphs."""
    path = str(tmp_path_factory.mktemp("graphs") / "edge.onnx")
    subprocess.run([sys.executable, "-m", "framecast", "export", "edge", "-o", path], check=True)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["opencv", "onnxruntime", "openvino", "torch"])
def test_no_run_opens_a_connection(tmp_path: Path, graphs: str, engine: str) -> None:
    model = "edge" if engine == "opencv" else graphs
    run = ["run", "demo", "--frames", "3", "--model", model, "--engine", engine]
    _, calls = traced(tmp_path, sys.executable, "-m", "framecast", *run)
    assert calls == []
    _, calls = traced(tmp_path, sys.executable, "-m", "framecast", "doctor")
    assert calls == []
    assert not (tmp_path / ".cache" / "Microsoft").exists()


def test_the_users_own_setting_stays() -> None:
    code = "import os, framecast; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for own, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
        done = subprocess.run([sys.executable, "-c", code], env={**kept, **own}, capture_output=True, text=True)
        assert done.stdout.strip() == expected, done.stderr


def test_no_script_imports_onnxruntime_before_framecast() -> None:
    for script in [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")]:
        for node in ast.parse(script.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("onnxruntime") for name in names), f"{script}: import it inside a function"
