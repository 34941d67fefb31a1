"""Bytes that PyAV alone leaks with each container whose ``demux`` is not read to its end.

    python benchmarks/pyav_leak.py [CLIP]

Letting its generator go is not enough: it must be closed, as ``camera/decoder.py`` does. This
uses nothing of framecast.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import cast

import av
from _heap import in_use
from av import Packet
from av.video.stream import VideoStream

DEMO = Path(__file__).parents[1] / "src" / "framecast" / "assets" / "demo.mp4"
TIMES = 500


def connect(clip: str, *, closes: bool) -> None:
    """Open a clip, decode its first packets, and close it."""
    container = av.open(clip)
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    packets = cast("Generator[Packet[VideoStream], None, None]", container.demux(stream))
    for _ in range(3):
        next(packets).decode()
    if closes:
        packets.close()
    container.close()


def main() -> None:
    """Print both figures."""
    clip = sys.argv[1] if len(sys.argv) > 1 else str(DEMO)
    print(f"PyAV {av.__version__}")
    for closes in (True, False):
        for _ in range(TIMES):
            connect(clip, closes=closes)
        before = in_use()
        for _ in range(TIMES):
            connect(clip, closes=closes)
        said = "closed" if closes else "let go"
        print(f"generator {said}: {(in_use() - before) / TIMES:.0f} bytes with each container")


if __name__ == "__main__":
    main()
