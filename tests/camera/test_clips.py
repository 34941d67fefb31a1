"""Files, images, the demo and the synthetic source: every frame, with its time, index and epoch."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from framecast.camera import Frame, Source, is_camera, open_source
from framecast.camera.source import plausible_rate
from framecast.camera.video import Video
from framecast.errors import OptionError, SourceError
from framecast.testing import shades

from .reading import read  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)


def read_all(source: Source) -> list[Frame]:
    with source:
        return list(iter(source.read, None))


def brightness(frames: list[Frame]) -> list[float]:
    return [float(frame.image.mean()) for frame in frames]


def test_importing_the_camera_loads_no_opencv() -> None:
    code = "import sys, framecast.camera; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_gives_every_frame_at_its_media_time(make_clip: Callable[..., Path]) -> None:
    source = open_source(str(make_clip()))
    assert (source.live, source.fps) == (False, 20.0)
    frames = read_all(source)
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.time for frame in frames] == pytest.approx([i / 20 for i in range(30)])
    assert {frame.epoch for frame in frames} == {0}
    assert brightness(frames) == pytest.approx([8 * i for i in range(30)], abs=5)
    assert all(f.image.shape == (48, 64, 3) and f.image.dtype == np.uint8 for f in frames)


def test_a_file_by_uri_and_by_path_object(make_clip: Callable[..., Path]) -> None:
    path = make_clip("two words.mp4")
    uri = path.as_uri()
    assert "%20" in uri
    for given in (uri, path):
        assert len(read_all(open_source(given))) == 30


def test_a_file_whose_name_looks_like_a_protocol(
    make_clip: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip("concat:a.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(read_all(open_source("concat:a.mp4"))) == 30


def test_looping_starts_a_new_epoch_and_time_goes_on(make_clip: Callable[..., Path]) -> None:
    with open_source(make_clip(), loop=True) as source:
        frames = [read(source) for _ in range(75)]
    assert [frame.index for frame in frames] == list(range(75))
    assert [frame.time for frame in frames] == pytest.approx([i / 20 for i in range(75)])
    assert [frame.epoch for frame in frames] == [0] * 30 + [1] * 30 + [2] * 15
    assert brightness(frames[30:60]) == brightness(frames[:30])


@pytest.mark.parametrize(("name", "codec"), [("cut.mkv", "XVID"), ("cut.avi", "MJPG")])
def test_a_file_that_was_cut_off_gives_the_frames_that_are_there(
    make_clip: Callable[..., Path], name: str, codec: str
) -> None:
    path = make_clip(name, codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 0 < len(read_all(open_source(path))) < 30


def test_a_file_without_time_stamps_plays_at_25_or_as_asked(tmp_path: Path) -> None:
    """Joined JPEGs: FFmpeg's own guess of their rate is not believed."""
    path = tmp_path / "joined.mjpeg"
    path.write_bytes(b"".join(cv2.imencode(".jpg", shade.image)[1].tobytes() for shade in shades(3)))
    source = open_source(path)
    assert source.fps == 25.0
    assert [frame.time for frame in read_all(source)] == [0.0, 0.04, 0.08]
    source = open_source(path, fps=10)
    assert source.fps == 10.0
    assert [frame.time for frame in read_all(source)] == [0.0, 0.1, 0.2]


@pytest.mark.parametrize("rate", [0.0, float("nan"), float("inf"), -1.0, 90000.0])
def test_a_frame_rate_that_cannot_be(rate: float) -> None:
    assert plausible_rate(rate) is None


def test_the_demo() -> None:
    source = open_source("demo")
    assert source.name == "demo"
    frames = read_all(source)
    assert len(frames) > 50
    assert source.fps is not None
    assert frames[-1].time == pytest.approx((len(frames) - 1) / source.fps)


def test_a_folder_is_sorted_as_people_count(folder: Path) -> None:
    source = open_source(str(folder))
    assert (source.live, source.fps) == (False, 25.0)
    frames = read_all(source)
    assert brightness(frames) == [8, 9, 10, 11]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12])


def test_a_glob_of_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    for pattern in (f"{folder}/img1*", "frames/img1*.png", "**/img1?.png", folder.as_uri() + "/img1[01].png"):
        assert brightness(read_all(open_source(pattern))) == [10, 11]


def test_a_file_whose_name_looks_like_a_glob(folder: Path) -> None:
    path = (folder / "img8.png").rename(folder / "img[8].png")
    assert brightness(read_all(open_source(str(path)))) == [8]


def test_one_image_and_images_that_loop(folder: Path) -> None:
    assert brightness(read_all(open_source(folder / "img9.png"))) == [9]
    with open_source(folder, loop=True) as source:
        frames = [read(source) for _ in range(6)]
    assert brightness(frames) == [8, 9, 10, 11, 8, 9]
    assert [frame.epoch for frame in frames] == [0, 0, 0, 0, 1, 1]


def test_synthetic_frames_move_and_depend_on_the_seed_alone() -> None:
    uri = "synthetic://?size=160x120&fps=50&frames=40&seed=7"
    first, again = read_all(open_source(uri)), read_all(open_source(uri))
    other = read_all(open_source(uri.replace("seed=7", "seed=8")))
    assert len(first) == 40
    assert first[10].time == 0.2
    assert first[0].image.shape == (120, 160, 3)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].image, other[0].image)
    changes = [(a.image != b.image).any(axis=2).mean() for a, b in itertools.pairwise(first)]
    assert min(changes) > 0.002  # always in motion
    assert max(changes) < 0.3  # on a still background


def test_synthetic_shapes_stay_in_the_picture_for_ever() -> None:
    from framecast.camera.synthetic import Scene, Synthetic, _draw

    source = Synthetic(Scene(width=96, height=64))
    for shape in source._shapes:
        for number in (0, 1, 17, 12_345, 10**9):
            image = np.zeros((64, 96, 3), np.uint8)
            _draw(image, shape, number)
            area = (image.sum(axis=2) / shape.colour.sum()).sum()
            assert area == pytest.approx((4 if shape.square else np.pi) * shape.radius**2, rel=0.08)


def test_synthetic_defaults_and_loop() -> None:
    source = open_source("synthetic://?frames=0")
    assert (source.fps, len(read_all(source))) == (30.0, 300)
    with open_source("synthetic://?frames=3&size=32x32", loop=True) as source:
        frames = [read(source) for _ in range(7)]
    assert [frame.epoch for frame in frames] == [0, 0, 0, 1, 1, 1, 2]
    assert np.array_equal(frames[0].image, frames[3].image)


@pytest.mark.parametrize(
    "query",
    ["?sise=3x3", "?size=3x3", "?size=9000x9", "?fps=nan", "?fps=0", "?frames=-1", "?seed=x", "?size=32", "scene"],
)
def test_synthetic_options_that_cannot_be(query: str) -> None:
    with pytest.raises(SourceError, match=r"size=320x240|size 16x16"):
        open_source(f"synthetic://{query}")


def test_the_length_is_known_before_the_frames_are_read(make_clip: Callable[..., Path], folder: Path) -> None:
    lengths = {
        str(place): open_source(place).length for place in (make_clip(), folder, "synthetic://?frames=7", "demo")
    }
    assert list(lengths.values()) == [30, 4, 7, 217]


def test_closing_twice_ends_a_clip(make_clip: Callable[..., Path], folder: Path) -> None:
    for uri in (make_clip(), folder, "synthetic://"):
        source = open_source(uri)
        assert source.read() is not None
        source.close()
        source.close()
        assert source.read() is None


def test_closing_from_other_threads_while_one_reads(make_clip: Callable[..., Path]) -> None:
    path = make_clip()
    for _ in range(20):
        source = open_source(path, loop=True)
        assert isinstance(source, Video)
        reader = threading.Thread(target=read_all, args=(source,))
        closers = [threading.Thread(target=source.close) for _ in range(3)]
        reader.start()
        for closer in closers:
            closer.start()
        for thread in (reader, *closers):
            thread.join(10)
            assert not thread.is_alive()
        assert source._released


@pytest.mark.parametrize("name", ["timeout", "stall", "fps"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_number_that_must_be_positive(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"{name} is .* positive"):
        open_source("demo", **{name: value})  # type: ignore[arg-type]


def test_a_clip_keeps_no_frame_that_changes_later(make_clip: Callable[..., Path]) -> None:
    with open_source(make_clip()) as source:
        first = read(source)
        before = first.image.copy()
        source.read()
    assert np.array_equal(first.image, before)


def test_a_path_object_is_never_a_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="no such file: demo"):
        open_source(Path("demo"))


@pytest.mark.parametrize(
    ("uri", "camera"),
    [
        ("0", True),
        ("-", True),
        ("http://host/stream.mjpg", True),
        ("udp://@:5000", True),
        ("12", True),
        ("v4l2:///dev/video0", True),
        ("csi://0", True),
        ("RTSP://host/stream", True),
        ("rtsps://user:pw@host/stream", True),
        ("./0", False),
        ("1234", False),
        ("demo", False),
        ("clip.mp4", False),
        ("file:///clip.mp4", False),
        ("synthetic://?seed=1", False),
    ],
)
def test_what_is_a_camera(uri: str, camera: bool) -> None:
    assert is_camera(uri) is camera


def test_a_file_that_is_called_as_a_camera_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("csi:0").touch()
    assert not is_camera("csi:0")
