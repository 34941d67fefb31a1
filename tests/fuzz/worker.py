"""A process that tries inputs one after another, and tells its parent (campaign.py) before and after each.

What an input does to this process hurts nothing else: it may crash, hang, or take all memory.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from framecast.errors import FramecastError

from .kind import Kind

KINDS = {
    "video": "media:Videos",
    "image": "media:Pictures",
    "onnx": "graphs:Bytes",
    "graph": "graphs:Structure",
    "manifest": "graphs:Manifests",
    "weights": "weights:Weights",
    "checkpoint": "weights:Checkpoints",
    "run": "weights:Runs",
    "engine": "files:Engines",
    "data": "files:Data",
    "secret": "files:Secrets",
    "http": "page:Requests",
    "websocket": "page:Frames",
    "source": "words:Sources",
    "configuration": "words:Configurations",
    "command": "words:Commands",
}
"""Every kind: its module here, and its class."""

FINE = ("survived", "refused")


def load(name: str) -> type[Kind]:
    """The class of a kind, or of any MODULE:CLASS here."""
    module, _, found = KINDS.get(name, name).partition(":")
    kind: type[Kind] = getattr(importlib.import_module(f"{__package__}.{module}"), found)
    return kind


def make(kind: Kind, name: str, seed: int, folder: Path) -> None:
    """Write the input of a seed into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kind.make(random.Random(f"{name} {seed}"), folder)


def judge(attempt: Callable[[], None], longest: int) -> tuple[str, str]:
    """Let framecast read one input. Returns the verdict, and the message or the traceback.

    Args:
        attempt: lets it.
        longest: characters that a message may have.
    """
    try:
        attempt()
    except FramecastError as error:
        message = str(error)
        if message and message.isprintable() and len(message) <= longest:
            return "refused", message
        return "traceback", f"{type(error).__name__} is not one short line: {message[: 2 * longest]!a}"
    except BaseException:  # noqa: BLE001 (SystemExit and KeyboardInterrupt are faults as well)
        return "traceback", traceback.format_exc()
    return "survived", ""


def main() -> None:
    """Try the inputs that the command line names: KIND FIRST COUNT REPLY, or KIND FOLDER REPLY."""
    name, reply = sys.argv[1], os.fdopen(int(sys.argv[-1]), "w", buffering=1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    # A library's own folder, because what one command keeps there would change the next.
    with tempfile.TemporaryDirectory(prefix="framecast-fuzz-") as place:
        os.environ.update(HOME=place, XDG_CACHE_HOME=place, FRAMECAST_CACHE=f"{place}/cache")
        whole, folder = Path(place) / "whole", Path(place) / "input"
        whole.mkdir()
        kind = load(name)(whole)
        base = _resident()
        if len(sys.argv) == 4:
            saved = Path(sys.argv[2])
            _try(reply, 0, base, kind, saved)
            return
        first, count = int(sys.argv[2]), int(sys.argv[3])
        for seed in range(first, first + count):
            make(kind, name, seed, folder)
            _try(reply, seed, base, kind, folder)


def _try(reply: TextIO, seed: int, base: int, kind: Kind, folder: Path) -> None:
    with contextlib.suppress(OSError):  # the high-water mark begins anew
        Path("/proc/self/clear_refs").write_text("5")
    said = _said()
    print(json.dumps({"begun": seed, "base": base}), file=reply)
    begun = time.process_time()
    verdict, text = judge(lambda: kind.attempt(folder), kind.longest)
    seconds = time.process_time() - begun
    sys.stdout.flush()
    sys.stderr.flush()
    if _said() > said and verdict in FINE:
        verdict, text = "printed", "it printed something: see the output"
    done = {
        "done": seed,
        "verdict": verdict,
        "text": text,
        "seconds": seconds,
        "peak": max(0, _resident("VmHWM") - base),
    }
    print(json.dumps(done), file=reply)


def _said() -> int:
    """How many bytes the output so far has: the parent lets it go to a file."""
    return os.fstat(2).st_size


def _resident(which: str = "VmRSS") -> int:
    """Bytes of memory in use, or the most since the mark was reset (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{which}:")))


if __name__ == "__main__":
    main()
