"""PyAV (FFmpeg's libraries): loaded on first use, silent, and with bounded picture sizes."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from framecast.errors import SourceError
from framecast.redact import redact

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_PIXELS = 8192 * 8192
"""Limit of a decoded picture. A small file can ask for gigabytes of memory."""

SILENT = "no answer in time: check the address, and that it is on"
"""The reason when an address gives no answer."""

# Containers only. A playlist (ffconcat, DASH, SDP) with a clip's name could open other files and hosts.
CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif,apng,h264,hevc,m4v,mjpeg,av1,ivf,obu,nut,mxf,dv,rm,"
    "mpjpeg,jpeg_pipe,yuv4mpegpipe"
)


class MediaError(Exception):
    """FFmpeg could not open or read something. The text is the reason, without the address.

    Args:
        text: the reason.
        passing: whether it may work later.
        refused: whether the user or the password was refused.
    """

    def __init__(self, text: str, *, passing: bool = False, refused: bool = False) -> None:
        super().__init__(text)
        self.passing, self.refused = passing, refused


def load() -> ModuleType:
    """Import and return PyAV's module, ``av``. FFmpeg logs nothing: its lines show addresses with their passwords.

    Raises:
        SourceError: PyAV is not installed, or a system library that it needs is missing.
    """
    try:
        import av
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        raise SourceError(f"PyAV cannot be loaded: {reason} (pip install av)") from error
    return av


def failures() -> tuple[type[Exception], ...]:
    """What PyAV raises when FFmpeg fails, for an ``except``."""
    return load().error.FFmpegError, OSError, ValueError


def open_media(
    url: str | object,
    *,
    options: Mapping[str, str],
    timeout: tuple[float, float] | None = None,
    format: str | None = None,
) -> InputContainer:
    """Open a file, address, device or file object that has video.

    Args:
        url: an absolute path, an address, a device, or a readable file object.
        options: FFmpeg's options, for the container and the decoders.
        timeout: seconds that opening may take, and each later read (default: for ever).
        format: FFmpeg's name of the container (default: FFmpeg finds out).

    Raises:
        MediaError: it cannot be opened, has no video, or its pictures are larger than ``MAX_PIXELS``.
    """
    av = load()
    begun = time.monotonic()
    try:
        # Opening may decode a picture, so the decoder has the limit from the start.
        limited = {**options, "max_pixels": str(MAX_PIXELS)}
        container: InputContainer = av.open(
            url, format=format, options=limited, timeout=timeout, metadata_errors="replace"
        )
    except failures() as error:
        if timeout is not None and time.monotonic() - begun >= timeout[0]:  # FFmpeg calls it damaged
            raise MediaError(SILENT, passing=True) from None
        raise failure(error, url if isinstance(url, str) else "") from None
    try:
        stream = video_of(container)
        if stream.codec_context is None:
            raise MediaError("FFmpeg's libraries here cannot decode it")
        if (pixels := stream.codec_context.width * stream.codec_context.height) > MAX_PIXELS:
            raise MediaError(f"frames too large: {pixels} pixels each (scale it down to at most {MAX_PIXELS})")
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # its size may grow in mid-stream
        # Audio, subtitles and further video cost time and memory.
        for other in container.streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all
    except BaseException:
        container.close()
        raise
    return container


def video_of(container: InputContainer) -> VideoStream:
    """The first video of a container. The cover of a song or of a film is no video, though FFmpeg lists it as one.

    Raises:
        MediaError: it has none.
    """
    cover = load().stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover:
            return stream
    raise MediaError("it has no video" + (", only a cover picture" if container.streams.video else ""))


def failure(error: Exception, url: str = "") -> MediaError:
    """Say in plain words why FFmpeg failed.

    Args:
        error: PyAV's exception.
        url: the address; its host is looked up if the error does not tell an unknown host from any other failure.
    """
    e = load().error
    lasting: tuple[tuple[type[Exception], str], ...] = (
        (e.HTTPUnauthorizedError, "401 unauthorized: check the user and password"),
        (e.HTTPForbiddenError, "403 forbidden: this user may not see it"),
        (e.HTTPNotFoundError, "404 not found: the host answers, but has no such path; check the end of the address"),
        (e.HTTPBadRequestError, "400 bad request: check the address"),
        (e.ProtocolNotFoundError, "FFmpeg's libraries here do not have this protocol"),
        (e.DemuxerNotFoundError, "FFmpeg's libraries here do not have this format"),
        (e.DecoderNotFoundError, "FFmpeg's libraries here cannot decode it"),
        (e.EOFError, "it ended before the first frame"),
        (e.InvalidDataError, "it is damaged, cut off, or no video"),
        (PermissionError, "permission denied"),
    )
    passing: tuple[tuple[type[Exception], str], ...] = (
        (e.HTTPTooManyRequestsError, "429 too many requests: wait, then try again"),
        (e.HTTPServerError, "the host has an error of its own (5xx): it may have too many viewers; try later"),
        (ConnectionRefusedError, "connection refused: nothing listens at this port; check the port, and that it is on"),
        (e.ExitError, SILENT),
        (TimeoutError, SILENT),
    )
    for kinds, later in ((lasting, False), (passing, True)):
        for kind, words in kinds:
            if isinstance(error, kind):
                refused = isinstance(error, (e.HTTPUnauthorizedError, e.HTTPForbiddenError))
                return MediaError(words, passing=later, refused=refused)
    if isinstance(error, e.HTTPOtherClientError):
        return MediaError("the host refuses with a 4xx answer: check the address")
    code = getattr(error, "errno", None)
    if code in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return MediaError("no route to the host: check the network", passing=True)
    if code == errno.EINVAL:  # FFmpeg's error for a format or protocol that is not on the list
        return MediaError("it is no video, or of a kind that framecast does not open")
    if code == errno.EIO:  # FFmpeg's error if a name is unknown, and many others
        text = "it ended or broke off" if _resolves(url) else "no such host: check its name, and the network"
        return MediaError(text, passing=True)
    return MediaError(redact(str(getattr(error, "strerror", None) or error).partition("\n")[0]))


def _resolves(url: str) -> bool:
    try:
        host = urlsplit(url).hostname
        return host is None or bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError, ValueError):
        return False
