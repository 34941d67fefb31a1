"""What strangers send to the page's server: requests, and frames of its WebSocket."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from urllib.parse import urlsplit

from framecast.errors import FramecastError
from framecast.runtime.sinks.web import WebSink

from .kind import Kind, only
from .mutate import damaged, words

TOKEN = "a-token-of-the-owner"
PATIENCE = 0.03  # seconds to wait for more of an answer: the server may rightly wait for the rest of a request
GET = "GET {path}?token={token} HTTP/1.1\r\nHost: {host}\r\n"
UPGRADE = (
    "Origin: http://{host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
PATHS = ("/", "/stats.json", "/metrics", "/stream", "/live", "/ready", "/app.js")
HEADERS = (
    *("Content-Length: 5", "Content-Length: -1", "Content-Length: 99999999999999999999", "Transfer-Encoding: chunked"),
    *("Accept: application/openmetrics-text; version=1.0.0", "Accept-Encoding: gzip, br", "Expect: 100-continue"),
    *("Range: bytes=0-99999999999", "Connection: keep-alive", "Cookie: a=b", "Authorization: Bearer {token}"),
    *("If-Modified-Since: Thu, 99 Foo 99999 99:99:99 GMT", "Host: {host}", "Upgrade: h2c", "X: " + "y" * 9000),
    *("Content-Type: multipart/form-data; boundary=", "Sec-WebSocket-Extensions: permessage-deflate", "X:" * 4000),
)


class _Page(Kind):
    """A server that strangers speak to. After each it must still answer its owner."""

    def __init__(self, folder: Path) -> None:
        self.sink = WebSink("127.0.0.1:0", snapshot=lambda: {"frames": 1, "fps": 29.5}, token=TOKEN)
        self.host = urlsplit(self.sink.url).netloc
        self.port = int(self.host.rpartition(":")[2])

    def put(self, folder: Path, data: bytes) -> None:
        """Write what is sent. The port differs in every run, so a mark stands for it."""
        (folder / "sent").write_bytes(data)

    def attempt(self, folder: Path) -> None:
        answer = self.say(only(folder).read_bytes().replace(b"{host}", self.host.encode()))
        assert b"Traceback" not in answer
        failed = answer.startswith((b"HTTP/1.1 5", b"HTTP/1.0 5"))
        assert not failed or answer[9:12] == b"503", answer[:200]  # 503: not ready, or too many viewers
        own = f"{GET}Connection: close\r\n\r\n".format(path="/stats.json", token=TOKEN, host=self.host)
        assert self.say(own.encode(), 60.0).startswith(b"HTTP/1.1 200")
        if not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 1", b"HTTP/1.0 2")):
            raise FramecastError("it was refused")

    def say(self, data: bytes, patience: float = PATIENCE) -> bytes:
        """Send bytes, and return the answer until the server closes the connection or says no more."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), 60) as client:
            try:
                client.sendall(data)
                client.settimeout(patience)
                while part := client.recv(65536):
                    answer += part
            except (ConnectionError, TimeoutError):
                pass
        return answer


class Requests(_Page):
    """HTTP requests."""

    inputs = 1000

    def make(self, chance: random.Random, folder: Path) -> None:
        token = chance.choice((TOKEN, TOKEN, "wrong", ""))
        text = GET.replace("{path}", chance.choice(PATHS)) + UPGRADE * chance.randrange(2)
        text += "".join(f"{header}\r\n" for header in chance.sample(HEADERS, chance.choice((0, 0, 1, 3))))
        text = f"{text}\r\n".replace("{token}", token) + chance.choice(("", "", "fff\r\nabc", "hello", "0\r\n\r\n"))
        match chance.randrange(4):
            case 0:
                data = damaged(text.encode(), chance)
            case 1:
                data = words(text, chance).encode("utf-8", "surrogatepass")
            case 2:
                rows = text.split("\r\n")
                chance.shuffle(rows)
                data = chance.choice(("\r\n", "\n", "\r", "\0")).join(rows).encode()
            case _:
                data = text.encode() * chance.choice((1, 2, 20))
        self.put(folder, data)


class Frames(_Page):
    """Frames of the WebSocket, after a whole handshake."""

    inputs = 400

    def make(self, chance: random.Random, folder: Path) -> None:
        text = (GET + UPGRADE).replace("{path}", "/stream").replace("{token}", TOKEN) + "\r\n"
        data = b""
        for _ in range(chance.choice((1, 1, 3, 20))):
            payload = chance.randbytes(chance.choice((0, 1, 2, 125, 126, 3000)))
            size = chance.choice((len(payload), len(payload), 0, 125, 126, 127, 2**16, 2**31, 2**63 - 1, 2**64 - 1))
            head = bytes([chance.choice((0x80, 0, 0xF0, 0x40)) | chance.randrange(16)])
            masked = chance.choice((0x80, 0x80, 0))
            if size < 126:
                head += bytes([masked | size])
            elif size < 2**16:
                head += bytes([masked | 126]) + size.to_bytes(2, "big")
            else:
                head += bytes([masked | 127]) + size.to_bytes(8, "big")
            data += head + chance.randbytes(4 if masked else 0) + payload
        self.put(folder, text.encode() + (damaged(data, chance) if chance.randrange(2) else data))
