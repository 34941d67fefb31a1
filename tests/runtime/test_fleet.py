"""Several cameras in one run: each predicts as if it were alone, and one that fails ends alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import framecast
from framecast.camera import Frame, Image
from framecast.errors import EngineError, OptionError, SinkError, SourceError
from framecast.graph.artifact import save
from framecast.runtime import fleet
from framecast.runtime.engines import Engine, State
from framecast.runtime.engines.batched import Batcher
from framecast.runtime.fleet_report import FleetReport
from framecast.testing import DriftEngine, ListSource, PacedEngine, TrendEngine, VirtualClock, shades

from ..exported import exported  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

CLIP = "synthetic://?size=64x48&frames=6&seed={}"


def pictures(kept: list[Image]) -> Callable[[framecast.Result], None]:
    return lambda result: kept.append(result.prediction.image.copy())


def solo(source: str, model: str | Path) -> list[Image]:
    kept: list[Image] = []
    framecast.run(source, model=model, threads=1, sinks=[pictures(kept)])
    return kept


def same(got: list[Image], wanted: list[Image]) -> None:
    assert len(got) == len(wanted) > 0
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("model", ["edge", "tau-block"])
def test_each_camera_is_bit_equal_to_its_own_run(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without weights has an engine for each camera, and a network has one for all."""
    artifact: str | Path = model
    if model != "edge":
        artifact = tmp_path / "network.onnx"
        save(exported(model), artifact)
    monkeypatch.setattr(Batcher, "measure", lambda self, most: None)  # steps of one row, as in a run of one
    sources, kept = [CLIP.format(seed) for seed in (1, 2, 3)], [list[Image]() for _ in range(3)]
    cameras = [framecast.Camera(source, sinks=[pictures(images)]) for source, images in zip(sources, kept, strict=True)]
    report = framecast.run_cameras(cameras, model=artifact, threads=1)
    for source, images in zip(sources, kept, strict=True):
        same(images, solo(source, artifact))
    assert list(report["cameras"]) == ["camera1", "camera2", "camera3"]
    assert [one["frames"] for one in report["cameras"].values()] == [6, 6, 6]
    total = report["total"]
    assert (total["frames"], total["ended"], total["failed"]) == (18, "end of source", {})
    assert total["engines"] == (3 if model == "edge" else 1)
    assert total["batches"] == ({} if model == "edge" else {"1": 18})


def use(monkeypatch: pytest.MonkeyPatch, opens: Callable[[], Engine], *, pays: bool = False) -> None:
    """Let the cameras share an engine of the tests."""

    def measure(batcher: Batcher, most: int) -> None:
        if pays:
            batcher.cost = {1: 1.0, 2: 1.1}

    monkeypatch.setattr(fleet, "open_engine", lambda *_, **__: opens())
    monkeypatch.setattr(Batcher, "measure", measure)


class Seen:
    """What a camera got: each frame's index, the moment at which it was handed over, and the prediction."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock, self.rows = clock, list[tuple[int, float, bytes]]()

    def __call__(self, result: framecast.Result) -> None:
        self.rows.append((result.frame.index, result.stamps.handed, result.prediction.image.tobytes()))


def live(clock: VirtualClock, count: int, gap: float = 0.04, *, start: int = 0) -> ListSource:
    begun = clock.now()
    frames = [Frame(one.image, begun + gap * (n + 1), n) for n, one in enumerate(shades(count, start=start))]
    return ListSource(frames, live=True, gap=gap, clock=clock)


class Stalling(ListSource):
    """A camera that gives no more frames, until it is closed."""

    def read(self) -> Frame | None:
        while (frame := super().read()) is None and not self.closed:
            self._clock.wait_until(self._clock.now() + 0.5)
        return frame


def beside(other: str | None, monkeypatch: pytest.MonkeyPatch) -> tuple[list[tuple[int, float, bytes]], FleetReport]:
    """What a camera gets beside another one that dies, stalls, floods or cannot be opened; or beside none."""
    use(monkeypatch, lambda: TrendEngine(0.5), pays=True)
    clock = VirtualClock()
    seen, stop = Seen(clock), threading.Event()
    others: dict[str, Callable[[], object]] = {
        "dies": lambda: ListSource(
            [*shades(3), SourceError("yard: lost (plug it in)")], live=True, gap=0.055, clock=clock
        ),
        "stalls": lambda: Stalling(shades(3), live=True, gap=0.055, clock=clock),
        "floods": lambda: live(clock, 400, 0.004, start=5),
        "is not there": lambda: "no-such-file.mp4",
    }
    cameras = [framecast.Camera(live(clock, 40), name="door", sinks=[seen])]
    if other is not None:
        cameras.append(framecast.Camera(others[other](), name="yard"))  # type: ignore[arg-type]

    def observe(report: FleetReport) -> None:
        if report["cameras"]["door"]["ended"]:
            stop.set()

    report = framecast.run_cameras(cameras, clock=clock, batch_wait=0.0, observe=observe, stop=stop)
    return seen.rows, report


@pytest.mark.parametrize("other", ["dies", "stalls", "floods", "is not there"])
def test_no_camera_changes_what_another_one_gets(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, _ = beside(None, monkeypatch)
    rows, report = beside(other, monkeypatch)
    begun = alone[0][1] - rows[0][1]
    assert len(rows) == len(alone) == 40
    assert [(index, picture) for index, _, picture in rows] == [(index, picture) for index, _, picture in alone]
    assert [moment + begun for _, moment, _ in rows] == pytest.approx([moment for _, moment, _ in alone], abs=1e-6)
    door, yard = report["cameras"]["door"], report["cameras"]["yard"]
    assert (door["ended"], door["frames"], door["dropped"]) == ("end of source", 40, 0)
    failed = {"dies": "yard: lost (plug it in)", "is not there": "no such file: no-such-file.mp4"}
    assert [*report["total"]["failed"]] == ["yard"] * (other in failed)
    if other in failed:
        assert failed[other] in report["total"]["failed"]["yard"]
        assert yard["ended"] == f"error: {report['total']['failed']['yard']}"
        assert report["total"]["ended"] == "error: 1 of 2 cameras failed: yard"
    elif other == "stalls":
        assert (yard["frames"], yard["ended"]) == (3, "interrupted")


def test_a_flood_takes_no_more_than_one_step_from_another_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """One engine, whose step takes 3 ms. A camera that always has a frame gets what the other one leaves."""
    clock = VirtualClock()
    engine = PacedEngine(clock, lambda n: 0.003)
    use(monkeypatch, lambda: engine)
    seen, stop = Seen(clock), threading.Event()
    cameras = [
        framecast.Camera(live(clock, 40), name="door", sinks=[seen]),
        framecast.Camera(live(clock, 1600, 0.001), name="yard"),
    ]

    def observe(report: FleetReport) -> None:
        if report["cameras"]["door"]["ended"]:
            stop.set()

    report = framecast.run_cameras(cameras, clock=clock, observe=observe, stop=stop)
    door, yard = report["cameras"]["door"], report["cameras"]["yard"]
    assert (door["frames"], door["dropped"]) == (40, 0)
    assert (door["latency_ms"]["max"] or 99) <= 6.1  # the step that runs, and its own
    assert yard["dropped"] > 500


def test_frames_that_come_together_are_one_batch_and_each_is_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, lambda: TrendEngine(0.5), pays=True)
    clock = VirtualClock()
    seen = [Seen(clock) for _ in range(2)]
    cameras = [framecast.Camera(live(clock, 9, start=9 * n), sinks=[one]) for n, one in enumerate(seen)]
    report = framecast.run_cameras(cameras, clock=clock, batch_wait=0.002)
    assert report["total"]["batches"].get("2", 0) >= 7
    for n, one in enumerate(seen):
        own = Seen(clock)
        framecast.run_cameras([framecast.Camera(live(clock, 9, start=9 * n), sinks=[own])], clock=clock)
        assert [picture for _, _, picture in one.rows] == [picture for _, _, picture in own.rows]


def test_a_failing_sink_and_a_failing_step_end_one_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    class Picky(DriftEngine):
        def run(self, state_in: State, state_out: State) -> None:
            if state_out.seen[0].max() > 100:
                raise EngineError("cannot step: too bright (close the blind)")
            super().run(state_in, state_out)

    def fail(result: framecast.Result) -> None:
        raise SinkError("cannot write x: it is full (make room)")

    def mistake(result: framecast.Result) -> None:
        raise KeyError("x\ny")

    use(monkeypatch, Picky)
    bright = [Frame(np.full((12, 16, 3), 200, np.uint8), n / 25, n) for n in range(4)]
    said: list[str] = []
    cameras = [
        framecast.Camera(ListSource(shades(8)), name="door"),
        framecast.Camera(ListSource(bright), name="yard"),
        framecast.Camera(ListSource(shades(8)), name="gate", sinks=[fail]),
        framecast.Camera(ListSource(shades(8)), name="attic", sinks=[mistake]),
    ]
    report = framecast.run_cameras(cameras, announce=said.append)
    assert report["total"]["failed"] == {
        "yard": "cannot step: too bright (close the blind)",
        "gate": "cannot write x: it is full (make room)",
        "attic": "unexpected KeyError: 'x\\ny'",
    }
    assert report["cameras"]["door"]["frames"] == 8
    assert {"yard: cannot step: too bright (close the blind)", "gate: cannot write x: it is full (make room)"} <= {
        *said
    }


def test_recordings_frames_and_stop_are_each_cameras_own(tmp_path: Path) -> None:
    cameras = [
        framecast.Camera(CLIP.format(1), "door", record=tmp_path / "door.mkv"),
        framecast.Camera(CLIP.format(2), "yard", record=[tmp_path / "yard.mkv"], horizon=2),
    ]
    report = framecast.run_cameras(cameras, frames=5)
    assert [one["ended"] for one in report["cameras"].values()] == ["max frames"] * 2
    assert all((tmp_path / f"{name}.mkv").stat().st_size > 0 for name in ("door", "yard"))
    assert report["cameras"]["yard"]["ahead_ms"] == pytest.approx(66.7)
    stop = threading.Event()
    report = framecast.run_cameras(["demo", "demo"], loop=True, stop=stop, observe=lambda report: stop.set())
    assert [one["ended"] for one in report["cameras"].values()] == ["interrupted"] * 2
    assert report["total"]["ended"] == "interrupted"


def test_cameras_come_and_go_and_the_others_see_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, lambda: TrendEngine(0.5))
    clock = VirtualClock()
    alone = Seen(clock)
    framecast.run_cameras([framecast.Camera(live(clock, 100), name="door", sinks=[alone])], clock=clock)
    begun, seen, said = clock.now(), Seen(clock), list[str]()
    door = framecast.Camera(live(clock, 100), name="door", sinks=[seen])
    yard, gate = (
        framecast.Camera(Stalling(shades(3), live=True, gap=0.05, clock=clock), name=name) for name in ("yard", "gate")
    )
    changes: list[tuple[float, list[framecast.Camera]]] = [
        (0.4, [door, yard, gate]),
        (0.8, [door, door]),
        (1.0, [door, framecast.Camera("no-such-file.mp4", name="attic"), yard]),
        (1.4, [door, framecast.Camera("run.mp4", name="attic", record="x.gif")]),
    ]
    names: list[list[str]] = []

    def update() -> list[framecast.Camera] | None:
        return changes.pop(0)[1] if changes and clock.now() - begun >= changes[0][0] else None

    def observe(report: FleetReport) -> None:
        names.append([*report["cameras"]])

    report = framecast.run_cameras([door, yard], clock=clock, update=update, observe=observe, announce=said.append)
    assert [picture for _, _, picture in seen.rows] == [picture for _, _, picture in alone.rows]
    gaps, usual = (np.diff([moment for _, moment, _ in rows]) for rows in (seen.rows, alone.rows))
    np.testing.assert_allclose(gaps, usual, atol=1e-6)
    assert [names[0], ["door", "yard", "gate"] in names, names[-1]] == [["door", "yard"], True, ["door", "attic"]]
    assert said == [
        "gate: added a list",
        "keeping the cameras as they are: two cameras are named 'door': give each its own name",
        "gate: removed",
        "attic: added no-such-file.mp4",
        "attic: no such file: no-such-file.mp4 (check the path, or use 'demo' for the shipped clip)",
        "yard: removed",
        "attic: added run.mp4",
        "attic: cannot record x.gif: unknown suffix; use .mp4, .mkv, .webm, .avi, or .png for pictures",
    ]
    assert [*report["total"]["failed"]] == ["attic"]


@pytest.mark.parametrize("again", [False, True])
def test_a_camera_that_ends_late_begins_anew_once_it_has_ended(again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(ListSource):
        def close(self) -> None:
            clock.wait_until(clock.now() + 3 * fleet.LEAVING)
            super().close()

    use(monkeypatch, lambda: TrendEngine(0.5))
    clock, said, changed = VirtualClock(), list[str](), list[float]()
    slow = framecast.Camera(Slow(shades(99), live=True, gap=0.05, clock=clock, name="the old one"), "yard")
    new = framecast.Camera(ListSource(shades(3), name="the new one"), "yard")
    changes = [(1.0, [new]), (2.0 + fleet.LEAVING, [slow])][: 1 + again]

    def update() -> list[framecast.Camera] | None:
        if len(changed) < len(changes) and clock.now() >= changes[len(changed)][0]:
            changed.append(clock.now())
            return changes[len(changed) - 1][1]
        return None

    report = framecast.run_cameras([slow], clock=clock, update=update, announce=said.append)
    waits = "yard: warning: it has not ended yet: its change waits for that"
    newest = "yard: added the old one" if again else "yard: added the new one"
    assert said == [waits] * len(changes) + [newest]
    assert again or report["cameras"]["yard"]["ended"] == "end of source"


def test_a_camera_that_comes_cannot_record_over_another_one(tmp_path: Path) -> None:
    place, again, added = tmp_path / "x.mkv", tmp_path / "no" / ".." / "x.mkv", threading.Event()
    door = framecast.Camera(ListSource(shades(4)), "door", record=place, sinks=[lambda result: added.wait(60)])

    def update() -> list[framecast.Camera] | None:
        return None if added.is_set() else [door, framecast.Camera("demo", "yard", record=again)]

    def announce(line: str) -> None:
        if "would both record" in line:
            added.set()

    report = framecast.run_cameras([door], update=update, announce=announce)
    assert [*report["total"]["failed"]] == ["yard"]
    assert report["cameras"]["door"]["ended"] == "end of source"


def test_trouble_of_a_camera_that_has_ended_is_not_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost(ListSource):
        trouble = "lost"

    use(monkeypatch, lambda: TrendEngine(0.5))
    clock, seen = VirtualClock(), set[tuple[int, str | None]]()
    cameras = [framecast.Camera(live(clock, 40), "door"), framecast.Camera(Lost(shades(3)), "yard")]

    def observe(report: FleetReport) -> None:
        seen.add((report["total"]["running"], report["total"]["trouble"]))

    framecast.run_cameras(cameras, clock=clock, observe=observe)
    assert (1, None) in seen
    assert not any(trouble for _, trouble in seen)


class Hanging(TrendEngine):
    """Its steps do not return until it is freed."""

    light = True

    def __init__(self) -> None:
        super().__init__(0.5)
        self.free = threading.Event()

    def run(self, state_in: State, state_out: State) -> None:
        self.free.wait(60)
        super().run(state_in, state_out)


def test_a_step_that_never_returns_ends_only_its_camera_if_the_engine_is_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hanging, fine = Hanging(), TrendEngine(0.5)
    monkeypatch.setattr(TrendEngine, "light", True)
    engines = iter([hanging, fine])
    use(monkeypatch, lambda: next(engines))
    report = framecast.run_cameras([ListSource(shades(5)), ListSource(shades(5))], step_limit=0.1)
    hanging.free.set()
    failed = report["total"]["failed"]
    assert [*failed] == ["camera1"]
    assert failed["camera1"].startswith("cannot finish the step of ")
    assert report["cameras"]["camera2"]["frames"] == 5


def test_a_step_of_the_shared_engine_that_never_returns_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, reasons, reports = Hanging(), list[str](), list[FleetReport]()
    monkeypatch.setattr(Hanging, "light", False)
    use(monkeypatch, lambda: hanging)

    def stuck(reason: str) -> None:
        reasons.append(reason)
        hanging.free.set()

    sources = [ListSource(shades(5)), ListSource(shades(5))]
    framecast.run_cameras(sources, step_limit=0.1, stuck=stuck, observe=reports.append)
    assert len(reasons) == 1
    assert [*reports[-1]["total"]["failed"].values()] == reasons * 2


@pytest.mark.parametrize(
    ("cameras", "options", "message"),
    [
        ([], {}, "takes 1 to 256 cameras, not 0"),
        ("rtsp://u:secret@h/s", {}, r"give a list of cameras, such as \['rtsp://\*\*\*@h/s'\]"),
        (["demo"], {"frames": 0}, "frames must be at least 1, not 0"),
        ([framecast.Camera("demo", "a b")], {}, "cannot name a camera 'a b'"),
        ([framecast.Camera("demo", "a"), framecast.Camera("demo", "A")], {}, "two cameras are named 'A'"),
        ([framecast.Camera("demo", record="run.gif")], {}, "unknown suffix"),
        (["demo"], {"batch_wait": 2.0}, "batch_wait must be 0 to 1 s, not 2"),
        (["demo"], {"step_limit": 0.0}, "step_limit must be above 0 s"),
        ([framecast.Camera("demo", record="run.mkv")] * 2, {}, "camera1 and camera2 would both record run.mkv"),
    ],
)
def test_bad_input_is_one_line(cameras: list[framecast.Camera | str], options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        framecast.run_cameras(cameras, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_given_sources_and_sinks_are_closed_on_any_error() -> None:
    source = ListSource(shades(3))
    with pytest.raises(OptionError):
        framecast.run_cameras([framecast.Camera(source, "door"), framecast.Camera("demo", record="x.gif")])
    assert source.closed
