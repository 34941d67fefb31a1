"""The one script for a machine with a GPU: without one it says so, and claims nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the script would check it, for minutes")
def test_without_a_gpu_nothing_is_claimed(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "torch finds no CUDA device: nothing was checked and nothing is claimed (--dry-run tries the code)"
    ]
    assert not list(tmp_path.iterdir())
