"""Fixtures of the tests of training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from framecast.training.recipes import choose
from framecast.training.settings import Settings

from ..clips import write_clips, write_digits  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .small_runs import CASES, Make  # noqa: TID252 (likewise)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    data = {
        "clips": write_clips(tmp_path / "clips", (80, 60), a=20, b=30),
        "digits": write_digits(tmp_path / "digits"),
    }

    def settings(case: str, out: str, **changes: Any) -> Settings:
        config, options, recipe, kind = CASES[case]
        name, chosen = choose(config, None, **{"updates": 6, **recipe})
        plain = Settings(config, data[kind], tmp_path / out, options, name, chosen, tmp_path / "cache", device="cpu")
        return dataclasses.replace(plain, **changes)

    return settings
