"""What the benchmarks share: the header above their figures, and errors of one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from framecast.bench.machine import describe
from framecast.errors import FramecastError


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


def script(main: Callable[[], None]) -> None:
    """Run a benchmark. An error of framecast ends it with one line, as on framecast's own command line."""
    try:
        main()
    except FramecastError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
