"""``benchmarks/faults.py``, the catalogue of faults with real parts: every case runs, and holds what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "faults.py"
CASES = re.findall(r'^    "(\w+)": \(', SCRIPT.read_text(), re.MULTILINE)


def faults(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_case_that_does_not_exist_is_refused() -> None:
    done = faults("--quick", "earthquake")
    assert done.returncode == 2
    assert "no case earthquake" in done.stderr
    assert len(CASES) > 10
    assert all(case in done.stderr for case in CASES)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_case(case: str) -> None:
    done = faults("--quick", case)
    assert done.returncode == 0, done.stdout + done.stderr
    if reason := re.search(r"not run: (.*)", done.stdout):
        pytest.skip(reason[1])
