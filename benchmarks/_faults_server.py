"""The real camera of ``faults.py``, and a relay that breaks its connections."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import threading
import time

from _faults_parts import ROOT, FaultError, free_port

SERVER = ROOT / "tests" / "rtsp_server.py"


class Camera:
    """A real RTSP server (GStreamer) at one port.

    Args:
        size: of its pictures.
        transport: ``udp`` to send nothing over TCP.
        started: start it now.
    """

    def __init__(self, size: str = "320x240", transport: str = "", *, started: bool = True) -> None:
        self.port = free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/cam"
        self._transport = transport
        self._process: subprocess.Popen[str] | None = None
        if started:
            self.start(size)

    def start(self, size: str = "320x240") -> float:
        """Start it. Returns the moment from which it listens."""
        call = ["/usr/bin/python3", str(SERVER), size, "", self.port, self._transport]
        self._process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline().strip() if self._process.stdout else ""
        if line != self.port:
            raise FaultError(f"the RTSP server does not start: {line} (make system-deps)")
        return time.monotonic()

    def kill(self) -> float:
        """End it at once. Returns the moment."""
        moment, process, self._process = time.monotonic(), self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        return moment

    def send(self, number: int) -> float:
        """Send it a signal. Returns the moment."""
        if self._process is None:
            raise FaultError("the camera is off")
        self._process.send_signal(number)
        return time.monotonic()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Relay:
    """A TCP relay in front of a camera, which can reset all connections (RST)."""

    def __init__(self, port: str) -> None:
        self._to = int(port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._server.getsockname()[1]}/cam"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # until it is closed
            while True:
                ours = self._server.accept()[0]
                theirs = socket.create_connection(("127.0.0.1", self._to))
                self._open += [ours, theirs]
                for one, other in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)

    def reset(self) -> float:
        """Close every connection with a reset. Returns the moment."""
        linger = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: RST instead of FIN
        ended, self._open = self._open, []
        moment = time.monotonic()
        for connection in ended:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)  # its thread lets go of it; only then does close reset
            connection.close()
        return moment

    def close(self) -> None:
        """Stop accepting."""
        self._server.close()
        self.reset()
