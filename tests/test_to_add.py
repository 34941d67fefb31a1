"""The extensions that CONTRIBUTING describes work without changing an existing file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from framecast.camera import Frame, Source
from framecast.errors import SourceError
from framecast.runtime.capture import Capture
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import ENGINES, Engine, State, open_engine
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.stepper import Stepper
from framecast.testing import DriftEngine, ListSource, shades

from .stepping import stepped  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


class Reconnecting(Source):
    """A reconnect policy: reconnect up to ``budget`` times."""

    def __init__(self, connect: Callable[[], Source], budget: int) -> None:
        self._connect, self._budget, self._epoch = connect, budget, 0
        self._source = connect()
        self.name, self.live, self.fps = self._source.name, self._source.live, self._source.fps

    def read(self) -> Frame | None:
        try:
            frame = self._source.read()
        except SourceError:
            if self._epoch == self._budget:
                raise
            self._epoch += 1
            self._source = self._connect()
            frame = self._source.read()
        return None if frame is None else dataclasses.replace(frame, epoch=self._epoch)

    def close(self) -> None:
        self._source.close()


def test_a_reconnect_policy_is_a_source_around_a_source() -> None:
    lost = SourceError("lost")
    connections = iter([ListSource([*shades(12), lost]), ListSource([*shades(12), lost]), ListSource(shades(12))])
    source = Reconnecting(lambda: next(connections), budget=2)
    pipeline = Pipeline(source, Predictor(DriftEngine(), watch=False))
    assert len(list(pipeline)) == 36
    assert (pipeline.report()["epochs"], pipeline.report()["ended"]) == (3, "end of source")


def test_a_second_camera_is_a_row_of_a_stepper() -> None:
    captures = [Capture(ListSource(shades(6))), Capture(ListSource(shades(3)))]
    stepper = Stepper(DriftEngine(), batch=2)
    last = [np.zeros((12, 16, 3), np.uint8)] * 2
    for capture in captures:
        capture.start()
    for _ in range(6):
        for row, capture in enumerate(captures):
            item = capture.mailbox.get()
            if item is None:
                stepper.reset([row])
            else:
                last[row] = item.frame.image
        stepper.advance(last)
    for capture in captures:
        capture.close()
    assert stepper.steps == [6, 1]  # the second row was reset in the last three rounds


def test_health_metrics_come_from_a_snapshot() -> None:
    pipeline = Pipeline(ListSource(shades(9)), Predictor(DriftEngine(), watch=False))
    served = [pipeline.telemetry.snapshot() for _ in pipeline]
    assert [snapshot.frames for snapshot in served] == list(range(1, 10))
    assert served[-1].latency.percentile(99) > 0


def test_a_model_server_is_an_engine_and_a_row_of_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Server:
        """A server that keeps a state for each sequence."""

        def __init__(self) -> None:
            self.steps: dict[int, int] = {}

        def infer(self, sequence: int, frame: Tensor, *, start: bool) -> Tensor:
            self.steps[sequence] = 1 if start else self.steps[sequence] + 1
            answer: Tensor = frame + np.float32(0.01 * self.steps[sequence])
            return answer

    server = Server()

    class ServerEngine(DriftEngine):
        name = "server"

        def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
            start = not state_in.tensors["count"].any()
            state_out.tensors["count"][:] = state_in.tensors["count"] + 1
            state_out.prediction[:, 0] = server.infer(id(state_in.zero) ^ id(state_out.zero), frame, start=start)
            prediction: Tensor = state_out.prediction
            return prediction

    def opened(*_: object) -> Engine:
        return ServerEngine()

    row = dataclasses.replace(ENGINES["onnxruntime"], open=opened)
    monkeypatch.setitem(ENGINES, "server", row)
    with open_engine(tmp_path / "edge", "server") as engine:
        one, other = Predictor(engine, watch=False), Predictor(engine, watch=False)
        image = np.zeros((12, 16, 3), np.uint8)
        levels = [int(stepped(p, image).image[0, 0, 0]) for p in (one, one, other, one, other)]
    assert levels == [3, 5, 3, 8, 5]
