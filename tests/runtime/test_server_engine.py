"""The engine ``server`` on a small gRPC server in this process, which keeps Triton's rules. See also test_triton.py."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest

import framecast
from framecast.camera import Image
from framecast.errors import ArtifactError, EngineError, OptionError
from framecast.runtime.engines import choose, open_engine
from framecast.runtime.engines.onnxruntime import OnnxRuntimeEngine
from framecast.runtime.engines.opencv import OpenCvEngine
from framecast.runtime.engines.server import RETRY, ServerEngine
from framecast.runtime.engines.server_address import ServerAddress, order, parse
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.serving import END, START, LostError, Sequences
from framecast.runtime.shipped import find
from framecast.runtime.stepper import Stepper
from framecast.testing import ListSource, ManualClock, TrendEngine, shades

from ..conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)
from .fake_triton import FakeTriton  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

STEPS = 3


def trend() -> TrendEngine:
    return TrendEngine(0.5)


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    """A server of a model whose state is the last frame, so that any mix-up of states shows."""
    engine = trend()
    fake = FakeTriton(engine, dataclasses.replace(engine.manifest, outputs=STEPS), STEPS)
    yield fake
    fake.stop()


def connected(server: FakeTriton, **options: Any) -> ServerEngine:
    return ServerEngine(ServerAddress((f"127.0.0.1:{server.port}",), "it"), **options)


def stream(seed: int, count: int) -> list[Image]:
    random = np.random.default_rng(seed)
    height, width = trend().manifest.frame[1:]
    return [random.integers(60, 190, (height, width, 3), np.uint8) for _ in range(count)]


def assert_same(one: Stepper, other: Stepper, horizon: int = STEPS) -> None:
    (got,), (expected,) = one.look_ahead(horizon), other.look_ahead(horizon)
    assert got is not None
    assert expected is not None
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_interleaved_cameras_equal_local_ones_and_do_not_leak(server: FakeTriton) -> None:
    with connected(server) as engine, connected(server) as second:
        pairs = [(Stepper(one), Stepper(trend())) for one in (engine, engine, second)]
        streams = [stream(seed, 6) for seed in range(3)]
        for i in range(6):
            for row, (pair, images) in enumerate(zip(pairs, streams, strict=True)):
                if i == row + 2:
                    for stepper in pair:
                        stepper.reset()
                for stepper in pair:
                    stepper.advance([images[i]])
                assert_same(*pair)
        assert len(server.sequences) == 3
    assert len(server.sequences) == 0  # both said that their cameras have left
    assert dict(engine.faults) == {"unanswered": 0, "states_lost": 0}


def test_a_restarted_server_costs_the_state_only(server: FakeTriton) -> None:
    with connected(server) as engine:
        remote, local, images = Stepper(engine), Stepper(trend()), stream(1, 5)
        for stepper in (remote, local):
            stepper.advance(images[:1])
        server.restart()  # between two frames: the connection is lost, and the states are
        for attempt in range(3):
            remote.advance([images[1 + attempt]])
            if engine.trouble is None:
                break
            engine._down.clear()
        local.reset()
        local.advance([images[1 + attempt]])
        assert_same(remote, local)
        assert (engine.lost, engine.epoch, engine.trouble) == (1, 1, None)


def test_a_forgotten_sequence_starts_again_at_once(server: FakeTriton) -> None:
    with connected(server) as engine:
        remote, local, images = Stepper(engine), Stepper(trend()), stream(1, 3)
        remote.advance(images[:1])
        server.sequences = Sequences(server._engine, STEPS)  # as after the idle limit
        for stepper in (remote, local):
            stepper.advance(images[1:2])
        assert_same(remote, local)
        assert dict(engine.faults) == {"unanswered": 0, "states_lost": 1}


def test_without_an_answer_the_newest_frame_is_shown_and_counted(server: FakeTriton) -> None:
    clock = ManualClock()
    with connected(server, clock=clock, timeout=20.0) as engine:
        remote, images = Stepper(engine), stream(1, 5)
        remote.advance(images[:1])
        server.stop()
        for image in images[1:4]:
            remote.advance([image])
            (pictures,) = remote.look_ahead(2)
            assert all(np.array_equal(picture, image) for picture in pictures or [])
        assert engine.trouble is not None
        assert engine.trouble.startswith(f"cannot reach a model server at 127.0.0.1:{server.port}: start it")
        assert dict(engine.faults) == {"unanswered": 3, "states_lost": 1}  # one try, then none for a while
        server.restart()
        clock.work(1e3 * RETRY)
        remote.advance(images[4:])
        assert engine.trouble is None
        local = Stepper(trend())
        local.advance(images[4:])
        assert_same(remote, local)


def test_a_late_answer_is_a_lost_state(server: FakeTriton) -> None:
    clock = ManualClock()
    with connected(server, timeout=0.05, clock=clock) as engine:
        remote = Stepper(engine)
        server.slow = 0.1
        for pause in (RETRY, 2 * RETRY, 4 * RETRY):  # it may be overloaded, so it is asked less and less often
            remote.advance(stream(1, 1))
            assert "does not answer in time" in (engine.trouble or "")
            (again,) = engine._down.values()
            assert pause / 2 <= again - clock.now() <= pause
            clock.wait_until(again)
        server.slow = 0.0


def test_a_run_goes_on_with_a_new_epoch(server: FakeTriton) -> None:
    with connected(server) as engine:
        height, width = engine.manifest.frame[1:]
        pipeline = Pipeline(ListSource(shades(12, size=(height, width))), Predictor(engine, watch=False), rival=False)
        for i, _ in enumerate(pipeline):
            if i == 5:
                server.sequences = Sequences(server._engine, STEPS)
        report = pipeline.report()
    assert (report["frames"], report["epochs"], report["ended"]) == (12, 2, "end of source")
    assert report["events"]["states_lost"] == 1


@pytest.mark.parametrize("model", ["no-such-model.onnx", "stip-ucf"])
def test_no_model_is_read_or_exported_on_the_client(model: str, server: FakeTriton, run: Run) -> None:
    size = "x".join(map(str, trend().manifest.frame[:0:-1]))
    clip, address = f"synthetic://?size={size}&frames=3", f"server://127.0.0.1:{server.port}/it"
    for sources in ([clip], [clip, clip]):
        code, _, err = run("run", *sources, "--model", model, "--engine", address)
        assert (code, err) == (0, "")
    assert framecast.run(clip, model=model, engine=address)["frames"] == 3


def test_each_of_several_cameras_has_its_own_connection(server: FakeTriton) -> None:
    """One that comes while the server is down fails alone."""
    address, answers, said = f"server://127.0.0.1:{server.port}/it", threading.Event(), list[str]()
    size = trend().manifest.frame[1:]

    def wait(result: framecast.Result) -> None:
        answers.wait(60)

    def update() -> list[framecast.Camera] | None:
        if answers.is_set():
            return None
        server.stop()
        answers.set()
        return [*cameras, framecast.Camera("demo", "gate")]

    cameras = [framecast.Camera(ListSource(shades(4, size=size)), name, sinks=[wait]) for name in ("door", "yard")]
    report = framecast.run_cameras(cameras, engine=address, update=update, announce=said.append)
    assert [report["cameras"][name]["ended"] for name in ("door", "yard")] == ["end of source"] * 2
    assert (report["total"]["engine"], [*report["total"]["failed"]]) == ("server", ["gate"])
    assert "cannot reach a model server" in report["total"]["failed"]["gate"]
    assert said[0] == "gate: added demo"


def test_a_second_server_takes_over(server: FakeTriton) -> None:
    other = FakeTriton(trend(), dataclasses.replace(trend().manifest, outputs=STEPS), STEPS)
    servers = {f"127.0.0.1:{one.port}": one for one in (server, other)}
    try:
        with ServerEngine(ServerAddress(tuple(servers), "it")) as engine:
            remote, local, images = Stepper(engine), Stepper(trend()), stream(1, 3)
            remote.advance(images[:1])
            first = servers[remote.state.sequence.at]  # type: ignore[attr-defined]
            assert [len(one.sequences) for one in servers.values()] == [int(one is first) for one in servers.values()]
            first.stop()
            remote.advance(images[1:2])  # lost
            for stepper in (remote, local):
                stepper.advance(images[2:])
            assert_same(remote, local)
            assert dict(engine.faults) == {"unanswered": 1, "states_lost": 1}
            first.restart()
            engine._down.clear()
            for attempt in ("stays", "returns"):
                remote.advance(images[:1])
                assert (len(first.sequences) == 1) == (attempt == "returns")
                remote.reset()  # a cut: the next stream goes home
    finally:
        other.stop()


def test_sequences_stay_where_they_are_and_are_spread_evenly() -> None:
    hosts = ["a:1", "b:1", "c:1"]
    firsts = [order(hosts, sequence)[0] for sequence in range(3000)]
    assert all(900 < firsts.count(host) < 1100 for host in hosts)
    without = [order(hosts[:2], sequence)[0] for sequence in range(3000)]
    assert all(now == before for now, before in zip(without, firsts, strict=True) if before != "c:1")


def test_a_model_of_motion_sends_each_picture_once() -> None:
    with OpenCvEngine(find("edge")) as serving, OpenCvEngine(find("edge")) as engine:
        fake = FakeTriton(serving, serving.manifest)
        try:
            with connected(fake) as client:
                remote, local = Stepper(client), Stepper(engine)
                blocks = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
                image = np.repeat(np.repeat(blocks, 16, axis=0), 16, axis=1)
                for i in range(4):
                    for stepper in (remote, local):
                        stepper.advance([np.roll(image, 3 * i, axis=1)], 0.1)
                    if i == 1:
                        continue  # nobody asks for this picture's moments
                    for ahead in ([0.07], [0.02, 0.2]):
                        (got,), (expected,) = remote.at(ahead, 0.1), local.at(ahead, 0.1)
                        assert all(np.array_equal(a, b) for a, b in zip(got or [], expected or [], strict=True))
                assert dict(client.faults) == {"unanswered": 0, "states_lost": 0}
        finally:
            fake.stop()


def test_what_is_wrong_is_said_in_one_line(server: FakeTriton) -> None:
    host = f"127.0.0.1:{server.port}"
    with pytest.raises(EngineError, match="has no model that: load it there"):
        ServerEngine(ServerAddress((host,), "that"))
    with connected(server) as engine:
        stepper = Stepper(engine)
        stepper.advance(stream(1, 1))
        with pytest.raises(EngineError, match="predicts 3 steps ahead: look less far ahead, or export it again"):
            stepper.look_ahead(4)
        with pytest.raises(EngineError, match="one camera per state"):
            Stepper(engine, 2)
    manifest = server.parameters["framecast"]
    for parameters, said in (
        ({}, "is not a framecast model: make it with 'framecast export-server'"),
        ({"framecast": manifest, "framecast_protocol": "9"}, "speaks protocol 9, this framecast 1"),
        ({"framecast": "{", "framecast_protocol": "1"}, "its manifest cannot be read"),
    ):
        server.parameters = parameters
        with pytest.raises(ArtifactError, match=said):
            connected(server)
    larger = dataclasses.replace(trend().manifest, frame=(3, 64, 64), outputs=STEPS)
    server.parameters = {"framecast": larger.to_json(), "framecast_protocol": "1"}
    with pytest.raises(EngineError, match=r"refuses it: .*a picture must be"):
        connected(server)
    server.stop()
    with pytest.raises(EngineError, match=r"cannot reach a model server at .*: start it, or check host and gRPC port"):
        connected(server)


def test_a_token_is_sent(server: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMECAST_SERVER_TOKEN", "secret")
    with connected(server) as engine:
        Stepper(engine).advance(stream(1, 1))
        assert server.headers["authorization"] == "Bearer secret"
    for host in ("10.0.0.1:8001", "127.0.0.1.example:8001"):
        with pytest.raises(EngineError, match=r"cannot send FRAMECAST_SERVER_TOKEN .*: end the address in \?tls"):
            ServerEngine(ServerAddress((host,), "it"))
    monkeypatch.setenv("FRAMECAST_SERVER_TOKEN", "secret\n")
    with pytest.raises(EngineError, match="cannot send FRAMECAST_SERVER_TOKEN: it has a space, a line end"):
        connected(server)


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        ("UNAUTHENTICATED", "who?", "lets only holders of a token in: set FRAMECAST_SERVER_TOKEN, or check it"),
        ("UNIMPLEMENTED", "Received http2 header with status: 404", "is no model server: check host and gRPC port"),
    ],
)
def test_what_stands_before_a_server_is_named(
    code: str, said: str, expected: str, server: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FakeTriton, request: Any, context: Any) -> None:
        context.abort(grpc.StatusCode[code], said)

    monkeypatch.setattr(FakeTriton, "ServerMetadata", refuse)
    server.restart()
    with pytest.raises(EngineError, match=expected):
        connected(server)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("//host/edge", ServerAddress(("host:8001",), "edge")),
        ("//10.0.0.1:81,b/stip-edge/3?tls", ServerAddress(("10.0.0.1:81", "b:8001"), "stip-edge", "3", True)),
        ("//[::1]:9/a", ServerAddress(("[::1]:9",), "a")),
    ],
)
def test_addresses(text: str, expected: ServerAddress) -> None:
    assert parse(text) == expected
    assert choose(f"server:{text}") == ("server", text)


@pytest.mark.parametrize(
    "text", ["", "edge", "//host", "//host/", "//:1/a", "//h:0/a", "//h:99999/a", "//h/a/b", "//h/a?x"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(OptionError, match="names no model on a server: write server://host:8001/edge"):
        choose(f"server:{text}")
    with pytest.raises(EngineError, match="no model server is named"):
        open_engine(find("edge"), "server")


def test_idle_and_surplus_cameras_are_dropped() -> None:
    sequences, image = Sequences(trend(), 1, most=2, idle=10.0), stream(1, 1)[0]
    for number, now in ((1, 0.0), (2, 1.0), (3, 2.0)):
        sequences.step(number, START, image, now=now)
    sequences.step(3, 0, image, now=3.0)
    with pytest.raises(LostError, match="must specify the START flag"):
        sequences.step(1, 0, image, now=3.0)
    sequences.step(3, 0, image, now=16.9)  # 2 was silent for one and a half times the limit
    assert len(sequences) == 1
    sequences.step(3, END, image, now=17.0)
    assert len(sequences) == 0


def test_it_equals_the_reference_engine_with_a_network() -> None:
    """stip-edge, as the Python backend runs it: bit-equal to a local run."""
    with OnnxRuntimeEngine(find("stip-edge"), threads=1) as serving:
        sequences, local = Sequences(serving, 2), Stepper(serving)
        for image in np.random.default_rng(1).integers(0, 256, (2, 192, 256, 3), np.uint8):
            local.advance([image])
            shown, finite = sequences.step(5, START * (local.steps[0] == 1), image, now=0.0)
            assert finite
            assert all(np.array_equal(a, b) for a, b in zip(shown, local.look_ahead(2)[0] or [], strict=True))
