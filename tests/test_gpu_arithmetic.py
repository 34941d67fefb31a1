"""Kernel launches and multiplications of a step, counted without a GPU: the figures behind ``docs/gpu.md``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")
from framecast.models.configs import CONFIGS


@pytest.fixture
def arithmetic(benchmark: Callable[[str], Any]) -> Any:
    return benchmark("gpu_arithmetic")


def gmacs(count: Any) -> float:
    return float(sum(n for _, n, _ in count.products)) / 1e9


def test_each_form_launches_less_than_the_previous_one(arithmetic: Any) -> None:
    names = ("fp32, as trained", "fp32", "fp16")
    trained, deployed, half = (arithmetic.counted("stip-ucf", arithmetic.FORMS[name]) for name in names)
    assert trained.launches[False] > deployed.launches[False] + deployed.launches[True]
    assert deployed.launches[True] == 15  # one convolution for each layer but the first, on a parallel branch
    assert half.launches[False] < deployed.launches[False] + 16  # no conversions between layers
    assert gmacs(deployed) == pytest.approx(CONFIGS["stip-ucf"].gmacs, abs=0.01)
    assert gmacs(trained) > gmacs(deployed)


@pytest.mark.slow
def test_the_window_has_the_gmacs_in_the_table_of_configurations(arithmetic: Any) -> None:
    wanted = CONFIGS["stip-ucf"].window_gmacs
    assert wanted is not None
    assert gmacs(arithmetic.window("stip-ucf")) == pytest.approx(wanted, abs=0.01)
