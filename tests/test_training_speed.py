"""``benchmarks/training.py``: what takes an update's time, and the ways of training."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .clips import write_digits  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


@pytest.fixture
def printed(
    benchmark: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., list[list[str]]]:
    """Run the script on few digits and with a small batch; the cells of the tables that it prints."""
    script = benchmark("training")
    choose, ways = script.choose, script.ways
    monkeypatch.setattr(script, "ways", lambda **chosen: ways(**chosen)[:2])  # two threads are slow on busy cores
    monkeypatch.setattr(script, "choose", lambda network, name, **changes: choose(network, name, batch=1, **changes))
    digits = write_digits(tmp_path / "digits")

    def call(*options: str) -> list[list[str]]:
        words = ["training.py", str(digits), "stau-mini", "--rounds", "2", "--cache", str(tmp_path / "cache"), *options]
        monkeypatch.setattr(sys, "argv", words)
        script.main()
        out = capfd.readouterr().out
        assert "machine" in out
        return [re.split(r" *\| *", line.strip("| ")) for line in out.splitlines() if line.startswith("| ")]

    return call


def test_the_parts_of_an_update_are_all_of_it(printed: Callable[..., list[list[str]]]) -> None:
    header, _, row = printed("--parts")
    assert header[3:] == ["data", "forward", "backward", "optimiser and average", "the rest"]
    assert row[:2] == ["`stau-mini`", "1"]
    shares = [float(cell.removesuffix(" %")) for cell in row[3:]]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert min(shares) >= 0
    assert shares[2] > shares[1] > shares[3]  # backward, forward, optimiser


def test_the_first_way_is_the_measure(printed: Callable[..., list[list[str]]]) -> None:
    _, _, first, *others = printed()
    assert (first[0], first[3]) == ("float32", "1.00")
    assert [row[0] for row in others] == ["bfloat16 (the recipe)"]
