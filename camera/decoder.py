"""Decodes a video stream into frames: deinterlaced, with damage counted."""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING

from framecast.camera.media import failure, failures, load, video_of
from framecast.camera.source import plausible_rate

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.filter import Graph

_PRODUCER_TIME = struct.Struct("=q")  # AVProducerReferenceTime begins with microseconds since 1970


class Decoder:
    """The frames of a container's first video stream.

    Args:
        container: opened with :func:`framecast.camera.media.open_media`; :meth:`close` closes it.
        threads: of the decoder; 0 for one per core. Each further one holds back a frame: hidden latency in a stream.
        faults: counts packets and pictures that could not be decoded in full and were left out, as "damaged".

    Attributes:
        interlaced: whether an interlaced frame has come. From then on frames pass a deinterlacer (bwdif), which needs
            the frame after each, so it holds one back.
        pixel_aspect: the width of a pixel divided by its height; 1 if unknown.
    """

    def __init__(self, container: InputContainer, *, threads: int, faults: Counter[str]) -> None:
        self._container = container
        self._stream = video_of(container)
        context = self._stream.codec_context
        context.thread_type = "AUTO"
        context.thread_count = threads
        aspect = self._stream.sample_aspect_ratio
        self.pixel_aspect = float(aspect) if aspect else 1.0
        self._faults = faults
        self._lossy = container.format.name == "mpegts"  # packets that lack a part are usual: pictures tell the damage
        self.interlaced = False
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
        error = load().error
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, error.EOFError):
                return
            except error.InvalidDataError:  # a file that was cut off
                self._faults["damaged"] += 1
                return
            except (error.FFmpegError, OSError) as caught:
                raise failure(caught) from None
            if packet.pts is not None and packet.has_sidedata("prft"):
                (microseconds,) = _PRODUCER_TIME.unpack_from(bytes(packet.get_sidedata("prft")))
                self._reference = 1e-6 * microseconds, float(packet.pts * packet.time_base)
            if packet.is_corrupt and not self._lossy:  # decoders in threads would lose whole pictures before it too
                self._faults["damaged"] += 1
                continue
            try:
                frames = packet.decode()
            except error.EOFError:
                return
            except failures():
                self._faults["damaged"] += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._faults["damaged"] += 1
                else:
                    yield frame

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
