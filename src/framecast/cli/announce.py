"""Prints a run's messages, and the QR code of a link that a phone can open."""

from __future__ import annotations

import re
import select
import sys
from contextlib import suppress
from typing import TextIO
from urllib.parse import urlsplit

from rich.console import Console

PART = select.PIPE_BUF // 4  # characters: a pipe that takes anything takes so many, of up to four bytes each
READER = 0.1  # seconds that whoever reads a stream may take to make room for a line
HERE = ("localhost", "127.", "::1")  # other machines cannot reach hosts that begin like this


def takes(stream: TextIO | None) -> bool:
    """Whether a stream takes a part of a text now: writing to a pipe that nobody empties would wait for ever."""
    try:
        asked = select.poll()
        asked.register(stream.fileno() if stream is not None else -1, select.POLLOUT)
        return bool(asked.poll(1e3 * READER))
    except (OSError, ValueError):  # no file at all
        return stream is not None


def put(stream: TextIO | None, text: str) -> str:
    """Write a text for as long as the stream takes it. Returns what is left of it."""
    while text and stream is not None and takes(stream):
        stream.write(text[:PART])
        stream.flush()
        text = text[PART:]
    return text


def say(line: str) -> None:
    """Print a line to stderr, unless nobody reads it any more."""
    with suppress(OSError, ValueError):  # a line that nobody reads is no reason to end a run
        put(sys.stderr, line + "\n")


def announce(line: str) -> None:
    """Print a line as :func:`say` does. On a terminal, add the QR code of its link if other machines can open it."""
    say(line)
    link = re.search(r"https?://\S+", line)
    if link and sys.stderr.isatty() and not (urlsplit(link[0]).hostname or "").startswith(HERE):
        rows = qr_code(link[0])
        if len(rows[0]) <= Console(stderr=True).width:
            # Black on white, whatever the terminal's colours are.
            print("\n".join(f"\033[30;107m{row}\033[0m" for row in rows), file=sys.stderr, flush=True)


def qr_code(text: str) -> list[str]:
    """A QR code as lines of text. A character holds two modules; a dark module is drawn, a light one left blank."""
    import segno

    rows = [list(row) for row in segno.make_qr(text, error="l").matrix_iter(border=2)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    blocks = " ▀▄█"  # a dark module above counts 1, one below 2
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return ["".join(blocks[above + 2 * below] for above, below in zip(*pair, strict=True)) for pair in pairs]
