"""The header above a benchmark's figures: the machine that they were measured on."""

from __future__ import annotations

import sys
from pathlib import Path

from framecast.bench.machine import describe


def header() -> str:
    """Return command, date, commit, machine and versions, one per line."""
    import onnxruntime

    machine = describe({"onnxruntime": onnxruntime.__version__})
    return "\n".join(
        [
            f"command   python {' '.join([Path(sys.argv[0]).as_posix(), *sys.argv[1:]])}",
            f"date      {machine['date']}",
            f"commit    {machine['commit'] or 'unknown'}",
            f"machine   {machine['processor']}, {machine['cores']} cores, {machine['system']}",
            f"versions  {', '.join(f'{name} {version}' for name, version in machine['versions'].items())}",
        ]
    )
