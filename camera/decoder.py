"""Decodes a video stream into frames: deinterlaced, with damage counted."""

from __future__ import annotations

import contextlib
import math
import struct
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator
from statistics import median
from typing import TYPE_CHECKING, cast

from framecast.camera.media import SILENT, MediaError, failure, failures, load, video_of
from framecast.camera.source import plausible_rate

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.filter import Graph
    from av.video.stream import VideoStream

HEALED = 0.8  # of the stall: so long a key frame is waited for after damage, and the stream does not count as lost
USUAL = 15  # pictures whose steps in time tell the usual one
JUMP = 1.6  # usual steps: a longer one skips a picture
_PRODUCER_TIME = struct.Struct("=q")  # AVProducerReferenceTime begins with microseconds since 1970


class Decoder:
    """The frames of a container's first video stream.

    Args:
        container: opened with :func:`framecast.camera.media.open_media`; :meth:`close` closes it.
        threads: of the decoder; 0 for one per core. Each further one holds back a frame: hidden latency in a stream.
            With several, FFmpeg's H.264 decoder now and then does not mark a damaged picture.
        stall: of a live stream: seconds that a packet may take. After damage, pictures are left out up to the next key
            frame, since they are predicted from what was damaged, but not for so long. Some streams have no key frames.
        faults: counts packets and pictures that could not be decoded in full and were left out, as "damaged".

    Attributes:
        interlaced: whether an interlaced frame has come. From then on frames pass a deinterlacer (bwdif), which needs
            the frame after each, so it holds one back.
        cut_off: whether the container's data made no sense from some place on.
        pixel_aspect: the width of a pixel divided by its height; 1 if unknown.
    """

    def __init__(
        self, container: InputContainer, *, threads: int, faults: Counter[str], stall: float = math.inf
    ) -> None:
        self._container = container
        self._stream = video_of(container)
        context = self._stream.codec_context
        context.thread_type = "AUTO"
        context.thread_count = threads
        aspect = self._stream.sample_aspect_ratio
        self.pixel_aspect = float(aspect) if aspect else 1.0
        self._faults = faults
        self._stall = stall
        self._heal = 0.0 if math.isinf(stall) else HEALED * stall
        self._hurt: float | None = None  # seconds: the stream's time of the newest damage that is not mended yet
        self._newest = 0.0  # seconds: the stream's time of the newest picture
        self._steps: deque[float] = deque(maxlen=USUAL)  # seconds between the newest pictures
        self._loses = False  # whether anything was damaged, as over UDP
        self._lossy = container.format.name == "mpegts"  # packets that lack a part are usual: pictures tell the damage
        self.interlaced = self.cut_off = False
        self._graph: Graph | None = None
        self._reference: tuple[float, float] | None = None  # seconds since 1970, and the same moment as a time stamp
        self._frames = self._deinterlaced()

    @property
    def fps(self) -> float | None:
        """Nominal frames a second, or None if the header gives no rate or an impossible one."""
        return plausible_rate(float(self._stream.average_rate or 0))

    @property
    def length(self) -> int | None:
        """The number of frames by the header, which may be wrong; None if it does not say."""
        if self._stream.frames > 0:
            return self._stream.frames
        seconds, rate = self._container.duration, self.fps
        return None if seconds is None or rate is None else round(seconds * 1e-6 * rate) or None

    @property
    def has_times(self) -> bool:
        """Whether the container stores time stamps. Without them, FFmpeg counts frames at a rate that it assumes."""
        return not self._container.format.flags & load().format.Flags.no_timestamps.value

    def captured(self, frame: VideoFrame) -> float | None:
        """When a frame was captured by the sender's clock, in seconds since 1970; None if the stream does not tell.

        RTSP tells it from the first RTCP sender report on (RFC 3550, section 6.4.1).
        """
        if self._reference is None or frame.time is None:
            return None
        then, stamp = self._reference
        return then + (frame.time - stamp)

    def read(self) -> VideoFrame | None:
        """Return the next frame, or None at the end.

        Raises:
            MediaError: the stream broke off. It stays broken.
        """
        return next(self._frames, None)

    def close(self) -> None:
        """Close the container. Never during a read."""
        self._frames.close()
        self._container.close()

    def _decoded(self) -> Generator[VideoFrame, None, None]:
        packets = cast("Generator[Packet[VideoStream], None, None]", self._container.demux(self._stream))
        with contextlib.closing(packets):  # else PyAV 18 leaks 160 bytes: benchmarks/pyav_leak.py
            yield from self._decoded_from(packets)

    def _decoded_from(self, packets: Iterator[Packet[VideoStream]]) -> Generator[VideoFrame, None, None]:
        error = load().error
        while True:
            begun = time.monotonic()
            try:
                packet = next(packets)
            except (StopIteration, error.EOFError):
                return
            except error.InvalidDataError:  # a file that was cut off
                self._faults["damaged"] += 1
                self.cut_off = True
                return
            except (error.FFmpegError, OSError) as caught:
                raise failure(caught) from None
            if time.monotonic() - begun >= self._stall:  # FFmpeg gives what it has of a packet
                raise MediaError(SILENT, passing=True)
            if packet.pts is not None and packet.has_sidedata("prft"):
                (microseconds,) = _PRODUCER_TIME.unpack_from(bytes(packet.get_sidedata("prft")))
                self._reference = 1e-6 * microseconds, float(packet.pts * packet.time_base)
            if packet.is_corrupt and not self._lossy:  # decoders in threads would lose whole pictures before it too
                self._damage()
                continue
            try:
                frames = packet.decode()
            except error.EOFError:
                return
            except failures():
                self._damage()
                continue
            for frame in frames:
                if frame.time is not None:
                    self._arrived(frame.time)
                if frame.is_corrupt:
                    self._damage()
                elif self._healed(frame):
                    yield frame
                else:
                    self._faults["damaged"] += 1

    def _damage(self) -> None:
        self._faults["damaged"] += 1
        self._hurt, self._loses = self._newest, True

    def _arrived(self, time: float) -> None:
        """Note a picture's time. FFmpeg marks what lost a part, but not what follows a picture that was lost whole."""
        step, self._newest = time - self._newest, time
        if self._loses and len(self._steps) == USUAL and step > JUMP * median(self._steps):
            self._hurt = time
        self._steps.append(step)

    def _healed(self, frame: VideoFrame) -> bool:
        """Whether no damage is left in a frame."""
        if self._hurt is not None and (frame.key_frame or not 0 <= self._newest - self._hurt < self._heal):
            self._hurt = None
        return self._hurt is None

    def _deinterlaced(self) -> Generator[VideoFrame, None, None]:
        for frame in self._decoded():
            if frame.interlaced_frame and self._graph is None:
                self.interlaced = True
                self._graph = self._deinterlacer(frame)
            if self._graph is None:
                yield frame
            else:
                self._graph.vpush(frame)
                yield from self._pulled(self._graph)
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pulled(self._graph)

    def _deinterlacer(self, frame: VideoFrame) -> Graph:
        graph: Graph = load().filter.Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._stream.time_base
        )
        graph.link_nodes(source, graph.add("bwdif", "deint=interlaced:mode=send_frame"), graph.add("buffersink"))
        graph.configure()
        return graph

    def _pulled(self, graph: Graph) -> Generator[VideoFrame, None, None]:
        error = load().error
        with contextlib.suppress(error.BlockingIOError, error.EOFError):  # it needs the next frame; it is empty
            while True:
                yield graph.vpull()
