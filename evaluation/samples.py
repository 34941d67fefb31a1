"""Test sequences: ``.npy`` files, Moving MNIST of a seed, TaxiBJ, clips cut into pieces, and data sets by layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image, taxibj
from framecast.camera.layouts import Clip, find_in_layout
from framecast.errors import OptionError, SourceError, first_line
from framecast.evaluation.made import is_made, open_made
from framecast.evaluation.results import not_for_clips
from framecast.graph.manifest import Manifest
from framecast.redact import redact
from framecast.runtime.convert import to_model_size

GIVEN = 10  # frames to give from the start of each sequence

Frames = NDArray[np.uint8 | np.float32]  # [T, h, w, C]: pictures; or traffic, values from 0 to 1


@dataclass(frozen=True, eq=False)
class Samples:
    """Test sequences with one row of results.

    Attributes:
        name: short name for tables.
        source: name of the source, without credentials.
        about: their origin, for people.
        shape: [T, N, h, w, C] of N sequences that are there already; empty for clips.
        at: returns one of them, [T, h, w, C].
        clips: clips, each to be cut into consecutive sequences that do not overlap.
        given: number of frames to give, unless the user chooses it.
        pictures: whether the frames are pictures rather than traffic.
    """

    name: str
    source: str
    about: str
    shape: tuple[int, ...] = ()
    at: Callable[[int], Frames] | None = None
    clips: Sequence[Clip] = ()
    given: int = GIVEN
    pictures: bool = True

    def parts(
        self, manifest: Manifest, length: int, limit: int | None
    ) -> Iterator[tuple[str, float, Iterator[Frames]]]:
        """Yield a name, a share of the work, and sequences of ``length`` frames, [length, h, w, C].

        They are uint8, C = 1 or 3 (BGR); of traffic, floats in 0…1. Frames of clips are resized to the network's size.

        Args:
            manifest: manifest of the network that will see them.
            length: frames of a sequence.
            limit: use up to this many sequences of the file, or of each clip.
        """
        if (at := self.at) is not None:
            yield self.name, 1.0, (np.ascontiguousarray(at(n)[:length]) for n in range(self.count(limit)))
        for clip in self.clips:
            yield clip.name, 1 / len(self.clips), islice(_cut(clip, manifest, length), limit)

    def count(self, limit: int | None) -> int:
        """Return the number of sequences of a file, up to ``limit``; 0 for clips, which are not decoded yet."""
        held = self.shape[1] if self.shape else 0
        return held if limit is None else min(held, limit)


def is_sequences(place: str) -> bool:
    """Return whether a place holds test sequences rather than a clip."""
    return place.lower().endswith((".npy", taxibj.SUFFIX)) or is_made(place)


def open_samples(place: str, layout: str | None) -> Samples:
    """Open a file of sequences, ``mnist://``, TaxiBJ or a clip; or with ``layout``, a data set's clips for tests.

    Raises:
        SourceError: a file cannot be read or has another layout, a folder holds no such clip, or an option of
            ``mnist://`` is unknown or out of range.
        OptionError: there is no such layout.
    """
    name, source = Path(place).stem or place, redact(place)
    if layout is not None:
        clips = find_in_layout(Path(place.removeprefix("file://")), layout, test=True)
        return Samples(name, source, f"{len(clips)} clips of {source}", clips=clips)
    if is_made(place):
        made = open_made(place)
        return Samples(made.name, source, made.about, (*made.shape, 1), lambda n: made[:, n][..., None])
    if taxibj.is_taxibj(path := Path(place.removeprefix("file://"))):
        split = taxibj.open_split(path, test=True)
        flows = split.read()
        about = f"TaxiBJ's sequences for tests in {source}"
        shape = (flows.shape[1], flows.shape[0], *flows.shape[2:])
        return Samples(name, source, about, shape, lambda n: flows[n], given=split.given, pictures=False)
    if is_sequences(place):
        array = open_sequences(place)
        return Samples(name, source, source, array.shape, lambda n: array[:, n])
    return Samples(source if "://" in place or "*" in place else name, source, source, clips=[Clip(source, place)])


def open_sequences(place: str) -> Image:
    """Open a ``.npy`` file of sequences as uint8 [T, N, H, W, C], C = 1 or 3 (BGR).

    Grey files may lack the last axis: this is the layout of Moving MNIST's ``mnist_test_seq.npy``. The file is
    memory-mapped, not read.

    Raises:
        SourceError: the file cannot be read, or has another layout.
    """
    path = Path(place.removeprefix("file://"))
    try:
        with np.errstate(over="ignore"):  # a damaged shape: its size overflows, and numpy then refuses it
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # damaged headers also raise tokenize's errors, and RecursionError
        reason = getattr(error, "strerror", None) or first_line(error)
        raise SourceError(f"cannot read {redact(place)} as sequences: {reason} (make or download it again)") from error
    if isinstance(array, np.ndarray) and array.dtype == np.uint8 and 0 not in array.shape:
        if array.ndim == 4:
            return array[..., None]
        if array.ndim == 5 and array.shape[4] in (1, 3):
            return array
    got = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else "an archive"
    wanted = "uint8 [T, N, H, W], like mnist_test_seq.npy, or [T, N, H, W, 3] in the order BGR"
    raise SourceError(f"{redact(place)} must hold {wanted}, not {got}")


def check_fits(name: str, manifest: Manifest, samples: Samples) -> None:
    """Check that a network can see these sequences.

    Raises:
        OptionError: it is a model of motion, or it takes frames of another kind or size.
    """
    width, height = manifest.size
    if manifest.renders != "steps":
        raise OptionError(
            f"{name} is a model of motion, which has no steps to count: evaluate it on clips, without --given"
        )
    if not samples.shape:
        if not manifest.is_picture:
            raise not_for_clips(name)
        return
    h, w, channels = samples.shape[2:]
    if (width, height, manifest.frame[0]) != (w, h, channels) or manifest.is_picture != samples.pictures:
        order = manifest.channel_order if manifest.is_picture else f"with {manifest.frame[0]} channels of traffic"
        kind = ("GRAY" if channels == 1 else "BGR") if samples.pictures else f"with {channels} channels of traffic"
        raise OptionError(
            f"{name} takes {width}×{height} {order}, {samples.source} holds {w}×{h} {kind}: sequences are not "
            "resized; use a model of that size"
        )


def _cut(clip: Clip, manifest: Manifest, length: int) -> Iterator[Image]:
    """Yield the sequences of a clip.

    Raises:
        SourceError: it cannot be read, or is too short for one sequence.
        OptionError: it is a camera.
    """
    frames: list[Image] = []
    cut = 0
    for image in clip.frames(manifest.size):
        seen = to_model_size(image, manifest)
        frames.append(seen[..., :1] if manifest.channel_order == "GRAY" else seen)
        if len(frames) == length:
            yield np.stack(frames)
            frames, cut = [], cut + 1
    if not cut:
        raise SourceError(f"it has {len(frames)} frame{'s' * (len(frames) != 1)}, but a sequence has {length}")
