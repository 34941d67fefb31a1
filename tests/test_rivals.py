"""The rivals in ``benchmarks/``: clip-wise code predicts the same as our step, at the published cost; the report."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from framecast.bench.steps import Series
from framecast.errors import EngineError
from framecast.models.astm import ASTM, ASTMConfig
from framecast.models.configs import CONFIGS, build
from framecast.models.stau import MAU, STAU, MAUConfig, STAUConfig
from framecast.models.step import StepModel
from framecast.models.stip import STIP, STIPConfig
from framecast.models.tau import TAU, TAUConfig

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PUBLISHED = [name for name, entry in CONFIGS.items() if entry.window_gmacs is not None]
USUAL = (
    "stip-ucf",
    "stau-mnist",
    "mau-mnist",
    "astm-mnist",
    "tau-mnist",
)  # one of each kind; the others are slow tests
SMALL: dict[str, Callable[[], StepModel]] = {
    "stip": lambda: STIP(STIPConfig(32, 48, patch=2, hidden=8, layers=3, stages=3)),
    "stip-one-stage": lambda: STIP(STIPConfig(12, 8, channels=2, hidden=5, layers=1, kernel=3, stages=1)),
    "stau": lambda: STAU(STAUConfig(16, 24, 3, patch=2, hidden=8, layers=7, stages=1)),
    "stau-residual": lambda: STAU(STAUConfig(12, 20, 1, hidden=4, layers=3, tau=3, theta=2, residual=True)),
    "mau": lambda: MAU(MAUConfig(16, 24, 1, hidden=8, layers=2)),
    "astm": lambda: ASTM(ASTMConfig(8, 12, channels=1, patch=2, hidden=6, layers=3)),
    "tau": lambda: TAU(TAUConfig(16, 24, 3, 5, 8, 16, 4, 3)),
    "tau-two-layers": lambda: TAU(TAUConfig(10, 14, 1, 4, 6, 21, 2, 2, mlp_ratio=3)),
}


@pytest.fixture(scope="module")
def module() -> Iterator[Callable[[str], Any]]:
    """A function that imports a module of ``benchmarks/``, which is not a package."""
    sys.path.insert(0, str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def filled(network: StepModel) -> StepModel:
    """Fill a network with float64 weights, large enough that an error in any of them would show."""
    for name, value in network.state_dict().items():
        if "running_var" in name:
            torch.nn.init.uniform_(value, 0.5, 1.5)
        elif value.is_floating_point():
            spread = value[0].numel() ** -0.5 if value.dim() in (4, 5) else 0.3
            torch.nn.init.normal_(value, float(value.mean()), spread)
    return network.double().eval()


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_the_clip_wise_code_predicts_the_same_as_the_step(name: str, module: Callable[[str], Any]) -> None:
    torch.manual_seed(0)
    network = filled(SMALL[name]())
    rival = module("_clipwise").clip_wise(network)
    for frames in (network.config.frames,) if isinstance(network, TAU) else (1, 2, 8):
        clip = torch.rand(2, frames, *network.frame_shape, dtype=torch.float64)
        state = network.init_state(2)
        for frame in clip.unbind(1):
            expected, state = network.step(frame, state)
        found = rival(clip)
        assert found.shape == clip.shape
        assert float((found[:, rival.newest] - expected[:, 0]).norm() / expected.norm()) <= 1e-10


@pytest.mark.parametrize(
    "name", [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED]
)
def test_the_clip_wise_code_has_the_published_cost(name: str, module: Callable[[str], Any]) -> None:
    with torch.device("meta"):
        network = build(name)
        clip = torch.empty(1, CONFIGS[name].window, *network.frame_shape)
    rival = module("_clipwise").clip_wise(network)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        rival(clip)
    counts = counter.get_flop_counts()["Global"]
    convolutions = sum(flops for operation, flops in counts.items() if "convolution" in str(operation))
    assert convolutions / 2e9 == pytest.approx(CONFIGS[name].window_gmacs, rel=0.01)


def test_an_unpublished_network_has_no_clip_wise_code(module: Callable[[str], Any]) -> None:
    with torch.device("meta"):
        assert module("_clipwise").clip_wise(build("stip-edge")) is None


def test_every_contestant_has_a_note_on_equality(module: Callable[[str], Any]) -> None:
    cases = module("_cases")
    assert cases.BASELINE in cases.CONTESTANTS
    assert set(cases.MODELS) <= set(PUBLISHED)
    for model in cases.MODELS:
        notes = [cases.note(model, name) for name in cases.CONTESTANTS]
        assert all("same" in note and "{" not in note for note in notes)
    assert "recomputes 4 frames" in cases.note("stip-ucf", cases.BASELINE)
    assert "decodes 10" in cases.note("tau-mnist", cases.BASELINE)


def test_a_contestant_that_differs_or_is_missing_is_not_timed(
    module: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = module("_cases")
    task = cases.Task("stip-ucf", tmp_path)
    frame = np.random.default_rng(0).random((1, 3, 4, 4), np.float32)
    np.save(tmp_path / "stip-ucf.npy", np.stack([frame] * cases.STEPS))
    np.save(tmp_path / "stip-ucf.expected.npy", np.stack([frame, frame / 2]))

    def adding(what: float, allowed: float | None = cases.SAME) -> Any:
        ready = cases.Ready(predict=lambda: None, rollout=lambda frames: frames[-1] * np.float32(1 + what))
        return cases.Contestant(lambda _: ready, "the same", allowed)

    def absent(_: object) -> None:
        raise EngineError("no such engine\nhere")

    contestants = {
        "same": adding(1e-6),
        "wrong": adding(1e-2),
        "rough": adding(1e-2, None),
        "broken": adding(np.nan, None),
        "absent": cases.Contestant(absent, ""),
    }
    monkeypatch.setattr(cases, "CONTESTANTS", contestants)
    assert cases.set_up(task, "same")[1]["error"] <= 2e-6
    errors = cases.set_up(task, "rough")[1]
    assert errors == pytest.approx({"error": 1e-2, "error_of_change": 2e-2}, rel=1e-3)
    reasons = {"wrong": r"error 2\.0e-02", "broken": "not finite", "absent": "engine here"}
    for name, reason in reasons.items():
        with pytest.raises(cases.Unavailable, match=reason):
            cases.set_up(task, name)


def test_ratios_are_taken_round_by_round(module: Callable[[str], Any]) -> None:
    figures = module("rivals").figures
    slowdowns = [1.0] * 500 + [3.0] * 500  # in the second round, the machine was slower for both contestants
    rounds = [0] * 500 + [1] * 500
    clip = Series("clip", milliseconds=[30 * slowdown for slowdown in slowdowns], rounds=rounds)
    step = Series("step", milliseconds=[2 * slowdown for slowdown in slowdowns], rounds=rounds)
    found = figures(step, clip)
    assert (found["n"], found["rounds"], found["p99"]) == (1000, 2, 6.0)
    assert [found[key] for key in ("ratio", "low", "high")] == pytest.approx([15, 15, 15])
    few = figures(Series("few", milliseconds=[1.0] * 20, rounds=[0] * 20), None)
    assert few["p99"] is None  # too few samples
    assert "ratio" not in few


ENTRY = {
    "model": "stip-ucf", "contestant": "clip-wise PyTorch", "note": "same function", "median": 432.1, "p99": None,
    "n": 40, "ratio": 1.0, "low": 1.0, "high": 1.0, "rounds": 8, "memory": 512_000_000, "load": 0.1,
    "error": 1e-6, "error_of_change": 2e-5,
    "commit": "abc", "machine": "a CPU, 2 cores", "versions": {"torch": "2.9"}, "date": "2026-01-02T00:00:00Z",
    "threads": 2,
}  # fmt: skip


def test_the_report_shows_the_last_run_of_each_model(
    module: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {**ENTRY, "contestant": "step", "median": 28.8, "p99": 31.25, "ratio": 15.0, "low": 14.5, "high": 15.5}
    absent = {key: ENTRY[key] for key in ("model", "date", "threads", "load")}
    absent |= {"contestant": "other", "note": "same", "not_run": "no engine"}
    older = {**ENTRY, "date": "2026-01-01T00:00:00Z", "contestant": "forgotten"}
    lines = [older, {**ENTRY, "model": "tau-mnist"}, ENTRY, step, absent]
    file = tmp_path / "rivals.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    report = module("report")
    monkeypatch.setattr(sys, "argv", ["report.py", str(file), "stip-ucf"])
    report.main()
    assert capsys.readouterr().out == (
        "**stip-ucf**, the next frame, 2 threads:\n\n"
        "|  | median, ms | p99, ms | n | times as fast | 95 % interval | error | of change | peak, MB |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| clip-wise PyTorch | 432 | – | 40 | 1.00 | 1.00 … 1.00 | 1.0e-06 | 2.0e-05 | 512 |\n"
        "| step | 28.8 | 31.2 | 40 | 15.00 | 14.50 … 15.50 | 1.0e-06 | 2.0e-05 | 512 |\n"
        "\n"
        "- clip-wise PyTorch: same function\n"
        "- step: same function\n"
        "- other: same; not run: no engine\n"
        "\n"
        "*a CPU, 2 cores; commit abc; 2026-01-02T00:00:00Z; load 0.10 before the measurement began; torch 2.9.*\n"
    )
    assert report.report(lines).index("stip-ucf") < report.report(lines).index("tau-mnist")
    assert "forgotten" not in report.report(lines)


def test_an_empty_report_says_how_to_measure(
    module: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / "none.jsonl")])
    module("report").main()
    assert "python benchmarks/rivals.py --jsonl" in capsys.readouterr().out
