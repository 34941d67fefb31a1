"""``benchmarks/now.py``: its streams, its optical-flow rival, its scores, and the simulated camera."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from framecast.evaluation.ahead import Ahead
from framecast.evaluation.clips import evaluate_clips
from framecast.evaluation.results import Contender
from framecast.runtime.predictor import Predictor
from framecast.testing import FadeEngine

from .evaluation.conftest import moving  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


@pytest.fixture
def scripts(benchmark: Callable[[str], ModuleType]) -> dict[str, ModuleType]:
    return {name: benchmark(name) for name in ("_now_clips", "_now_run", "_now_live", "now")}


def test_each_stream_repeats_and_drops_the_frames_in_its_name(scripts: dict[str, ModuleType]) -> None:
    clips = scripts["_now_clips"]
    frames = [np.full((24, 32, 3), 5 * i + 20, np.uint8) for i in range(20)]
    clip = clips.Clip("x", frames, [i / 25 for i in range(20)], [True] * 20)
    shown = {make.__name__: make(clip) for make in clips.STREAMS}
    rates = {"doubled": 2, "every4th": 1.25, "pulldown": 2.5}
    for name, stream in shown.items():
        assert len(stream.frames) == len(stream.times) == len(stream.fresh)
        assert stream.interval == pytest.approx(1 / 25 / rates.get(name, 1))
    seen = {name: [round((int(frame.mean()) - 20) / 5) for frame in stream.frames] for name, stream in shown.items()}
    assert seen["clean"] == list(range(20))
    assert seen["doubled"][:6] == [0, 0, 1, 1, 2, 2]
    assert seen["every4th"][:10] == [0, 1, 2, 3, 3, 4, 5, 6, 7, 7]
    assert seen["pulldown"][:10] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert seen["stall"][:10] == [0, 1, 2, 3, 3, 5, 6, 7, 8, 8]
    assert seen["vfr"] == [i for i in range(20) if i % 7 not in (3, 4)]
    assert shown["vfr"].times[3] == pytest.approx(5 / 25)
    assert shown["pulldown"].fresh[:5] == [True, False, True, False, False]
    assert 0 < np.mean(shown["at_random"].fresh) < 1
    assert [int(frame.mean()) - 20 - 5 * i for i, frame in enumerate(shown["flicker3"].frames)][:4] == [-15, 8, 8, -15]


def test_clips_are_read_at_the_given_size(scripts: dict[str, ModuleType]) -> None:
    clip = scripts["_now_clips"].load("synthetic://?size=64x48&frames=40", (32, 24), 10, 26)
    assert (len(clip.frames), clip.frames[0].shape) == (26, (24, 32, 3))
    assert clip.times[0] == pytest.approx(10 / 30)
    assert len(scripts["_now_clips"].load("synthetic://?size=64x48&frames=12", None, 10, 26).frames) == 12


def test_the_rival_moves_each_object_by_its_own_motion(scripts: dict[str, ModuleType]) -> None:
    """A square moves over a still ground. Warping along the flow's fixed point moves the square to its new place."""
    rng = np.random.default_rng(0)
    ground = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8), (0, 0), 2)
    thing = cv2.GaussianBlur(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), (0, 0), 2)

    def frame(i: int) -> np.ndarray:
        image: np.ndarray = ground.copy()
        image[40:80, 20 + 6 * i : 60 + 6 * i] = thing
        return image

    dis = scripts["_now_run"].Dis()
    dis.see(frame(0), 0.0)
    dis.see(frame(1), 0.04)
    inside = (slice(46, 74), slice(20 + 18 + 6, 60 + 18 - 6))
    copied = np.abs(frame(1)[inside].astype(int) - frame(3)[inside]).mean()
    assert np.abs(dis.at(0.08)[inside].astype(int) - frame(3)[inside]).mean() < 0.3 * copied


def test_scores_equal_those_of_eval(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    frames = moving(26)
    for i, image in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), image)
    results = evaluate_clips(
        [Contender("ours", "ours", Predictor(FadeEngine(), watch=False))], [str(tmp_path)], ahead=Ahead.in_frames(2)
    )
    run = scripts["_now_run"]
    clip = scripts["_now_clips"].load(str(tmp_path), None, 0, 100)
    methods = [run.Copy(), run.Dis(), run.Ours("ours", Predictor(FadeEngine(), watch=False))]
    scores = run.run(clip, methods, (1, 2))
    for k in (1, 2):
        assert len(scores.fresh[k]) == results.clips[0].scored[k - 1]
        for name, method in (("ours", "ours"), (run.COPY, "copy-last")):
            assert scores.mean(name, k) == pytest.approx(results.of(results.mean, method, "psnr")[k - 1], abs=1e-6)
    assert scores.ratio(run.DIS) == 1
    assert np.isfinite(scores.ratio("ours"))


def test_a_steady_delay_is_compensated_in_virtual_time(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = scripts["_now_live"]
    monkeypatch.setattr(live, "SECONDS", 8.0)
    monkeypatch.setattr(live, "SETTLED", 4.0)
    found = live.now(0.0, 1.0)
    assert found.p95 < 10
    assert found.without == pytest.approx(1e3 * (live.DELAY + live.STEP), abs=10)
    assert found.n > 50


def test_an_unknown_section_is_refused(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["now.py", "--sections", "speed"])
    with pytest.raises(SystemExit):
        scripts["now"].main()
    assert "no section 'speed': choose from sizes, steps" in capsys.readouterr().err
