"""The systemd unit on a fresh Debian with systemd, in a virtual machine: ``make guest`` prints the same figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "guest.py"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_service_comes_back_from_everything() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
