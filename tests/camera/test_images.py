"""Images as people have them: pages, durations, depths, transparency, damage, and odd names. Pillow makes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from framecast.camera import Frame, open_source
from framecast.errors import OptionError, SourceError

RNG = np.random.default_rng(0)
RAMP = (np.add.outer(np.arange(48), np.arange(64)) % 200).astype(np.uint8)
PAGES = [Image.fromarray(np.roll(RAMP, 3 * k, axis=1)) for k in range(6)]


def frames_of(path: Path | str, **options: Any) -> list[Frame]:
    with open_source(str(path), **options) as source:
        return list(source)


def bgr(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))[..., ::-1]


@pytest.mark.parametrize(
    ("name", "options", "step"),
    [
        ("pages.tif", {}, [0.04] * 5),
        ("times.gif", {"duration": [40, 200] * 3, "loop": 0}, [0.04, 0.2] * 2 + [0.04]),
        ("instant.gif", {"duration": 0}, [0.1] * 5),
        ("times.png", {"duration": [40, 200] * 3}, [0.04, 0.2] * 2 + [0.04]),
        ("times.apng", {"duration": 100, "format": "PNG"}, [0.1] * 5),
        ("times.webp", {"duration": [50, 150] * 3, "lossless": True}, [0.05, 0.15] * 2 + [0.05]),
        ("times.avif", {"duration": [50, 150] * 3, "quality": 100}, [0.05, 0.15] * 2 + [0.05]),
    ],
)
def test_every_page_is_a_frame_with_its_own_time(
    tmp_path: Path, name: str, options: dict[str, Any], step: list[float]
) -> None:
    if name.endswith(".avif") and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / name
    PAGES[0].save(path, save_all=True, append_images=PAGES[1:], **options)
    frames = frames_of(path)
    assert np.diff([frame.time for frame in frames]) == pytest.approx(step)
    for frame, page in zip(frames, PAGES, strict=True):
        assert np.abs(frame.image.astype(int) - bgr(page)).max() <= (6 if name.endswith(".avif") else 0)
    assert np.diff([frame.time for frame in frames_of(path, fps=10)]) == pytest.approx([0.1] * 5)


def test_a_looped_animation_shows_its_last_page_as_long_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "times.gif"
    PAGES[0].save(path, save_all=True, append_images=PAGES[1:3], duration=[40, 80, 80], loop=0)
    with open_source(path, loop=True) as source:
        times = [frame.time for frame, _ in zip(source, range(5), strict=False)]
    assert times == pytest.approx([0.0, 0.04, 0.12, 0.2, 0.24])


def test_a_folder_plays_at_the_rate_that_is_asked_for(folder: Path) -> None:
    for place in (f"{folder}?fps=10", f"{folder}/?fps=10", f"{folder}/*.png?fps=10.0"):
        assert [frame.time for frame in frames_of(place)] == pytest.approx([0.0, 0.1, 0.2, 0.3])  # KITTI
    assert [frame.time for frame in frames_of(folder, fps=10)] == pytest.approx([0.0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("rate", ["", "0", "-1", "nan", "1e9", "ten"])
def test_a_rate_that_cannot_be_played(folder: Path, rate: str) -> None:
    with pytest.raises(OptionError, match=r"\?fps=.*: give frames a second, such as \?fps=10"):
        open_source(f"{folder}?fps={rate}")


def test_a_file_may_be_called_like_an_option(folder: Path) -> None:
    named = folder / "a.png?fps=10.png"
    (folder / "img8.png").rename(named)
    assert len(frames_of(named)) == 1


@pytest.mark.parametrize(
    ("name", "depth", "low", "high"),
    [("t.png", np.uint16, 7000, 9000), ("t.tif", np.uint16, 0, 65535), ("t.tiff", np.float32, -2.5, 31.0)],
)
def test_depth_is_stretched_by_one_range(tmp_path: Path, name: str, depth: Any, low: float, high: float) -> None:
    values = np.linspace(low, high, 48 * 64).reshape(48, 64).astype(depth)
    folder = tmp_path / "thermal"
    folder.mkdir()
    Image.fromarray(values).save(folder / f"1{name}")
    Image.fromarray((values / 2).astype(depth)).save(folder / f"2{name}")  # darker: it must not be stretched anew
    with open_source(folder) as source:
        first, second = (frame.image.astype(float)[..., 0] for frame in source)
    begin, end = np.percentile(values, [0.1, 99.9])
    margin = (end - begin) / 4
    black, white = begin - margin, end + margin
    if np.issubdtype(depth, np.integer):  # no margin beyond what the type holds
        black, white = max(black, 0), min(white, 65535)
    for image, true in ((first, values), (second, values / 2)):
        expected = np.clip((true.astype(float) - black) / (white - black) * 255, 0, 255)
        assert np.abs(image - expected).max() <= 1
    (note,) = source.notes
    assert f"pictures of {np.dtype(depth)} are stretched" in note


def test_values_that_are_no_numbers_are_black(tmp_path: Path) -> None:
    values = np.full((48, 64), 20.0, np.float32)
    values[0], values[1], values[2] = np.nan, np.inf, 10.0
    Image.fromarray(values).save(tmp_path / "t.tiff")
    (frame,) = frames_of(tmp_path / "t.tiff")
    assert frame.image[:2].max() == 0
    assert 0 < frame.image[2].max() < frame.image[3].min() <= 255


def test_colours_of_16_bits_keep_their_upper_8(tmp_path: Path) -> None:
    picture = RNG.integers(0, 65536, (48, 64, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), picture)
    (frame,) = frames_of(tmp_path / "deep.png")
    assert np.abs(frame.image.astype(int) - (picture >> 8)).max() <= 1


def test_transparency_lies_over_black(tmp_path: Path) -> None:
    rgba = RNG.integers(0, 256, (48, 64, 4), dtype=np.uint8)
    rgba[:16, :, 3], rgba[16:32, :, 3] = 0, 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    (frame,) = frames_of(tmp_path / "a.png")
    expected = rgba[..., 2::-1].astype(float) * rgba[..., 3:] / 255
    assert np.abs(frame.image - expected).max() <= 0.5 + 1e-6
    palette = Image.fromarray(RAMP).convert("P")
    palette.save(tmp_path / "p.png", transparency=0)
    (frame,) = frames_of(tmp_path / "p.png")
    assert (frame.image[np.asarray(palette) == 0] == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_picture(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    PAGES[0].convert("RGB").save(path, exif=exif, quality=100)
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR)  # it turns pictures as well
    assert expected is not None
    (frame,) = frames_of(path)
    assert frame.image.shape == ((64, 48, 3) if orientation > 4 else (48, 64, 3))
    assert np.abs(frame.image.astype(int) - expected).max() <= 2


def test_a_broken_image_is_left_out_and_keeps_its_place(folder: Path) -> None:
    (folder / "img9.png").write_bytes((folder / "img9.png").read_bytes()[:60])
    with open_source(folder) as source:
        frames = list(source)
    assert [round(float(frame.image.mean())) for frame in frames] == [8, 10, 11]
    assert [frame.time for frame in frames] == pytest.approx([0.0, 0.08, 0.12])
    assert source.faults == {"damaged": 1}
    (note,) = source.notes
    assert note.startswith("left out: not an image that can be decoded: ")
    for path in folder.glob("*.png"):
        path.write_bytes(b"no image")
    with open_source(folder) as source, pytest.raises(SourceError, match="cannot decode any frame"):
        source.read()


def test_hidden_files_are_not_images(folder: Path) -> None:
    (folder / "._img8.png").write_bytes(b"\0\5\x16\7" + bytes(4092))  # macOS
    (folder / ".img7.png").write_bytes((folder / "img8.png").read_bytes())
    assert len(frames_of(folder)) == len(frames_of(f"{folder}/*.png")) == 4


def test_patterns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bracketed = folder.rename(folder.with_name("cam [2024]"))
    for number in (8, 9, 10, 11):
        (bracketed / f"img{number}.png").rename(bracketed / f"img_{number:04d}.png")
    for pattern in ("*.png", "img_%04d.png", "img_%d.png", "img_00[01]?.png", "**/img*.png"):
        levels = [round(float(frame.image.mean())) for frame in frames_of(bracketed / pattern)]
        assert levels == [8, 9, 10, 11], pattern
    assert len(frames_of(bracketed)) == 4
    assert len(frames_of(bracketed / "img_0008.png")) == 1
    with pytest.raises(SourceError, match="no images match"):
        open_source(str(bracketed / "img_%06d.png"))
    monkeypatch.setenv("HOME", str(bracketed.parent))
    assert len(frames_of("~/cam [2024]/*.png")) == len(frames_of("~/cam [2024]")) == 4


@pytest.mark.parametrize(("name", "kind"), [("a.heic", "HEIC"), ("a.jxl", "JPEG XL")])
def test_what_pillow_cannot_decode_is_named(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with (
        open_source(tmp_path / name) as source,
        pytest.raises(SourceError, match=rf"cannot decode {kind}: .*\(convert it"),
    ):
        source.read()


def test_damaged_images_print_nothing(tmp_path: Path) -> None:
    """Libraries for JPEG, PNG and TIFF write lines of their own on the terminal."""
    for name in ("a.jpg", "b.png", "c.tif", "d.webp", "e.gif"):
        path = tmp_path / name
        PAGES[0].convert("RGB").save(path)
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 40] = RNG.bytes(40)
        path.write_bytes(data[: -len(data) // 8])
    for name in ("f.tif", "g.tif"):  # compressed: by libtiff, which prints
        path = tmp_path / name
        PAGES[0].convert("RGB").save(path, compression="tiff_adobe_deflate")
        data = bytearray(path.read_bytes())
        if name == "f.tif":
            data[40:60] = RNG.bytes(20)
        else:
            data[-60:-40] = RNG.bytes(20)  # its table of tags
        path.write_bytes(data)
    code = """
import sys
from framecast.camera import open_source
from framecast.errors import SourceError
for path in sys.argv[1:]:
    try:
        with open_source(path) as source:
            list(source)
    except SourceError:
        pass
"""
    call = [sys.executable, "-c", code, *map(str, tmp_path.iterdir()), str(tmp_path)]
    done = subprocess.run(call, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_image_that_pillow_takes_for_a_bomb_is_too_large(tmp_path: Path) -> None:
    Image.new("1", (30000, 30000)).save(tmp_path / "large.png")
    with pytest.raises(SourceError, match="image too large"):
        frames_of(tmp_path / "large.png")


def test_a_bitmap_of_one_bit(tmp_path: Path) -> None:
    Image.new("1", (20, 16), 1).save(tmp_path / "a.pbm")
    (frame,) = frames_of(tmp_path / "a.pbm")
    assert (frame.image == 255).all()
