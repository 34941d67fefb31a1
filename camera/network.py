"""Network cameras and streams: RTSP, HTTP, RTMP and UDP, and standard input, through PyAV."""

from __future__ import annotations

import socket
import time as wall
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from framecast.camera.decoder import Decoder
from framecast.camera.live import OLDEST, LiveSource
from framecast.camera.media import CONTAINERS, MediaError, open_media
from framecast.camera.pictures import Pictures
from framecast.camera.source import Image, Source, note
from framecast.camera.video import Video
from framecast.clock import SYSTEM, Clock
from framecast.errors import SourceError, SourceRefusedError, SourceUnavailableError
from framecast.redact import redact

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

CURE = "check the camera and the network"
"""What to do when a stream was lost."""

FORMATS = f"{CONTAINERS},hls,rtsp,live_flv,rtp"
# A playlist may name other addresses, but no files here.
_OVER_HTTP = "http,https,httpproxy,tcp,tls,crypto"
_PROTOCOLS = {
    "http": _OVER_HTTP,
    "https": _OVER_HTTP,
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tcp,tls",
    "rtsp": "rtsp,rtp,tcp,udp",
    "rtsps": "rtsp,rtp,tcp,tls,udp",
    "srt": "srt,udp",
    "udp": "udp",
}
_PORTS = {"http": 80, "https": 443, "rtmp": 1935, "rtmps": 443, "rtsp": 554, "rtsps": 322}
SCHEMES = (*_PROTOCOLS,)
"""Schemes of addresses that :func:`open_address` opens."""

QUICK = {"analyzeduration": "100000"}
"""FFmpeg's option (in µs) by which the first frame of a stream arrives after 0.2 s instead of 1.2 s."""

# TCP: at 1 % packet loss over UDP, a fifth of the frames are visibly corrupt, and no read reports it. A
# camera that has no TCP gets UDP.
_RTSP = {"rtsp_flags": "prefer_tcp", **QUICK}
_OPTIONS = {"rtsp": _RTSP, "rtsps": _RTSP, "rtmp": QUICK, "rtmps": QUICK, "udp": {"overrun_nonfatal": "1"}}
_BY_MARKERS = (
    "the camera tells wrong lengths of its JPEGs (Content-Length): they are read by their markers, a frame later"
)
_RELAY = "pipe it in: ffmpeg -i ADDRESS -c copy -f mpegts - | framecast run -"


class StreamCapture:
    """A stream as :class:`LiveSource` reads it: see :class:`framecast.camera.live.Capture`.

    Args:
        decoder: its frames.
        pictures: converts them.
        clock: the clock of the stamps.
        sender_clock: whether to believe the sender's clock, where the stream tells it.
        again: opens the stream in another way, if its container turns out to make no sense. Used once.

    The sender tells the wall clock's time, which can be set at any moment, here and there. So where it makes a frame
    impossibly old or new, the wall clock counts as it was before it was set, if that gives a possible time.
    """

    def __init__(
        self,
        decoder: Decoder,
        pictures: Pictures,
        clock: Clock,
        *,
        sender_clock: bool,
        again: Callable[[], Decoder] | None = None,
    ) -> None:
        self._decoder = decoder
        self._again = again
        self._pictures = pictures
        self._clock = clock
        self._sender_clock = sender_clock
        self._frame: VideoFrame | None = None
        self._reason = "it ended or broke off"
        self._end = False
        self._ahead: float | None = None  # seconds by which the wall clock was ahead of ours when it last made sense

    def grab(self) -> bool:
        """See :meth:`Capture.grab`."""
        try:
            self._frame = self._decoder.read()
            if self._frame is None and self._decoder.cut_off and self._again is not None:
                self._decoder.close()
                again, self._again = self._again, None
                self._decoder = again()
                self._frame = self._decoder.read()
        except MediaError as error:
            self._frame, self._reason = None, str(error)
        else:
            self._end = self._frame is None
        return self._frame is not None

    def ended(self) -> bool:
        """Whether the newest grab found the stream's end, and no failure."""
        return self._end

    def stamp(self) -> float | None:
        """See :meth:`Capture.stamp`."""
        if self._frame is None or not self._sender_clock:
            return None
        captured, now = self._decoder.captured(self._frame), self._clock.now()
        if captured is None:
            return None
        ahead = wall.time() - now
        for possible in (ahead, self._ahead):
            if possible is not None and now - OLDEST < captured - possible <= now:
                self._ahead = possible
                return captured - possible
        return captured - ahead

    def retrieve(self) -> Image | None:
        """See :meth:`Capture.retrieve`."""
        try:
            return None if self._frame is None else self._pictures.picture(self._frame, self._decoder.pixel_aspect)
        except MediaError as error:
            self._reason = str(error)
            return None

    def reason(self) -> str:
        """See :meth:`Capture.reason`."""
        return self._reason

    def release(self) -> None:
        """See :meth:`Capture.release`."""
        self._decoder.close()


def live(
    name: str,
    container: InputContainer,
    *,
    patience: float,
    cure: str,
    clock: Clock,
    sender_clock: bool = False,
    ends: bool = False,
    again: Callable[[], InputContainer] | None = None,
) -> LiveSource:
    """A live source of an opened stream.

    Args:
        name: its name in messages.
        container: the stream.
        patience: seconds that a read may take.
        cure: what to do when the stream was lost.
        clock: stamps the frames.
        sender_clock: see :class:`StreamCapture`.
        ends: whether the stream may end; otherwise its end is a loss.
        again: opens a camera that sends JPEGs by their markers, for when the lengths that it tells are wrong.
    """
    faults: Counter[str] = Counter()
    notes: list[str] = []
    # One thread: each further one holds back a frame, which is hidden latency.
    decoding = partial(Decoder, threads=1, faults=faults, stall=patience)

    def by_markers(opens: Callable[[], InputContainer]) -> Decoder:
        note(notes, _BY_MARKERS)
        return decoding(opens())

    decoder = decoding(container)
    other = None if again is None else partial(by_markers, again)
    capture = StreamCapture(decoder, Pictures(notes), clock, sender_clock=sender_clock, again=other)
    return LiveSource(
        name,
        capture,
        decoder.fps,
        patience=patience,
        cure=cure,
        ended=capture.ended if ends else lambda: False,
        clock=clock,
        faults=faults,
        notes=notes,
    )


def answers(uri: str, patience: float) -> bool:
    """Whether somebody accepts or refuses a connection at an address, or none is needed (UDP).

    A connection that was asked for while a cable was out is asked for again only after seconds. A new question is
    answered at once.

    Args:
        uri: as for :func:`open_address`; one that cannot be read counts as answered, for its error.
        patience: seconds to wait.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return True
    if parts.hostname is None or port is None:
        return True
    try:
        socket.create_connection((parts.hostname, port), patience).close()
    except TimeoutError:
        return False
    except (OSError, UnicodeError):
        return True
    return True


def check_address(uri: str) -> None:
    """Check the syntax of an address, as for :func:`open_address`.

    Raises:
        SourceError: it is not an address with a host.
    """
    name = redact(uri)
    if not uri.isprintable():
        raise SourceError(f"not a URL: {name} (percent-encode its special characters)")
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018 (it raises)
    except ValueError:
        raise SourceError(f"not a URL: {name} (its port must be a number up to 65535)") from None
    if not parts.netloc:
        raise SourceError(f"not a URL: {name} (it has no host; write it like {parts.scheme}://host/path)")


def open_address(
    uri: str,
    *,
    timeout: float,
    stall: float,
    loop: bool,
    fps: float | None,
    sender_clock: bool,
    clock: Clock = SYSTEM,
) -> Source:
    """Open a stream, or a video on a web server.

    What has a known duration, and HLS, which sends seconds at once, is a clip: it waits for its reader. All else is
    live.

    Args:
        uri: such as ``rtsp://user:password@host:port/path`` or ``http://host/stream.mjpg``; see :data:`SCHEMES`.
        timeout: seconds that opening may take. It does not cover a name server that does not answer, because nothing
            can interrupt the system's resolver.
        stall: seconds that each read may take.
        loop: restart a clip at its end.
        fps: play a clip at so many frames a second, whatever its time stamps say.
        sender_clock: see :class:`StreamCapture`.
        clock: stamps the frames of a live stream with their grab time.

    Raises:
        SourceError: the host does not answer, refuses, or sends no video.
    """
    name = redact(uri)
    check_address(uri)
    scheme = uri.partition(":")[0]
    options = {
        "format_whitelist": FORMATS,
        "protocol_whitelist": _PROTOCOLS[scheme],
        **_OPTIONS.get(scheme, {}),
    }

    def by_markers() -> InputContainer:
        return open_media(uri, options={**options, **QUICK}, timeout=(stall, stall), format="mjpeg")

    def opened() -> InputContainer:
        begun = clock.now()
        try:
            return open_media(uri, options=options, timeout=(timeout, stall))
        except MediaError as error:
            relay = f"; {_RELAY}" if scheme == "srt" else ""
            kind = SourceUnavailableError if error.passing else SourceRefusedError if error.refused else SourceError
            raise kind(f"no stream from {name} after {clock.now() - begun:.1f} s ({error}{relay})") from None

    container = opened()
    # A file has a length, or at least a size; MJPEG has neither.
    ends = container.duration is not None or container.size > 0 or "hls" in container.format.name
    if scheme in ("http", "https") and ends:
        first = [container]
        return Video(name, lambda: first.pop() if first else opened(), loop=loop, fps=fps)
    again = by_markers if container.format.name == "mpjpeg" else None
    return live(name, container, patience=stall, cure=CURE, clock=clock, sender_clock=sender_clock, again=again)
