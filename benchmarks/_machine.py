"""What a figure was measured on, printed above it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from framecast.runtime.report import versions


def header() -> str:
    """Command, date, commit, machine and versions, a line each."""
    import onnxruntime

    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    commit = _git("rev-parse", "--short=10", "HEAD") or "unknown"
    if _git("status", "--porcelain", "--", "..", ":(exclude)results"):  # the results are being written
        commit += "-dirty"
    parts = versions("onnxruntime", onnxruntime.__version__)
    return "\n".join(
        [
            f"command   python {' '.join([Path(sys.argv[0]).as_posix(), *sys.argv[1:]])}",
            f"date      {datetime.now(timezone.utc):%Y-%m-%d}",
            f"commit    {commit}",
            f"machine   {processor}, {os.cpu_count()} cores, {parts.pop('machine')}",
            f"versions  {', '.join(f'{name} {version}' for name, version in parts.items())}",
        ]
    )


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
