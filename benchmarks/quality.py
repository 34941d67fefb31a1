"""Quality of the shipped models, as ``framecast eval`` prints it: ``python benchmarks/quality.py [CLIPS …]``.

Each model is compared with copying at its own size: edge predicts at the clip's size, stip-edge at 256x192. By default,
the clips are the evaluation clips, if ``../shared`` has them, and the demo clip.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from _machine import header, script

CLIPS = Path(__file__).parents[1] / ".." / "shared" / "clips" / "val"


def main() -> None:
    """Print the tables."""
    given = sys.argv[1:] or [*([str(CLIPS)] if CLIPS.is_dir() else []), "demo"]
    print(header(), flush=True)
    for clips in given:
        for model in ("edge", "stip-edge"):
            print(f"\n{model} on {Path(clips).name}", flush=True)
            subprocess.run([sys.executable, "-m", "framecast", "eval", model, clips], check=True)


if __name__ == "__main__":
    script(main)
