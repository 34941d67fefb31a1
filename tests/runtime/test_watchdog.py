"""A step that never returns is interrupted, or the caller learns of it. Signals act although the main thread waits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import framecast
from framecast.camera import Image
from framecast.errors import EngineError, OptionError
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import Engine, State, open_engine
from framecast.runtime.engines.turn import Turn
from framecast.runtime.report import Report
from framecast.runtime.stepper import Stepper
from framecast.runtime.watchdog import Guard, Watchdog
from framecast.testing import DriftEngine, ListSource, shades

from ..graph.test_manifest import artifact, still  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

CLIP = "synthetic://?size=64x48&frames=9"


def endless(path: Path) -> Path:
    """Write an artifact whose step has a loop of 2^62 turns."""
    model = onnx.load(artifact(path, still()))
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.array(1 << 62), "turns"), numpy_helper.from_array(np.array(True), "true")]
    )
    model.graph.node.insert(0, helper.make_node("Loop", ["turns", "true", "frame"], ["looped"], body=body))
    model.graph.node[1].input[0] = "looped"
    path.write_bytes(model.SerializeToString())
    return path


class Hanging(DriftEngine):
    """Steps as usual until ``after`` steps; the next one waits until ``free`` is set."""

    def __init__(self, after: int = 0) -> None:
        super().__init__()
        self.left, self.free = after, threading.Event()

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        self.left -= 1
        if self.left < 0:
            self.free.wait()
        return super().step(frame, state_in, state_out)


def hang(engine: Hanging, **options: float | Callable[[], bool]) -> str:
    """Step an engine that hangs, under a watchdog; the reason that it gives."""
    reasons: list[str] = []

    def give_up(reason: str) -> None:
        reasons.append(reason)
        engine.free.set()

    with Watchdog(engine, give_up, period=0.01, **options) as watchdog:  # type: ignore[arg-type]  # of several types
        Stepper(engine).advance(image(engine))
        with pytest.raises(EngineError, match="did not return"):
            watchdog.check()
    assert reasons == [watchdog.reason]
    return watchdog.reason


def image(engine: Engine) -> list[Image]:
    return [np.zeros((*reversed(engine.manifest.size), 3), np.uint8)]


def test_onnxruntime_is_interrupted_and_the_run_says_so(tmp_path: Path) -> None:
    reports = list[Report]()
    message = r"^cannot finish the step of still: onnxruntime did not return within 0\.1 s \(use a .*\)$"
    with pytest.raises(EngineError, match=message):
        framecast.run(CLIP, model=endless(tmp_path / "a.onnx"), step_limit=0.1, observe=reports.append)
    assert str(reports[-1]["ended"]).startswith("error: cannot finish the step of still")


def test_an_interrupted_engine_stays_interrupted(tmp_path: Path) -> None:
    with open_engine(artifact(tmp_path / "a.onnx", still()), "onnxruntime") as engine:
        stepper = Stepper(engine)
        stepper.advance(image(engine))
        assert engine.interrupt("cannot go on: because")
        for _ in range(2):
            with pytest.raises(EngineError, match=r"^cannot go on: because$"):
                stepper.advance(image(engine))


def test_an_engine_that_cannot_be_interrupted_is_given_up() -> None:
    assert hang(Hanging(), limit=0.05) == (
        "cannot finish the step of drift: drift did not return within 0.05 s (use a smaller model or a faster engine; "
        "if the model has worked before, export it again)"
    )
    stopped = hang(Hanging(), stopping=lambda: True, grace=0.05)
    assert stopped.startswith(
        "cannot end the step of drift: drift did not return within 0.05 s of the request to stop ("
    )


def test_a_slow_step_is_no_hang_when_the_run_should_stop() -> None:
    period, looks, stop = 0.005, [0], [False]

    def stopping() -> bool:
        looks[0] += 1
        return stop[0]

    class Slow(DriftEngine):
        turns = 30  # of the watchdog: it counts between one and two periods for each

        def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
            end = looks[0] + self.turns
            while looks[0] < end and not watchdog.reason:
                time.sleep(period)
            return super().step(frame, state_in, state_out)

    engine = Slow()
    with Watchdog(engine, lambda _: None, stopping=stopping, grace=5 * period, period=period) as watchdog:
        stepper = Stepper(engine)
        stepper.advance(image(engine))
        engine.turns, stop[0] = 20, True
        stepper.advance(image(engine))
        watchdog.check()


def test_an_engine_that_does_not_obey_is_given_up() -> None:
    class Deaf(Hanging):
        def interrupt(self, reason: str) -> bool:
            return True

    assert "within 0.05 s" in hang(Deaf(), limit=0.05, grace=0.05)


def test_a_guard_watches_every_engine_that_is_open(tmp_path: Path) -> None:
    given_up: list[str] = []
    hanging = Hanging()

    def give_up(reason: str) -> None:
        given_up.append(reason)
        hanging.free.set()

    with Guard(give_up, limit=0.05, grace=0.05, period=0.01):
        with open_engine(endless(tmp_path / "a.onnx"), "onnxruntime") as engine:  # opened later
            stepper = Stepper(engine)
            with pytest.raises(EngineError, match=r"^cannot finish the step of still: onnxruntime did not return"):
                stepper.advance(image(engine))
        assert given_up == []
        Stepper(hanging).advance(image(hanging))
    assert [reason.partition(" (")[0] for reason in given_up] == [
        "cannot finish the step of drift: drift did not return within 0.05 s"
    ]


@pytest.mark.slow
def test_a_command_without_a_run_has_a_guard(tmp_path: Path) -> None:
    code = (
        "import framecast.runtime.watchdog as w; w.Guard.__init__.__kwdefaults__['limit'] = 0.5; "
        "from framecast.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "parity", str(endless(tmp_path / "a.onnx")), "--engine", "onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "cannot finish the step of still: onnxruntime did not return within 0.5 s" in done.stderr


def test_first_calls_may_compile() -> None:
    class Compiling(Hanging):
        compiles = True

    assert "within 0.2 s" in hang(Compiling(), limit=0.02)
    late = Compiling()
    for _ in range(50):
        with late.lock:
            pass
    assert "within 0.02 s" in hang(late, limit=0.02)


def test_every_step_of_a_long_look_ahead_counts_for_itself() -> None:
    class Looking(DriftEngine):
        calls: list[int | None] = []  # noqa: RUF012 (of this test)

        def feed_back(self, source: State, k: int, state_in: State, state_out: State) -> None:
            self.calls.append(self.lock.current)
            super().feed_back(source, k, state_in, state_out)

    engine = Looking()
    stepper = Stepper(engine)
    stepper.advance(image(engine))
    stepper.look_ahead(5)
    assert len({*engine.calls}) == len(engine.calls) == 4
    assert engine.lock.current is None


def test_a_turn_is_one_call_however_often_its_holder_enters() -> None:
    turn = Turn()
    assert turn.current is None
    with turn:
        outer = turn.current
        with turn:
            pass
        assert turn.current is not None
    assert turn.current is None
    with turn:
        assert turn.current != outer


def test_outputs_are_closed_before_the_run_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, reports, reasons = Hanging(after=7), list[Report](), list[str]()
    monkeypatch.setattr("framecast.runtime.run.open_engine", lambda *_, **__: engine)
    video = tmp_path / "run.mkv"

    def stuck(reason: str) -> None:
        reasons.append(reason)
        reader = cv2.VideoCapture(str(video))
        while reader.read()[0]:
            reports.append(reports[-1])
        engine.free.set()

    source = ListSource(shades(12, size=(48, 64)))
    with pytest.raises(EngineError, match=r"within 0\.1 s"):
        framecast.run(source, record=video, step_limit=0.1, stuck=stuck, observe=reports.append)
    assert len(reasons) == 1
    assert reports[-2]["frames"] == 7
    assert sum(report["ended"] == f"error: {reasons[0]}" for report in reports) > 5


def test_a_limit_must_be_positive() -> None:
    for limit in (0.0, -1.0, float("nan")):
        with pytest.raises(OptionError, match="above 0"):
            framecast.run(CLIP, step_limit=limit)


def spawn(folder: Path, engine: str) -> subprocess.Popen[str]:
    """Start a run whose first step never returns."""
    folder.mkdir()
    model = endless(folder / "endless.onnx")
    command = [sys.executable, "-m", "framecast", "run", CLIP, "--serve", "127.0.0.1:0", "--model", str(model)]
    command += ["--engine", engine, "--json", str(folder / "run.json")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed: pip install openvino")
def test_signals_end_a_run_whose_step_never_returns(tmp_path: Path) -> None:
    """One process cannot interrupt its engine; the other gets a second signal before it could. Both run at once."""
    alone, twice = spawn(tmp_path / "openvino", "openvino"), spawn(tmp_path / "onnxruntime", "onnxruntime")
    for process in (alone, twice):
        assert process.stderr is not None
        assert process.stderr.readline().startswith("watch it at ")
    threading.Event().wait(0.2)  # until the steps have begun
    alone.send_signal(signal.SIGTERM)
    twice.send_signal(signal.SIGINT)
    threading.Event().wait(0.1)  # two signals of a kind at the same time are one
    twice.send_signal(signal.SIGINT)
    _, err = twice.communicate()
    assert (twice.returncode, err) == (
        130,
        "framecast: interrupted: ended without waiting for the work to finish\n",
    )
    out, err = alone.communicate()
    assert (alone.returncode, err.count("\n")) == (1, 1), err
    assert err.startswith("framecast: cannot end the step of still: openvino did not return within 2 s of the request")
    assert err.endswith("; ended without waiting for it\n")
    assert "cannot end the step" in out
    figures = json.loads((tmp_path / "openvino" / "run.json").read_text())
    assert figures["ended"].startswith("error: cannot end the step of still")
