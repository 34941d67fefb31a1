"""A few damaged inputs of every kind, and the machinery that tries 13,800 of them (``make fuzz``)."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from . import campaign
from .broken import VERDICTS
from .worker import FINE, KINDS, judge, load, make

SLOW = ("weights", "checkpoint", "run", "data", "source", "command")  # they load torch, or wait for addresses
FEW = {"video": 15, "image": 20, "http": 10, "websocket": 5}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("name", [name for name in KINDS if name not in SLOW])
def test_damaged_inputs_survive_or_are_refused_in_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path))
    monkeypatch.setenv("CAMERA", "")  # a kind sets it
    (tmp_path / "whole").mkdir()
    kind = load(name)(tmp_path / "whole")
    for seed in range(FEW.get(name, 40)):
        make(kind, name, seed, tmp_path / "input")
        verdict, text = judge(lambda: kind.attempt(tmp_path / "input"), kind.longest)
        assert verdict in FINE, f"python benchmarks/fuzz.py --kind {name} --seed {seed}\n{text}"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["onnx", "manifest", "engine", "http"])
def test_a_seed_makes_the_same_input_again(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path))
    made = []
    for number in range(2):
        (whole := tmp_path / str(number)).mkdir()
        make(load(name)(whole), name, 3, tmp_path / "input")
        made.append(contents(tmp_path / "input"))
    assert made[0] == made[1]


def test_every_verdict_is_counted_and_costs_only_its_own_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "SECONDS", 0.2)
    monkeypatch.setattr(campaign, "MEMORY", 1 << 26)
    kind = "broken:Broken"

    def expected(seed: int) -> str:
        return random.Random(f"{kind} {seed}").choice(VERDICTS)

    first = next(n for n in itertools.count() if len({expected(n + k) for k in range(8)}) == len(VERDICTS))
    tally = campaign.campaign(kind, first, 8)
    assert tally.verdicts == {**dict.fromkeys(VERDICTS[:6], 1), "traceback": 2}
    assert tally.peak >= 1 << 26
    named = {expected(fault.seed): fault for fault in tally.faults}
    assert {name: fault.verdict for name, fault in named.items()} == {
        **{name: name for name in VERDICTS[2:7]},
        "two lines": "traceback",
    }
    assert "KeyError: 'a key'" in named["traceback"].text
    assert "exit code -6" in named["crashed"].text
    assert named["printed"].text.strip().splitlines()[0] == "a library's line"


def test_a_saved_input_can_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "verdict").write_text("traceback")
    assert campaign.attempt_saved("broken:Broken", tmp_path).verdicts == {"traceback": 1}
