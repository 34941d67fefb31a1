"""A real NVIDIA Triton server, from the PyPI package nvidia-pytriton: ``make test-server`` installs it and runs these.

It has the Python backend only. Of the configurations for ONNX Runtime and TensorRT it reads the text, and finds the
backend missing; tests/graph/test_serve.py runs their graphs, with the state fed by hand.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from framecast.camera import Image
from framecast.errors import EngineError
from framecast.graph.repository import BACKENDS, Serving, write_repository
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.engine import Engine
from framecast.runtime.engines.server import TIMEOUT, ServerEngine
from framecast.runtime.engines.server_address import parse
from framecast.runtime.shipped import find
from framecast.runtime.stepper import Stepper
from framecast.testing.triton import TritonServer, installed

from ..conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(installed() is None, reason="needs a tritonserver: make test-server"),
]
STEPS = 2
PATIENT = 30.0  # seconds for an answer: a busy machine's Python backend may take more than the usual 2 s


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("triton")
    for model, idle in (("edge", 2.0), ("stip-edge", 10.0)):  # a network's requests may take long on a busy machine
        write_repository(find(model), folder / "repository", Serving("python", STEPS, cameras=4, idle=idle))
    (folder / "scratch").mkdir()
    with TritonServer(folder / "repository", folder / "scratch") as started:
        yield started


def connected(server: TritonServer, model: str, timeout: float = TIMEOUT) -> Engine:
    return ServerEngine(parse(f"//127.0.0.1:{server.port}/{model}"), timeout=timeout)


def stream(seed: int, count: int) -> list[Image]:
    """A moving picture, since a model of motion looks for motion."""
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    image = np.repeat(np.repeat(blocks, 16, axis=0), 16, axis=1)
    return [np.roll(image, (seed + 2) * i, axis=1) for i in range(count)]


@pytest.mark.parametrize(("model", "allowed"), [("edge", 1), ("stip-edge", 0)])
def test_interleaved_cameras_equal_local_ones(server: TritonServer, model: str, allowed: int) -> None:
    """stip-edge to the bit. edge within a grey level: the server's Python has another NumPy."""
    ahead = [0.04, 0.13]
    with (
        connected(server, model, PATIENT) as one,
        connected(server, model, PATIENT) as other,
        open_engine(find(model), threads=1) as near,
    ):
        steppers = [[Stepper(near) for _ in range(3)], [Stepper(engine) for engine in (one, one, other)]]
        streams = [stream(seed, 22) for seed in range(3)]
        shown: list[dict[tuple[int, int], list[Image]]] = [{}, {}]
        for side in range(2):  # first the local ones: the server forgets a camera that is silent
            for i, row in itertools.product(range(22), range(3)):
                stepper = steppers[side][row]
                if i == 5 + row:
                    stepper.reset()
                if (i, row) == (12, 1):
                    continue  # this camera skips a frame
                stepper.advance([streams[row][i]], 0.1)
                (got,) = stepper.at(ahead, 0.1)
                assert [dict(engine.faults) for engine in (one, other)] == [{"unanswered": 0, "states_lost": 0}] * 2
                assert got is not None
                shown[side][i, row] = [picture.copy() for picture in got]
        for at, expected in shown[0].items():
            for a, b in zip(shown[1][at], expected, strict=True):
                assert np.abs(a.astype(int) - b.astype(int)).max() <= allowed, at


def test_kill_and_restart_costs_the_state_and_nothing_else(server: TritonServer) -> None:
    with connected(server, "stip-edge") as engine, open_engine(find("stip-edge"), threads=1) as near:
        remote, local, images = Stepper(engine), Stepper(near), stream(3, 4)
        remote.advance(images[:1])
        server.kill()
        remote.advance(images[1:2])
        (pictures,) = remote.look_ahead(1)
        assert np.array_equal((pictures or [])[0], engine.fit(images[1]))  # a copy of the newest frame
        assert engine.trouble is not None
        server.start()
        deadline = time.monotonic() + 30
        while engine.trouble is not None and time.monotonic() < deadline:
            time.sleep(0.1)
            remote.advance(images[2:3])
        for stepper in (remote, local):
            stepper.reset()
            stepper.advance(images[3:])
        (got,), (expected,) = remote.look_ahead(STEPS), local.look_ahead(STEPS)
        assert all(np.array_equal(a, b) for a, b in zip(got or [], expected or [], strict=True))
        assert engine.faults["states_lost"] == 1


def test_a_silent_camera_is_forgotten_and_starts_again(server: TritonServer) -> None:
    with connected(server, "edge") as engine:
        stepper, images = Stepper(engine), stream(4, 2)
        for pause, image in zip((0.0, 5.0), images, strict=True):
            time.sleep(pause)  # the server's idle limit is 2 s
            stepper.advance([image], 0.1)
            stepper.at([0.1], 0.1)
        assert dict(engine.faults) == {"unanswered": 0, "states_lost": 1}


def test_pictures_that_nobody_asked_moments_of_are_sent(server: TritonServer) -> None:
    with connected(server, "edge") as engine:
        stepper = Stepper(engine)
        for image in stream(5, 4):
            stepper.advance([image], 0.1)
        (got,) = stepper.at([0.05, 0.2], 0.1)
        assert got is not None
        assert dict(engine.faults) == {"unanswered": 0, "states_lost": 0}
        assert not np.array_equal(got[0], image)  # it has seen the motion


def test_more_cameras_than_the_server_admits_get_no_answer_and_then_do(server: TritonServer) -> None:
    """It admits four. The fifth waits in vain, until one has left."""
    engines = [connected(server, "edge") for _ in range(4)]
    image = stream(6, 1)
    try:
        for engine in engines:
            stepper = Stepper(engine)
            stepper.advance(image, 0.1)
            stepper.at([0.1], 0.1)
        failure: list[EngineError] = []

        def fifth() -> None:
            try:
                connected(server, "edge").close()
            except EngineError as error:
                failure.append(error)

        thread = threading.Thread(target=fifth)
        thread.start()
        thread.join(0.5)
        engines.pop().close()  # it says that its camera has left
        thread.join()
        assert failure == []
    finally:
        for engine in engines:
            engine.close()


def test_an_unknown_model_is_said(server: TritonServer) -> None:
    with pytest.raises(EngineError, match="has no model nothing: load it there"):
        connected(server, "nothing")


def test_tls_with_a_certificate_of_our_own(tmp_path: Path) -> None:
    """The client trusts only the given certificate. gRPC reads it once in a process, so each client is a new one."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made = ["openssl", "req", "-x509", *curve, *subject, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    write_repository(find("edge"), tmp_path / "repository", Serving("python", STEPS))
    (tmp_path / "scratch").mkdir()
    flags = ["--grpc-use-ssl=true", f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}"]
    with TritonServer(tmp_path / "repository", tmp_path / "scratch", *flags) as server:
        for trusted, query in ((True, "?tls"), (False, "?tls"), (True, "")):
            report = tmp_path / "run.json"
            report.unlink(missing_ok=True)
            address = f"server://localhost:{server.port}/edge{query}"
            words = ["run", "demo", "--engine", address, "--frames", "3", "--json", str(report)]
            roots = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificate)} if trusted else {}
            ended = subprocess.run(
                [sys.executable, "-m", "framecast", *words], env={**os.environ, **roots}, capture_output=True, text=True
            )
            if trusted and query:
                assert ended.returncode == 0, ended.stderr
                assert json.loads(report.read_text())["events"]["unanswered"] == 0
            else:
                assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1), ended.stderr
                assert ("cannot trust" if query else "cannot reach") in ended.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_servers_own_parser_reads_the_configuration(backend: str, tmp_path: Path) -> None:
    """Of a backend that is not here, it says only that; a mistake in the text comes first, as the last lines show."""
    place, _ = write_repository(find("stip-edge"), tmp_path / "repository", Serving(backend, STEPS))
    (tmp_path / "scratch").mkdir()
    config = place.parent / "config.pbtxt"
    with TritonServer(tmp_path / "repository", tmp_path / "scratch", "--model-control-mode=explicit") as server:
        said = load(server, "stip-edge")
        if backend == "python":
            assert said == ""
        else:
            assert "unable to find backend library for backend" in said or "must have at least one" in said, said
        config.write_text(config.read_text().replace("max_sequence_idle_microseconds", "max_sequence_idle"))
        assert "config.pbtxt" in load(server, "stip-edge") or "failed to load" in load(server, "stip-edge")
        log = server.log.read_text(errors="replace")
    assert 'has no field named "max_sequence_idle"' in log
    assert log.count("has no field named") == log.count('has no field named "max_sequence_idle"')


def test_the_commands_of_the_page_run(server: TritonServer, run: Run, tmp_path: Path) -> None:
    """The clients in docs/fleet.md, with this server, on the demo clip."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "fleet.md").read_text()
    clients = re.findall(r"^ {4}framecast (run \S+ --engine server:.*)$", text, re.M)
    assert len(clients) == 4
    for number, client in enumerate(clients):
        words = re.sub(r"server://[^/]+", f"server://127.0.0.1:{server.port}", client).split()
        words = [word for word in words if word != "--serve"]
        words[1] = "demo"
        report = tmp_path / f"{number}.json"
        code, _, err = run(*words, "--frames", 5, "--json", report)
        assert code == 0, err
        found = json.loads(report.read_text())
        assert (found["engine"], found["frames"], found["events"]["unanswered"]) == ("server", 5, 0)


def load(server: TritonServer, model: str) -> str:
    """Load a model; why not, or ""."""
    address = f"http://127.0.0.1:{server.http}/v2/repository/models/{model}/load"
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data=b"{}"), timeout=60):
            return ""
    except urllib.error.HTTPError as error:
        return str(json.loads(error.read())["error"])
