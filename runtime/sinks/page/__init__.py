"""The browser page: its files, their HTTP headers, and its updates.

An update is one binary WebSocket message: the length of a JSON header (4 bytes, big-endian), the header, then three
JPEGs: input, prediction and error. The header gives their lengths as ``sizes``; a missing picture has 0 bytes. The
server closes with code 1000 when the run has ended. With any other code, the viewer should reconnect.
"""

from __future__ import annotations

import html
import struct
from collections.abc import Mapping
from pathlib import Path

import cv2

from framecast.runtime.report import to_json
from framecast.runtime.sinks.picture import error_image
from framecast.runtime.sinks.sink import Result

JPEG_QUALITY = 85

TYPES = {
    "index.html": "text/html",
    "app.js": "text/javascript",
    "plot.js": "text/javascript",
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
    for mark, text in (("{{query}}", query), ("{{title}}", title)):
        texts["index.html"] = texts["index.html"].replace(mark, html.escape(text))
    return texts


def update(result: Result | None, stats: Mapping[str, object] | None) -> bytes:
    """Encode one update. It has no pictures before the first result, and no statistics if ``stats`` is None."""
    header: dict[str, object] = {} if stats is None else {"stats": stats}
    pictures = [b"", b"", b""]
    if result is not None:
        header |= {"index": result.frame.index, "time": result.frame.time, "ahead_ms": 1e3 * result.prediction.ahead}
        header |= {"psnr": result.psnr, "psnr_copy": result.psnr_copy}
        pictures[:2] = [_jpeg(result.input), _jpeg(result.prediction.image)]
        if result.due is not None:
            pictures[2] = _jpeg(error_image(result.input, result.due))
    text = to_json(header | {"sizes": [len(picture) for picture in pictures]}).encode()
    return b"".join([struct.pack(">I", len(text)), text, *pictures])


def _jpeg(image: cv2.typing.MatLike) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
