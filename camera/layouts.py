"""Data sets of the papers, by the layout of their folders: which clips are for training, and which are for tests.

A layout is a row of ``LAYOUTS``. A clip is a video or a folder of images. Its path in the data set tells everything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from framecast.camera import video
from framecast.camera.images import images_among
from framecast.camera.source import Image
from framecast.camera.uri import open_source
from framecast.errors import OptionError, SourceError
from framecast.redact import redact


@dataclass(frozen=True)
class Part:
    """The clips of a data set that are for training, or those for tests.

    Attributes:
        clips: the paths of the clips, relative to the folder of the data set or of a parent. If two clips have the same
            text in the group ``same``, the second one is the first in another form, and is left out.
        example: such a path, for messages.
        every: keep the first frame and then each ``every``-th one.
    """

    clips: re.Pattern[str]
    example: str
    every: int = 1


@dataclass(frozen=True)
class Layout:
    """A data set.

    Attributes:
        train: its clips for training.
        test: its clips for tests.
        given: frames that the paper's protocol gives after a reset.
        predicted: frames that it predicts then.
        crop: cut frames to the shape of the network's frames, around the centre. Otherwise they are squeezed to it.
    """

    train: Part
    test: Part
    given: int
    predicted: int
    crop: bool = False


def _part(clips: str, example: str, every: int = 1) -> Part:
    return Part(re.compile(rf"(?:.*/)?{clips}"), example, every)


_KTH = r"person(?:{})_[a-z]+_d\d[^/]*"
_UCF = r"(?P<same>[A-Z][\w-]+/\d*{})(?:/jpeg|/[^/]+\.avi)?"
_H36M = r"S(?:{})/(?:Videos/)?(?!_ALL)[^/]+\.\d+\.mp4"
_KITTI_KEPT = "2011_09_26_drive_0(?:005|070|079|104)"

LAYOUTS = {
    # Persons 1 to 16 and 17 to 25, as in the papers.
    "kth": Layout(
        _part(_KTH.format(r"0[1-9]|1[0-6]"), "boxing/person01_boxing_d1_uncomp.avi"),
        _part(_KTH.format(r"1[7-9]|2[0-5]"), "boxing/person17_boxing_d1_uncomp.avi"),
        *(10, 20),
    ),
    # STIP does not publish its lists. This split is ours: a fifth of each action, by the clips' numbers.
    "ucf-sports": Layout(
        _part(_UCF.format("[1-46-9]"), "Kicking-Side/001"), _part(_UCF.format("[05]"), "Kicking-Side/005"), *(4, 6)
    ),
    # The usual split by subjects. The release takes each fifth frame of 50 a second.
    "human36m": Layout(
        _part(_H36M.format("1|5|6|7|8"), "S1/Videos/Directions.54138969.mp4", 5),
        _part(_H36M.format("9|11"), "S9/Videos/Directions.54138969.mp4", 5),
        *(4, 6),
    ),
    # The released list of tests names two clips, both of traffic. The split is that.
    "sjtu4k": Layout(
        _part(r"(?!Traffic_)[A-Z][a-z]+\w*(?:\.\w+)?", "Campfire_Party.mp4"),
        _part(r"Traffic_\w+(?:\.\w+)?", "Traffic_Flow.mp4"),
        *(4, 6),
    ),
    # PredNet's protocol (Lotter et al., 2017): train on KITTI, at 10 frames a second; test on sets 6 to 10 of Caltech
    # Pedestrian, every third of 30 frames a second. PredNet keeps four drives of KITTI for validation and for tests.
    "kitti-caltech": Layout(
        _part(
            rf"(?!{_KITTI_KEPT})\d{{4}}_\d\d_\d\d_drive_\d{{4}}_sync/image_03/data",
            "2011_09_26/2011_09_26_drive_0001_sync/image_03/data",
        ),
        _part(r"set(?:0[6-9]|10)/V\d+(?:\.\w+)?", "set06/V000.avi", 3),
        *(10, 1),
        crop=True,
    ),
}
"""Every layout by its name on the command line."""


@dataclass(frozen=True)
class Clip:
    """A clip for training or for tests.

    Attributes:
        name: name among the other clips.
        path: the video or the folder of images, or any other URI for :func:`open_source`.
        every: keep the first frame and then each ``every``-th one.
        crop: whether to cut frames to the shape of the network's frames; see :func:`centre`.
    """

    name: str
    path: Path | str
    every: int = 1
    crop: bool = False

    @property
    def files(self) -> list[Path]:
        """The video, or the images in order."""
        path = Path(self.path)
        return images_among(path.iterdir()) if path.is_dir() else [path]

    def frames(self, size: tuple[int, int]) -> Generator[Image, None, None]:
        """Yield the frames to keep, uint8 [H, W, 3] BGR. ``size``: (width, height) of the network's frames.

        Raises:
            SourceError: the clip cannot be opened or read.
            OptionError: it is a camera.
        """
        with open_source(self.path) as source:
            if source.live:
                raise OptionError(f"{source.name} is a camera: record it first, and give the recording")
            for index, frame in enumerate(iter(source.read, None)):
                if index % self.every == 0:
                    yield centre(frame.image, size) if self.crop else frame.image


def centre(image: Image, size: tuple[int, int]) -> Image:
    """Return the largest part of a picture, [H, W, C], around its centre with the shape of ``size`` (width, height)."""
    (height, width), (w, h) = image.shape[:2], size
    scale = min(width / w, height / h)
    w, h = max(1, round(scale * w)), max(1, round(scale * h))
    left, top = (width - w) // 2, (height - h) // 2
    return image[top : top + h, left : left + w]


def find_layout(name: str) -> Layout:
    """Return the layout of a name.

    Raises:
        OptionError: there is no such layout.
    """
    if name not in LAYOUTS:
        raise OptionError(f"no layout {name!r}: there are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def find_in_layout(folder: Path, name: str, *, test: bool) -> list[Clip]:
    """Return the clips for training, or for tests, of a data set, sorted by path.

    Raises:
        OptionError: there is no such layout.
        SourceError: the folder cannot be listed, or holds no such clip.
    """
    layout = find_layout(name)
    part = layout.test if test else layout.train
    if not folder.is_dir():
        raise SourceError(f"{redact(str(folder))} is not a folder: give the folder of {name}")
    found: dict[str, Clip] = {}
    count = 0
    for path in sorted(_walk(folder)):
        count += 1
        # The folder's own name counts: somebody may give one action, or one set.
        if matched := part.clips.fullmatch(path.relative_to(folder.absolute().parent).as_posix()):
            place = path.relative_to(folder.absolute()).as_posix()
            found.setdefault(matched.groupdict().get("same") or place, Clip(place, path, part.every, layout.crop))
    if not found:
        use = "test" if test else "train"
        raise SourceError(
            f"no clip to {use} with in {redact(str(folder))}: none of the {count} clips there has a name such as "
            f"{part.example} (move them, or leave out the layout)"
        )
    return list(found.values())


def _walk(folder: Path) -> Iterator[Path]:
    """Yield every video and every folder of images in a folder and below."""

    def fail(error: OSError) -> None:
        raise SourceError(f"cannot list {redact(str(error.filename))}: {error.strerror} (check its permissions)")

    for place, folders, files in os.walk(folder.absolute(), onerror=fail):
        here = Path(place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (here / name for name in files if Path(name).suffix.lower() in video.SUFFIXES)
        if images_among(map(here.joinpath, files[:_LOOKED])):
            yield here


_LOOKED = 50  # files of a folder to look at: a clip of a hundred thousand images need not be listed in full
