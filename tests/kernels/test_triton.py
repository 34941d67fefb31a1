"""Our Triton kernels, interpreted on the CPU and compared with float64. Their speed is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is for Linux: pip install 'framecast[triton]'")

ROOT = Path(__file__).parents[2]
Results = dict[str, tuple[float, float]]  # by case: the error and the tolerance


@pytest.fixture(scope="module")
def results() -> Results:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tests.kernels.interpreted"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["case"]: (line["error"], line["tolerance"]) for line in lines}


@pytest.mark.parametrize(("kernel", "cases"), [("stgru", 22), ("eifag", 20), ("stau", 15), ("refused", 6)])
def test_kernels_equal_float64(results: Results, kernel: str, cases: int) -> None:
    ours = {case: result for case, result in results.items() if case.startswith(kernel)}
    assert len(ours) >= cases
    assert {case: result for case, result in ours.items() if not result[0] <= result[1]} == {}
