"""A camera that sends JPEGs over HTTP (multipart/x-mixed-replace)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer


def send(answer: BaseHTTPRequestHandler, jpegs: Iterable[bytes], *, wrong: int = 0) -> None:
    """Answer with one part for each JPEG, then end.

    Args:
        answer: to the request.
        jpegs: whole files.
        wrong: bytes by which each Content-Length is too large.
    """
    answer.send_response(200)
    answer.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
    answer.end_headers()
    for jpeg in jpegs:
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg) + wrong}\r\n\r\n"
        answer.wfile.write(head.encode() + jpeg + b"\r\n")


class QuietHandler(SimpleHTTPRequestHandler):
    """Answers without a line on stderr for each."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def camera(jpegs: Sequence[bytes], *, wrong: int = 0) -> Iterator[str]:
    """The address of a camera that sends these JPEGs to everybody who asks, and ends: see :func:`send`."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):
                send(self, jpegs, wrong=wrong)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/cam"
        finally:
            server.shutdown()
