"""Gives the prediction as a camera, without marks: to a network address, a virtual webcam, or standard output."""

from __future__ import annotations

import functools
import os
import socket
import stat
import sys
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

from framecast.camera import Image
from framecast.camera.media import failure
from framecast.errors import OptionError, SinkError, SinkUnavailableError
from framecast.files import write_all
from framecast.redact import redact
from framecast.runtime.sinks.encoder import H264, RAW, Codec, Encoder, NoEncoderError, Times, Yuv, load_av
from framecast.runtime.sinks.picture import letterboxed
from framecast.runtime.sinks.sink import STDOUT, Output, Result, Sink

# Seconds that a receiver may take to answer, or to take a picture; FFmpeg waits for ever.
PATIENCE = 2.0
SLOW = 1.0  # seconds after which it is asked, before anything is sent to it, whether it says anything at all
PIPE = "-"  # standard output
KEY = 1.0  # seconds between key frames: a receiver that joins later sees a picture after that time
_KNOWN = "rtsp://host:port/path, udp://host:port, v4l2:///dev/video10, or - for standard output"
_FLUSH = {"flush_packets": "1"}
# FFmpeg's format for each scheme, and its options.
_FORMATS: dict[str, tuple[str, tuple[Codec, ...], dict[str, str]]] = {
    # A process of its own talks to the server (apart.py). FFmpeg's RTMP has no timeout, so it is not here.
    "rtsp": ("rtsp", H264, {"rtsp_transport": "tcp", "timeout": str(round(PATIENCE * 1e6)), **_FLUSH}),
    "udp": ("mpegts", H264, {"pkt_size": "1316", **_FLUSH}),
    "v4l2": ("v4l2", RAW, {}),
}


def check_out(target: str) -> None:
    """Check an address before anything is opened.

    Raises:
        OptionError: it is none that pictures can be sent to.
        SinkError: the device is not there, or standard output is a terminal.
    """
    if target == PIPE:
        if sys.stdout is None:  # closed before the program began
            raise SinkError("cannot write frames: standard output is closed (pipe them on: … --out - | ffplay -)")
        if sys.stdout.isatty():
            raise SinkError("cannot write frames to a terminal: pipe them on, as in: … --out - | ffplay -")
        return
    scheme, device = _scheme(target), _device(target)
    if scheme not in _FORMATS:
        raise OptionError(f"cannot send pictures to {redact(target)}: use {_KNOWN}")
    if scheme == "v4l2":
        _check_device(device)
        return
    try:
        parts = urlsplit(target)
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is none
        host, port = None, None
    if not host or (scheme == "udp" and port is None):
        raise OptionError(f"cannot send pictures to {redact(target)}: the address is not complete; use {_KNOWN}")


def is_live(target: str) -> bool:
    """Whether its receiver watches it live, so that a file must be played at its own pace."""
    return target != PIPE


def may_hang(target: str) -> bool:
    """Whether FFmpeg may wait for an address's receiver, as PyAV holds Python's lock meanwhile."""
    return _scheme(target) == "rtsp"


def answers(target: str) -> bool:
    """Whether what serves at an address says anything within a second, or it needs not.

    Each try of a mute RTSP server takes seconds and a process. This takes less.

    Args:
        target: as :func:`check_out` accepts it.
    """
    parts = urlsplit(target)
    if parts.scheme != "rtsp" or parts.hostname is None:
        return True
    host, port = parts.hostname, parts.port or 554
    try:
        with socket.create_connection((host, port), SLOW) as connection:
            connection.sendall(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
            connection.recv(1)
    except TimeoutError:
        return False
    except (OSError, UnicodeError):
        return True  # FFmpeg will tell why
    return True


@functools.cache
def standard_output() -> int:
    """Take standard output for frames, for the rest of the process; its other text goes to standard error.

    Returns:
        The descriptor to write frames to.
    """
    sys.stdout.flush()
    taken = os.dup(1)
    os.dup2(2, 1)
    return taken


class OutSink(Sink):
    """The prediction as a camera, at its own size; odd sides are padded by a pixel.

    Args:
        target: ``rtsp://host:port/path`` (pushed to an RTSP server over TCP), ``udp://host:port``
            (MPEG-TS), ``v4l2:///dev/videoN`` (v4l2loopback), or ``-`` (Y4M on standard output).
        fps: nominal frames a second.

    Raises:
        OptionError: the address is none of these.
        SinkError: the device is not there, or standard output is a terminal.
    """

    def __init__(self, target: str, fps: float) -> None:
        check_out(target)
        self._target, self._fps = target, fps
        self._name = STDOUT if target == PIPE else redact(target)
        self._pipe = standard_output() if target == PIPE else None
        self._times = Times(fps)
        self._shape: tuple[int, ...] = ()  # of the first picture
        self._yuv = Yuv(matrix="ITU601")  # Y4M names no matrix; FFmpeg's tools take BT.601 at every size
        self._encoder: Encoder | None = None
        self._codec = "Y4M" if self._pipe is not None else None

    def written(self) -> Output:
        """See :meth:`Sink.written`."""
        files, name = int(bool(self._shape)), self._name
        return Output(asked=name, to=name, codec=self._codec, files=files, removed=0, lost=0, missed=0, trouble=None)

    def show(self, result: Result) -> None:
        """See :meth:`Sink.show`."""
        self.send(result.prediction.image, result.frame.time, concealed=result.concealed)

    def send(self, picture: Image, time: float, *, concealed: bool) -> None:
        """Send a picture, uint8 [H, W, 3] BGR, of a frame's ``time`` in seconds.

        Raises:
            SinkError: it cannot be sent.
        """
        at = self._times.at(time, concealed=concealed)
        if self._pipe is not None and self._times.taken:
            return  # Y4M has no times: a picture more would delay all that follow
        first = not self._shape
        try:
            if self._pipe is not None:
                if first:
                    write_all(self._pipe, _y4m_header(picture.shape, self._fps))
                self._shape = self._shape or picture.shape
                write_all(
                    self._pipe, b"FRAME\n" + self._yuv.frame(letterboxed(picture, self._shape)).to_ndarray().tobytes()
                )
                return
            if self._encoder is None:
                self._encoder = self._opened(picture)
                self._codec = self._encoder.codec.said
            self._encoder.write(picture, at)
            self._shape = picture.shape
        except (load_av().error.FFmpegError, OSError, ValueError) as error:
            raise self._failed(error, first=first) from None  # it has the address, with its password

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        try:
            encoder.finish()
        except (load_av().error.FFmpegError, OSError, ValueError) as error:
            raise self._failed(error, first=False) from None

    def _opened(self, picture: Image) -> Encoder:
        scheme = _scheme(self._target)
        container, codecs, options = _FORMATS[scheme]
        place = str(_device(self._target)) if scheme == "v4l2" else self._target
        try:
            return Encoder(place, container, codecs, picture.shape, fps=self._fps, key=KEY, options=options)
        except NoEncoderError as error:
            raise SinkError(f"cannot send pictures to {self._name}: {error} (pip install av)") from error

    def _failed(self, error: Exception, *, first: bool) -> SinkError:
        ended = isinstance(error, (BrokenPipeError, ConnectionResetError))
        why = failure(error, self._target)
        said = "what received the pictures has ended" if ended else str(why)
        if silent := isinstance(error, load_av().error.InvalidDataError):
            said = "no proper answer: check the address, and what serves there"
        if first and _scheme(self._target) == "v4l2":
            said += "; give a device of v4l2loopback, such as v4l2:///dev/video10"
        if first and not ended:
            kind = SinkUnavailableError if why.passing or silent else SinkError
            return kind(f"cannot send pictures to {self._name}: {said}")
        cure = "start it again" if self._pipe is None else "start it again, then framecast"
        return SinkError(f"lost {self._name}: {said} ({cure})")


def _scheme(target: str) -> str:
    return target.partition("://")[0].lower() if "://" in target else ""


def _device(target: str) -> Path:
    return Path(target.partition("://")[2])


def _check_device(device: Path) -> None:
    try:
        mode = device.stat().st_mode
    except OSError:
        raise SinkError(
            f"no device {device}: make a virtual webcam (sudo modprobe v4l2loopback video_nr=10), then use its number"
        ) from None
    if not stat.S_ISCHR(mode):
        raise SinkError(f"{device} is no device: give a virtual webcam, such as v4l2:///dev/video10")
    if not os.access(device, os.W_OK):
        raise SinkError(f"no permission for {device} (sudo usermod -aG video $USER, then log in again)")


def _y4m_header(shape: tuple[int, ...], fps: float) -> bytes:
    height, width = (side + side % 2 for side in shape[:2])
    rate = Fraction(fps).limit_denominator(1001)
    text = f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED\n"
    return text.encode()
