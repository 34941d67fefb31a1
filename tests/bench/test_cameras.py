"""How many cameras a machine handles: simulated machines of known speed, in virtual time."""

from __future__ import annotations

import json
import threading

import pytest

from framecast.bench import cameras
from framecast.bench.cameras import Cameras, carry, search
from framecast.bench.loop import WARM_STEPS
from framecast.errors import EngineError, OptionError
from framecast.runtime.convert import Tensor
from framecast.runtime.engines import Engine, State
from framecast.testing import PacedEngine, TrendEngine, VirtualClock

CLIP = "synthetic://?size=56x40&frames=8"


class Watched(PacedEngine):
    closed: set[int] = set()  # noqa: RUF012 (of all engines; an engine may be closed twice)

    def close(self) -> None:
        Watched.closed.add(id(self))
        super().close()


def carried(step: float, limit: int = 16, *, light: bool = False, batches: bool = False) -> tuple[Cameras, int]:
    """The result on a machine that runs one step at a time, and the number of engines opened."""
    clock, machine, opened = VirtualClock(), [0.0], []

    def open_engine() -> Engine:
        opened.append(Watched(clock, lambda n: step, machine))
        opened[-1].light, opened[-1].batches = light, batches
        return opened[-1]

    Watched.closed.clear()
    found = carry(open_engine, CLIP, fps=None, seconds=3, limit=limit, clock=clock)
    assert Watched.closed == {id(engine) for engine in opened}
    return found, len(opened)


@pytest.mark.parametrize("light", [False, True])
def test_as_many_cameras_as_fit_their_steps_into_a_frame_interval(light: bool) -> None:
    found, opened = carried(0.0101, light=light)  # 3 × 10.1 ms fit into 33.3 ms, 4 do not
    assert found.carried == 3
    assert [run.cameras for run in found.runs] == [1, 2, 3, 4]
    assert opened == found.engines == (4 if light else 1)
    one, _, three, four = found.runs
    assert [one.p50, one.p99] == pytest.approx([10.1, 10.1])
    assert 20 < three.p99 <= 30.4  # the last of the three waits for the other two
    assert three.dropped == 0
    assert four.p99 > found.interval_ms
    assert {run.n for run in found.runs} == {90}
    assert not [t for t in threading.enumerate() if t.name.startswith("camera-")]


def test_no_camera_fits_or_the_limit_is_reached() -> None:
    none, _ = carried(0.040)
    assert (none.carried, [run.cameras for run in none.runs]) == (0, [1])
    some, opened = carried(0.001, limit=3)
    assert (some.carried, opened) == (3, 1)
    assert "memory of each further camera" in dict(some.rows())
    assert dict(some.rows())["cameras handled"] == "3 or more at 30 frames a second each, one engine for all"
    assert json.loads(json.dumps(some.to_dict()))["runs"][-1]["cameras"] == 3


def test_steps_of_several_cameras_carry_more_where_they_take_no_longer() -> None:
    found, _ = carried(0.0101, limit=8, batches=True)
    assert found.carried == 8
    assert found.runs[-1].batches["8"] > 80


@pytest.mark.parametrize("limit", [1, 2, 5, 16, 17])
def test_search_finds_the_limit_and_tries_no_count_twice(limit: int) -> None:
    for edge in range(limit + 3):
        asked: list[int] = []

        def passes(count: int, edge: int = edge, asked: list[int] = asked) -> bool:
            asked.append(count)
            return count <= edge

        assert search(passes, limit) == min(edge, limit)
        assert len(asked) == len(set(asked))
        assert max(asked) <= limit


def test_bad_input() -> None:
    engine = TrendEngine(0.4)
    for fps, seconds, limit in ((-1, 1, 1), (30, 0, 1), (30, 1, 0)):
        with pytest.raises(OptionError, match=r"above 0|at least 1"):
            carry(lambda: engine, CLIP, fps=fps, seconds=seconds, limit=limit)


def test_one_failing_camera_stops_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(TrendEngine):
        def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
            if self.steps == WARM_STEPS + 5:
                raise EngineError("the network is gone")
            return super().step(frame, state_in, state_out)

    kinds = [TrendEngine, Broken, TrendEngine]
    monkeypatch.setattr(cameras, "search", lambda passes, limit: passes(len(kinds)))
    monkeypatch.setattr(TrendEngine, "light", True)  # an engine for each camera
    engines = iter([kind(0.4, "BGR", 1, 1, 0) for kind in kinds])
    with pytest.raises(EngineError, match="the network is gone"):
        carry(lambda: next(engines), CLIP, fps=100, seconds=200)
    assert not [t for t in threading.enumerate() if t.name.startswith(("camera-", "framecast-capture"))]
