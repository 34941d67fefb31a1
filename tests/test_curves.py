"""``benchmarks/curves.py``: one picture of each kind of network, over CPU minutes where a log has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

OLD = "update,minutes,loss,val_mse\n50,1.5,0.04,\n93,4.0,0.03,141.9\n"
NEW = "update,minutes,cpu_minutes,loss,val_mse\n50,9.5,1.2,0.04,\n93,20.0,3.1,0.03,120.5\n"


def test_each_kind_with_logs_has_a_picture(
    benchmark: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MPLBACKEND", "agg")
    script = benchmark("curves")
    monkeypatch.setattr(script, "LOGS", tmp_path)
    monkeypatch.setattr(script, "DOCS", tmp_path)
    (tmp_path / "stau-mini.csv").write_text(NEW)
    script.main()
    assert [path.name for path in tmp_path.glob("*.png")] == ["moving-mnist-mini.png"]
    (tmp_path / "stau-mnist.csv").write_text(OLD)
    script.main()
    assert {path.name for path in tmp_path.glob("*.png")} == set(script.PICTURES.values())
    assert script.minutes({"minutes": "9.5", "cpu_minutes": "1.2"}) == 1.2
    assert script.minutes({"minutes": "1.5"}) == 1.5
