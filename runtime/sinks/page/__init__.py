"""The browser page: its files, their HTTP headers, and its updates.

An update is one binary WebSocket message: the length of a JSON header (4 bytes, big-endian), the header, then JPEGs.
The header's ``pictures`` names them in order, each with its length; a picture that does not exist is left out. A viewer
names the pictures that it wants in the stream's query (``?show=late,now``).

The header's ``age_s`` is the time since the newest frame was predicted; null before the first. While nothing new comes,
an update without pictures follows each second. So a viewer that hears nothing for longer has lost its connection. The
server closes with code 1000 when the run has ended. With any other code, the viewer should reconnect.
"""

from __future__ import annotations

import html
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from framecast.runtime.report import to_json
from framecast.runtime.sinks.page.pictures import PICTURES
from framecast.runtime.sinks.page.scores import Point

GRID = "grid.html"  # what a run of several cameras shows first
TYPES = {
    GRID: "text/html",
    "grid.css": "text/css",
    "grid.js": "text/javascript",
    "index.html": "text/html",
    "app.js": "text/javascript",
    "figures.js": "text/javascript",
    "plot.js": "text/javascript",
    "view.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address may contain the token
    "X-Content-Type-Options": "nosniff",
}


def files(title: str, query: str) -> dict[str, str]:
    """The text of every file of the page. Its links repeat ``query``, which may hold a token."""
    folder = Path(__file__).parent
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in TYPES}
    for name in ("index.html", GRID):
        for mark, text in (("{{query}}", query), ("{{title}}", title)):
            texts[name] = texts[name].replace(mark, html.escape(text))
    return texts


def wanted(show: str | None) -> frozenset[str] | None:
    """The pictures that a viewer names in ``?show=``; by default late and now. None if the query is malformed."""
    names = ["late", "now"] if show is None else show.split(",")
    return frozenset(names) if len(set(names)) == len(names) and set(names) <= set(PICTURES) else None


@dataclass(frozen=True, eq=False)
class Update:
    """What the viewers get at one moment.

    Attributes:
        moment: the header's data of the newest result; empty before the first.
        pictures: JPEGs by name: those that any viewer wants.
        stats: the figures of the run.
    """

    moment: Mapping[str, object]
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    stats: Mapping[str, object] = field(default_factory=dict)

    def message(self, show: Iterable[str], scores: list[Point], *, stats: bool) -> bytes:
        """Encode it for one viewer.

        Args:
            show: the pictures that the viewer wants.
            scores: those that it has not received yet.
            stats: whether it needs the figures.
        """
        pictures = {name: data for name, data in self.pictures.items() if name in show}
        header = {**self.moment, "pictures": {name: len(data) for name, data in pictures.items()}, "scores": scores}
        text = to_json(header | {"stats": self.stats} if stats else header).encode()
        return b"".join([struct.pack(">I", len(text)), text, *pictures.values()])
