"""Training data: folders of videos, Moving MNIST, and TaxiBJ. They give episodes that depend only on a seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image, taxibj
from framecast.camera.layouts import Clip, find_in_layout
from framecast.camera.moving_mnist import MovingMNIST, read_idx
from framecast.errors import OptionError, SourceError
from framecast.files import sha256
from framecast.runtime.resize import resize
from framecast.training.data import Augmentation, decode, is_video, videos
from framecast.training.recipes import LONGEST, SHORTEST
from framecast.training.view import Frame, Picture, View

DETAIL = 2.25  # source pixels per pixel of the network's frame, so that crops keep detail
DRIFT = 120  # frames of a Moving MNIST episode in a stream


class Episode(ABC):
    """Consecutive frames of one scene."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def frame(self, age: int) -> Frame:
        """Return the ``age``-th frame, [H, W, C]; it is the same on every call."""


@dataclass(frozen=True, eq=False)
class _Stretch(Episode):
    """A stretch of a video with one augmentation, or with none."""

    clip: Image  # [N, H, W, 3]
    order: NDArray[np.int64]
    lens: Augmentation | None
    view: View
    seed: Sequence[int]

    def __len__(self) -> int:
        return len(self.order)

    def frame(self, age: int) -> Picture:
        if self.lens is None:
            return self.view.see(resize(self.clip[self.order[age]], self.view.size))
        rng = np.random.default_rng([*self.seed, age + 1])  # for the noise; the episode's own generator is [*seed, 0]
        return self.view.see(self.lens.apply(self.clip[self.order[age]], age, self.view.size, rng))


@dataclass(frozen=True, eq=False)
class Videos:
    """One video, or a folder of videos. Episodes draw clips uniformly.

    Attributes:
        name: name of the video or folder.
        view: how the network sees the frames.
        files: SHA-256 and number of frames of each file, by name.
        skipped: why a file was skipped, by its name.
        clips: decoded frames of each file, uint8 [N, H, W, 3] BGR.
        augment: whether episodes are augmented.
    """

    name: str
    view: View
    files: Mapping[str, Mapping[str, Any]]
    skipped: Mapping[str, str]
    clips: Sequence[Image] = field(repr=False)
    augment: bool = True

    @property
    def kind(self) -> str:
        """The kind of data in words, with its size."""
        return f"{len(self.clips)} clip{'s' * (len(self.clips) != 1)}"

    def parts(self) -> dict[str, str]:
        """Return the SHA-256 of each file by its name: two footages must not share any."""
        return {name: facts["sha256"] for name, facts in self.files.items()}

    def episode(self, seed: Sequence[int], length: int | None) -> Episode:
        """Return the episode of a seed of up to three numbers, with ``length`` frames.

        If augmented, it runs forwards or backwards, at one to three frames per step. If no length is given, it has up
        to ``LONGEST``.
        """
        rng = np.random.default_rng(seed)
        clip = self.clips[int(rng.integers(len(self.clips)))]
        stride = int(rng.choice([1, 1, 1, 2, 3])) if self.augment else 1
        if len(clip) < (length or 2) * stride:
            stride = 1
        order = np.arange(len(clip))[::stride]
        if self.augment and rng.random() < 0.4:
            order = order[::-1]
        begin = rng.integers(max(1, len(order) - (length or SHORTEST) + 1))
        order = order[begin:][: length or rng.integers(SHORTEST, LONGEST + 1)]
        (height, width), (w, h) = clip.shape[1:3], self.view.size
        lens = Augmentation.draw(rng, w / h * height / width) if self.augment else None
        return _Stretch(clip, order, lens, self.view, seed)

    def scored(self, clip: Image) -> Iterator[Picture]:
        """Return a clip's frames as the network sees them, for scoring."""
        return (self.view.see(resize(frame, self.view.size)) for frame in clip)


@dataclass(frozen=True, eq=False)
class _Sequence(Episode):
    frames: Frame  # [T, H, W, C]

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, age: int) -> Frame:
        frame: Frame = self.frames[age]
        return frame


@dataclass(frozen=True, eq=False)
class Digits:
    """Moving MNIST, generated on demand.

    Attributes:
        name: name of the IDX file.
        view: how the network sees the frames.
        files: the file's SHA-256 and number of digits, by its name.
        digits: uint8 [N, 28, 28].
        skipped: always empty.
    """

    name: str
    view: View
    files: Mapping[str, Mapping[str, Any]]
    digits: Picture = field(repr=False)
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of data in words, with its size."""
        return f"Moving MNIST from {len(self.digits)} digits"

    def parts(self) -> dict[str, str]:
        """Return the SHA-256 of the digits, gzipped or not, by the file's name."""
        return {self.name: sha256(self.digits.tobytes())}

    def episode(self, seed: Sequence[int], length: int | None) -> Episode:
        """Return the episode of a seed, with ``length`` frames (default: 120)."""
        source = MovingMNIST(self.digits, size=self.view.shape[1], length=length or DRIFT)
        return _Sequence(source.sequence(np.random.default_rng(seed))[..., None])


@dataclass(frozen=True, eq=False)
class Flows:
    """TaxiBJ: its sequences for training, or those for tests. Episodes draw them uniformly.

    Attributes:
        name: name of the file.
        view: how the network sees the frames.
        files: the file's SHA-256 and number of these sequences, by its name.
        array: name of the array with their given frames, ``X_train`` or ``X_test``.
        sequences: [N, T, H, W, C].
        skipped: always empty.
    """

    name: str
    view: View
    files: Mapping[str, Mapping[str, Any]]
    array: str
    sequences: taxibj.Flows = field(repr=False)
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of data in words, with its size."""
        return f"{len(self.sequences)} sequences of TaxiBJ"

    def parts(self) -> dict[str, str]:
        """Return the SHA-256 of each sequence by its place: one file holds both those for training and for tests."""
        return {f"{self.array}[{i}] of {self.name}": sha256(one.tobytes()) for i, one in enumerate(self.sequences)}

    def episode(self, seed: Sequence[int], length: int | None) -> Episode:
        """Return the sequence of a seed: its first ``length`` frames (default: all)."""
        drawn = np.random.default_rng(seed).integers(len(self.sequences))
        return _Sequence(self.sequences[drawn][:length])


Footage = Videos | Digits | Flows


def open_footage(
    path: Path,
    view: View,
    cache: Path,
    shortest: int,
    say: Callable[[str], None],
    *,
    scored: bool,
    layout: str | None = None,
    augment: bool = True,
) -> Footage:
    """Open a video, a folder of videos, an IDX file of digits for Moving MNIST, or TaxiBJ's ``dataset.npz``.

    Args:
        path: the folder or file.
        view: how the network sees the frames.
        cache: folder for decoded frames.
        shortest: minimum frames of a clip; shorter clips, and videos that cannot be decoded, are skipped.
        say: called with the name of each skipped video and the reason.
        scored: keep frames at their own size, so that scores equal those of a live run.
        layout: the folder holds a data set in this layout; ``scored`` selects its clips for tests, otherwise those for
            training. Of TaxiBJ it selects the sequences likewise.
        augment: whether episodes of videos are augmented.

    Raises:
        SourceError: there is no usable video, or the file is damaged.
        OptionError: the network cannot see such data, decoded frames would be among the videos, or there is no such
            layout.
        SinkError: the decoded frames cannot be written.
    """
    check_footage(path, view, cache, scored=scored, layout=layout)
    if view.order == "NONE":
        split = taxibj.open_split(path, test=scored)
        facts = {"sha256": sha256(path), "sequences": split.shape[0]}
        return Flows(path.name, view, {path.name: facts}, split.arrays[0].name, split.read())
    if layout is None and path.is_file() and not is_video(path):
        digits = read_idx(path)
        return Digits(path.name, view, {path.name: {"sha256": sha256(path), "digits": len(digits)}}, digits)
    found = _clips(path, layout, scored)
    enough = None if scored else (round(DETAIL * view.size[0]), round(DETAIL * view.size[1]))
    clips: list[Image] = []
    files: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for one in found:
        clip = _decoded(one, cache, shortest, view.size, enough)
        if isinstance(clip, str):
            skipped[one.name] = clip
        else:
            clips.append(clip)
            hashes = [sha256(file) for file in one.files]
            whole = hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode())
            files[one.name] = {"sha256": whole, "frames": len(clip)}
    for name, reason in skipped.items():
        say(f"skipped {name}: {reason}")
    if not clips:
        raise SourceError(
            f"no usable video in {path} ({len(skipped)} skipped): give clips of {shortest} frames or more"
        )
    if skipped:
        say(f"{len(skipped)} of {len(found)} videos were skipped")
    return Videos(path.name, view, files, skipped, clips, augment)


def _clips(path: Path, layout: str | None, scored: bool) -> list[Clip]:
    """Return the clips of a data set, or the videos of a folder."""
    if layout is not None:
        return find_in_layout(path, layout, test=scored)
    return [Clip(video.name, video) for video in videos(path)]


def check_footage(
    path: Path, view: View, cache: Path, *, scored: bool, layout: str | None = None, frames: int = 0
) -> None:
    """Check footage before decoding any of it. For the arguments and errors, see :func:`open_footage`.

    TaxiBJ's sequences need at least ``frames`` frames.
    """
    if view.order == "NONE":
        _check_flows(path, view, scored=scored, layout=layout, frames=frames)
    elif layout is not None:
        find_in_layout(path, layout, test=scored)
    elif taxibj.is_taxibj(path):
        raise OptionError(
            f"{path} holds traffic and no pictures, but this network takes {_shape(view)} pictures: give videos or "
            "digits, or train tau-taxibj"
        )
    elif path.is_file() and not is_video(path):
        channels, height, width = view.shape
        if channels != 1 or height != width or view.visible != (height, width):
            raise OptionError(
                f"Moving MNIST is grey and square, but this network takes {_shape(view)}: give a video or a folder of "
                "videos"
            )
    elif not is_video(path) and (not path.is_dir() or not videos(path)):
        raise SourceError(f"no videos in {path}: give a video, a folder of videos, or an IDX file of MNIST's digits")
    if cache.resolve() == path.resolve():
        raise OptionError(f"cannot keep decoded frames in {path}: the videos are there; choose another --cache")


def _check_flows(path: Path, view: View, *, scored: bool, layout: str | None, frames: int) -> None:
    if layout is not None or not taxibj.is_taxibj(path):
        raise OptionError(
            f"this network takes {view.shape[0]} channels that are not a picture: give TaxiBJ's dataset.npz"
            + (" without --layout" if layout is not None else f", not {path}")
        )
    split = taxibj.open_split(path, test=scored)
    _, length, height, width, channels = split.shape
    if (channels, height, width) != view.shape:
        raise OptionError(
            f"{path} holds {width}×{height}×{channels}, but this network takes {_shape(view)}: choose --set height, "
            "width and channels to fit"
        )
    if length < frames:
        raise OptionError(
            f"the sequences of {path} have {length} frames, but this recipe takes {frames}: choose another --recipe"
        )


def _shape(view: View) -> str:
    channels, height, width = view.shape
    return f"{width}×{height}×{channels}"


def _decoded(
    one: Clip, cache: Path, shortest: int, size: tuple[int, int], enough: tuple[int, int] | None
) -> Image | str:
    """Return a clip's frames, or why they are not usable."""
    try:
        clip = decode(one, cache, size, enough)
    except SourceError as error:
        return str(error)
    if len(clip) < shortest:
        return f"it has {len(clip)} frame{'s' * (len(clip) != 1)}, but {shortest} are needed"
    return clip
