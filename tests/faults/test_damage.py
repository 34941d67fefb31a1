"""A live stream that loses packets: what is predicted from a damaged picture is left out, up to the next key frame."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from framecast.camera.decoder import Decoder
from framecast.camera.media import MediaError


@dataclass
class Picture:
    """A frame as PyAV gives it."""

    time: float
    key_frame: bool = False
    is_corrupt: bool = False
    lost: bool = False  # its packet is damaged
    wait: float = 0.0  # seconds until it comes
    interlaced_frame: bool = False


class Packet(SimpleNamespace):
    """A packet with one picture."""

    def decode(self) -> list[Picture]:
        return [self.picture]


def given(pictures: list[Picture], *, stall: float) -> tuple[list[float], Counter[str]]:
    """The times of the frames that a decoder gives of these, and what it counts."""

    def demux(stream: object) -> Iterator[Any]:
        for picture in pictures:
            time.sleep(picture.wait)
            yield Packet(pts=None, is_corrupt=picture.lost, picture=picture)

    stream = SimpleNamespace(codec_context=SimpleNamespace(), sample_aspect_ratio=None, disposition=0)
    container: Any = SimpleNamespace(
        streams=SimpleNamespace(video=[stream]), format=SimpleNamespace(name="rtsp"), demux=demux
    )
    faults: Counter[str] = Counter()
    decoder = Decoder(container, threads=1, faults=faults, stall=stall)
    found = []
    while (frame := decoder.read()) is not None:
        found.append(frame.time or 0.0)
    return found, faults


@pytest.mark.parametrize("flag", ["is_corrupt", "lost"])
def test_what_follows_damage_is_left_out_up_to_the_next_key_frame(flag: str) -> None:
    pictures = [Picture(k / 25, key_frame=k % 10 == 0) for k in range(30)]
    setattr(pictures[14], flag, True)
    found, faults = given(pictures, stall=2.5)
    assert found == [k / 25 for k in range(30) if not 14 <= k < 20]
    assert faults == {"damaged": 6}
    assert len(given(pictures, stall=math.inf)[0]) == 29  # of a file only what is damaged


@pytest.mark.parametrize("damaged", [True, False])
def test_a_picture_that_was_lost_whole_is_damage_too(damaged: bool) -> None:
    """FFmpeg marks nothing then. Where nothing is ever damaged (TCP), steps differ because the camera's do."""
    pictures = [Picture(k / 25, key_frame=k % 20 == 0) for k in range(80) if k not in (45, 46)]
    pictures[18].is_corrupt = damaged
    found, _ = given(pictures, stall=2.5)
    left_out = {18, 19, *range(47, 60)} if damaged else set()
    assert found == [k / 25 for k in range(80) if k not in (45, 46) and k not in left_out]


def test_a_stream_without_key_frames_goes_on() -> None:
    pictures = [Picture(k / 25, key_frame=not k) for k in range(100)]
    pictures[10].is_corrupt = True
    found, _ = given(pictures, stall=2.5)
    assert found[:10] == [k / 25 for k in range(10)]
    assert found[10] == pytest.approx(10 / 25 + 2.0)


def test_what_comes_of_a_packet_after_a_stall_ends_the_stream() -> None:
    """A server freezes within a packet: FFmpeg gives its first part after the stall, and would wait as long again."""
    pictures = [Picture(0.0, key_frame=True), Picture(0.04, is_corrupt=True, wait=0.05), Picture(0.08, key_frame=True)]
    with pytest.raises(MediaError):
        given(pictures, stall=0.05)
