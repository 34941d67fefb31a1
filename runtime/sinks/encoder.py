"""Encodes pictures with FFmpeg's libraries (PyAV): into a file, to a network address, or to a device."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2

from framecast.camera import Image
from framecast.errors import SinkError
from framecast.runtime.sinks.picture import letterboxed

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream

TICK = Fraction(1, 90000)  # seconds: the time base of videos
LONGEST_GAP = 10.0  # seconds without a frame; a longer gap is cut to this
THREADS = 4  # of an encoder, at most: each slice of a picture costs a little quality


class NoEncoderError(Exception):
    """FFmpeg's libraries have none of the encoders, or none that opens on this machine."""


class Codec(NamedTuple):
    """An encoder of FFmpeg.

    Attributes:
        encoder: FFmpeg's name.
        said: the codec's name for users.
        options: for speed and low latency: no picture waits for a later one, so a kill loses little.
        rated: whether it needs a bit rate because it knows no constant quality.
        full: whether levels are those of JPEG (BT.601, 0 to 255) instead of those of video (BT.709, 16 to 235).
    """

    encoder: str
    said: str
    options: Mapping[str, str] = {}
    rated: bool = False
    full: bool = False


# The first that opens is taken. Only libx264 and the last ones could be tried; the others are what some builds have.
H264 = (
    # superfast: twice the CPU time of OpenCV's mp4v, 57 % of its size (the demo, 688x560); ultrafast: 1.25 times, 70 %.
    Codec("libx264", "H.264", {"preset": "superfast", "tune": "zerolatency", "crf": "23", "forced-idr": "1"}),
    Codec("libopenh264", "H.264", rated=True),
    Codec("h264_videotoolbox", "H.264", {"realtime": "1"}, rated=True),
    Codec("h264_nvenc", "H.264", {"preset": "p2", "tune": "ull", "zerolatency": "1", "forced-idr": "1"}, rated=True),
    Codec("h264_v4l2m2m", "H.264", rated=True),
)
_VPX = {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "lag-in-frames": "0", "crf": "33", "b": "0"}
# No AV1: as root, libsvtav1 gives the process real-time priority, and nothing else on the machine runs any more.
VP9 = (Codec("libvpx-vp9", "VP9", _VPX),)
MJPEG = (
    Codec("mjpeg", "MJPEG", {"flags": "+qscale", "global_quality": str(3 * 118)}, full=True),
)  # 118 is FF_QP2LAMBDA
RAW = (Codec("rawvideo", "raw YUV 4:2:0"),)


def load_av() -> ModuleType:
    """Import and return PyAV's module, ``av``.

    Raises:
        SinkError: PyAV is not installed, or a system library that it needs is missing.
    """
    try:
        import av
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        raise SinkError(f"PyAV cannot be loaded: {reason} (pip install av)") from error
    return av


class Times:
    """Turns frames' times into a recording's: they begin at 0 and never run back.

    A gap of more than ``LONGEST_GAP`` is cut to it. A time that does not increase, as after a break in the stream,
    counts as one nominal interval later. Concealed frames do not move the others: a late one that comes after all
    takes the place of its concealment.

    Args:
        fps: nominal frames a second.

    Attributes:
        taken: whether a concealed frame already stands in the newest frame's place.
    """

    def __init__(self, fps: float) -> None:
        self._interval = 1 / fps
        self._before: float | None = None  # time of the newest real frame
        self._begun = 0.0  # the frames' time of the recording's 0; cutting a gap moves it
        self._newest = 0.0  # what was returned last
        self._concealed = -math.inf  # the same, of a concealed frame
        self.taken = False

    def at(self, time: float, *, concealed: bool = False) -> float:
        """Seconds from the recording's begin, of a frame's time in seconds."""
        if self._before is None:
            self._begun = time
        elif not concealed:
            gap = time - self._before
            if not 0 < gap <= LONGEST_GAP:
                self._begun += gap - (LONGEST_GAP if gap > 0 else self._interval)
        at = time - self._begun
        self.taken = not concealed and at < self._concealed + self._interval / 2
        self._newest = max(self._newest, at)
        if concealed:
            self._concealed = self._newest
        else:
            self._before = time
        return self._newest


class Encoder:
    """An opened video. Every method may raise PyAV's ``FFmpegError``, an ``OSError`` or a ``ValueError``.

    Args:
        target: an address or device, or a file object.
        container: FFmpeg's name of the format.
        codecs: the first that opens is taken.
        shape: of the first picture, (height, width, 3). Others are letterboxed; odd sides are padded by a pixel.
        fps: nominal frames a second.
        tick: seconds of the time base.
        key: seconds from a key frame to the next.
        options: FFmpeg's, for the container.

    Attributes:
        codec: the one that was taken.

    Raises:
        NoEncoderError: no codec could be opened.
    """

    def __init__(
        self,
        target: object,
        container: str,
        codecs: Sequence[Codec],
        shape: tuple[int, ...],
        *,
        fps: float,
        tick: Fraction = TICK,
        key: float = 2.0,
        options: Mapping[str, str] | None = None,
    ) -> None:
        av = load_av()
        self._shape = shape
        self._tick, self._key = tick, key
        self._next_key = -math.inf
        self._last = -1  # pts of the newest picture
        rate = Fraction(fps).limit_denominator(1001)
        self.codec = next((codec for codec in codecs if _opens(codec, shape, rate, tick)), codecs[0])
        self._yuv = Yuv(full=self.codec.full)
        self._container = av.open(target, "w", format=container, options=dict(options or {}))
        try:
            self._stream: VideoStream = self._container.add_stream(self.codec.encoder, rate=rate)
            self._stream.time_base = tick
            _configure(self._stream.codec_context, self.codec, shape, rate, tick)
            self._stream.codec_context.open()
        except BaseException as error:
            self._container.close()
            if isinstance(error, (av.error.FFmpegError, av.codec.codec.UnknownCodecError)):
                names = ", ".join(codec.encoder for codec in codecs)
                raise NoEncoderError(f"FFmpeg's libraries here have no encoder for it that opens ({names})") from error
            raise

    def write(self, picture: Image, at: float) -> None:
        """Encode a picture, uint8 [H, W, 3] BGR, for ``at`` seconds from the begin."""
        av = load_av()
        frame = self._yuv.frame(letterboxed(picture, self._shape))
        self._last = frame.pts = max(self._last + 1, round(at / float(self._tick)))
        frame.time_base = self._tick
        if at >= self._next_key:
            frame.pict_type = av.video.frame.PictureType.I
            self._next_key = at + self._key
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def finish(self) -> None:
        """Write what the encoder holds back, and the container's end. Whether or not it fails, all is let go."""
        try:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
        except BaseException:
            with suppress(Exception):  # closing tries to write the end; the first failure counts
                self._container.close()
            raise
        self._container.close()


class Yuv:
    """Converts pictures to YUV 4:2:0; odd sides are padded by a pixel.

    Args:
        full: see :attr:`Codec.full`.
        matrix: ``ITU601`` or ``ITU709`` (default: as ``full`` says).
    """

    def __init__(self, *, full: bool = False, matrix: str = "") -> None:
        reformatter = load_av().video.reformatter
        ranges = reformatter.ColorRange
        self._reformatter = reformatter.VideoReformatter()
        self._how = {
            "format": "yuvj420p" if full else "yuv420p",
            "dst_colorspace": reformatter.Colorspace[matrix or ("ITU601" if full else "ITU709")],
            "src_color_range": ranges.JPEG,
            "dst_color_range": ranges.JPEG if full else ranges.MPEG,
            "threads": 1,  # more are started anew for every picture
        }

    def frame(self, picture: Image) -> VideoFrame:
        """A picture, uint8 [H, W, 3] BGR, converted."""
        height, width = picture.shape[:2]
        if height % 2 or width % 2:
            picture = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)  # type: ignore[assignment]
        frame = load_av().VideoFrame.from_ndarray(picture, format="bgr24")
        converted: VideoFrame = self._reformatter.reformat(frame, **self._how)
        return converted


def _opens(codec: Codec, shape: tuple[int, ...], rate: Fraction, tick: Fraction) -> bool:
    """Whether an encoder is there and can be opened: some are there, but need hardware that is not."""
    av = load_av()
    try:
        context = av.CodecContext.create(codec.encoder, "w")
        _configure(context, codec, shape, rate, tick)
        context.open()
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError, ValueError):
        return False
    return True


def _configure(context: Any, codec: Codec, shape: tuple[int, ...], rate: Fraction, tick: Fraction) -> None:
    context.height, context.width = (side + side % 2 for side in shape[:2])
    context.pix_fmt = "yuvj420p" if codec.full else "yuv420p"
    context.time_base, context.framerate = tick, rate
    context.gop_size = 600  # frames: a bound only, as key frames are asked for by time
    context.max_b_frames = 0
    context.thread_count = min(THREADS, os.cpu_count() or 1)
    context.options = dict(codec.options)
    if codec.rated:
        context.bit_rate = int(0.15 * context.width * context.height * rate)
    if not codec.full:
        context.color_range, context.colorspace = 1, 1  # limited, BT.709
        context.color_primaries = context.color_trc = 1
