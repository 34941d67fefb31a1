"""The manifest: what an artifact says of itself, kept in the metadata of its ONNX file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from framecast.errors import ArtifactError
from framecast.parsing import decode

KEY = "framecast"  # of the ONNX metadata entry
BEFORE = "framecast.before"  # the same entry in the half that runs before the frame: the other half's manifest
LARGEST_SUM = 32_767  # of two products, that fits into 16 bits
DOMAIN = "framecast"  # of our operators in the graph
FORMAT = 1
_CHANNELS: Mapping[str, int | None] = {"BGR": 3, "RGB": 3, "GRAY": 1, "NONE": None}  # orders, and how many there are
# Bounds of what a manifest may ask for: a damaged or hostile one must cost neither time nor memory. Of our
# configurations, stau-town has the most slots (160), stip-4k the most elements (51 million, half in the prediction).
MAX_CHARACTERS = 1 << 20  # of the JSON
MAX_DEPTH = 16  # of objects and arrays in one another
MAX_SLOTS = 4096  # of all histories together
MAX_ELEMENTS = 1 << 31  # float32 values of the state and of a prediction together: 8 GiB
_Whole = Annotated[int, Meta(ge=1, le=1 << 28)]
_Count = Annotated[int, Meta(ge=0, le=1 << 48)]
_Steps = Annotated[int, Meta(ge=0, le=MAX_SLOTS)]
_Level = Annotated[float, Meta(ge=-1e9, le=1e9)]  # finite, that is
_Shape = Annotated[tuple[_Whole, ...], Meta(max_length=8)]
Seconds = Annotated[float, Meta(gt=0, le=1e6)]
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # would break a message's line, or drive a terminal
_TOGETHER = "put the one beside it that was made with it, or make both with 'framecast split'"


@dataclass(frozen=True)
class StateSpec:
    """One part of the state, float32 [B, *shape], and how the graph names it.

    Its kind is ``carry``: input ``state.NAME``, read and replaced by output ``next.NAME`` every step; or ``history``: a
    ring, of which the step reads the last ``slots`` values, ``state.NAME.0`` (the newest) and on, and writes one new
    one, ``next.NAME``.
    """

    name: str
    shape: _Shape
    kind: str = "carry"
    slots: _Steps = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph's inputs."""
        if self.kind == "carry":
            return (f"state.{self.name}",)
        return tuple(f"state.{self.name}.{age}" for age in range(self.slots))

    @property
    def known(self) -> bool:
        """Whether this version knows what to do with it."""
        return (self.kind, self.slots) == ("carry", 0) or (self.kind == "history" and self.slots > 0)


@dataclass(frozen=True)
class Quality:
    """PSNR in dB on ``data``, as :mod:`framecast.runtime.score` defines it, beside that of copying the last frame."""

    data: str
    prediction: _Level
    copy_last: _Level
    clips: Mapping[str, tuple[_Level, _Level]] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Everything that a runtime needs to know of an artifact.

    Attributes:
        model: name of the network's class.
        config: name of its configuration.
        options: of the network, where they are not its defaults. Patches are cut inside the graph, in the order of
            ONNX's SpaceToDepth.
        frame: (C, H, W) that the step takes: float32, ``value_range``, ``channel_order``.
        visible: (H, W) of the picture in it, top left; the rest is black padding, never shown nor scored.
        channel_order: ``BGR``, ``RGB``, ``GRAY``, or ``NONE`` where the channels are no picture.
        outputs: K, how many frames one step predicts.
        state: the state tensors, in the order of the graph's inputs.
        warmup: steps from a reset until the state is filled.
        interval: seconds between frames in training, or None where that varied.
        parameters: number of weights.
        weights: how they came about: ``random``, or what they were trained on.
        weights_sha256: hash over all weights.
        quality: as measured at training, or None.
        licence: of the weights.
        precision: ``fp32``, or ``int8``: of the layers that are quantized (:mod:`framecast.export.quantize`).
        calibration: on what an int8 artifact was calibrated.
        pair_sum: the largest sum of two products that an int8 layer can come to, as an absolute value; None where
            that is unknown, as in artifacts older than this field. See :attr:`may_saturate`.
        precomputed: where the step is in two halves (:mod:`framecast.graph.split`), the shape, without the batch, of
            every tensor that the other half computes from the state before the frame, by the name of this graph's
            input.
    """

    model: str
    config: str
    frame: tuple[_Whole, _Whole, _Whole]
    state: Annotated[tuple[StateSpec, ...], Meta(max_length=MAX_SLOTS)]
    warmup: _Steps
    parameters: _Count
    weights: str
    weights_sha256: str
    licence: str
    outputs: Annotated[int, Meta(ge=1, le=MAX_SLOTS)] = 1
    interval: Seconds | None = None
    channel_order: str = "BGR"
    visible: tuple[_Whole, _Whole] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    value_range: tuple[_Level, _Level] = (0.0, 1.0)
    quality: Quality | None = None
    precision: str = "fp32"
    calibration: str | None = None
    pair_sum: _Count | None = None
    precomputed: Mapping[str, _Shape] = field(default_factory=dict)
    format: Annotated[int, Meta(ge=1)] = FORMAT

    @property
    def is_picture(self) -> bool:
        """Whether frames are pictures, which a camera gives and a screen shows; otherwise just channels."""
        return self.channel_order != "NONE"

    @property
    def trained(self) -> bool:
        """Whether any quality can be expected."""
        return self.weights != "random"

    @property
    def may_saturate(self) -> bool:
        """Whether its int8 layers may come out wrong on a CPU that adds two products in 16 bits."""
        return self.precision == "int8" and (self.pair_sum is None or self.pair_sum > LARGEST_SUM)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture in pixels, without padding."""
        height, width = self.visible or self.frame[1:]
        return width, height

    @property
    def slots(self) -> int:
        """How many steps back the longest history reaches."""
        return max((spec.slots for spec in self.state), default=0)

    @property
    def form(self) -> str:
        """``fp32``, or what else it is, for a message: ``int8``, ``half of a step``."""
        return "half of a step" if self.precomputed else self.precision

    def to_json(self) -> str:
        """One JSON object; raises ValueError where a number in it is not finite (msgspec would write null)."""
        return json.dumps(msgspec.to_builtins(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read what :meth:`to_json` wrote, here or in a newer version that added fields: those are passed over.

        Raises:
            ArtifactError: it is no manifest, one of a newer format, or one that asks for more than its bounds.
        """
        try:
            # By itself, and first: in a newer format all else may be otherwise.
            if (newer := decode(text, _Format, MAX_CHARACTERS).format) > FORMAT:
                raise ArtifactError(
                    f"its manifest has format {newer}, this framecast reads up to {FORMAT}: update framecast"
                )
            manifest = decode(text, cls, MAX_CHARACTERS)
            manifest._check()
        except ValueError as error:
            raise ArtifactError(f"its manifest cannot be read ({error}): export it again") from error
        return manifest

    def _check(self) -> None:
        known = _CHANNELS.get(self.channel_order, 0)
        fits = known in (None, self.frame[0])
        if not fits or not all(v <= f for v, f in zip(self.visible or (1, 1), self.frame[1:], strict=True)):
            raise ArtifactError("its manifest gives no usable frame shape or channel order: export it again")
        if not all(s.known for s in self.state) or not self.value_range[0] < self.value_range[1]:
            raise ArtifactError(
                "its manifest names a kind of state or a value range that is not known: update framecast"
            )
        texts = [*_texts(self.options)]  # first: only these can be nested too deeply for what follows
        if any(_CONTROL.search(words) for words in (*texts, *_texts(msgspec.to_builtins(self)))):
            raise ValueError("a text in it has control characters")
        if sum(spec.slots for spec in self.state) > MAX_SLOTS:
            raise ValueError(f"its histories have more than {MAX_SLOTS} slots")
        sizes = [math.prod(spec.shape) * max(spec.slots, 1) for spec in self.state]
        sizes += [self.outputs * math.prod(self.frame), *map(math.prod, self.precomputed.values())]
        if sum(sizes) > MAX_ELEMENTS:
            raise ValueError(f"its tensors have more than {MAX_ELEMENTS} elements")
        names = ["frame", *self.precomputed, *(name for spec in self.state for name in spec.inputs)]
        if len(set(names)) < len(names):
            raise ValueError("two of its inputs have one name")


@dataclass(frozen=True)
class _Format:
    """What is read before all else."""

    format: Annotated[int, Meta(ge=1)]


def read_metadata(path: Path, metadata: Mapping[str, str | bytes]) -> Manifest:
    """The manifest of an artifact, from its file's metadata: the one way in, however the file was opened.

    Args:
        path: of the file, for messages.
        metadata: of the file, by key; bytes where they are not UTF-8.

    Raises:
        ArtifactError: it has none, or one that cannot be used.
    """
    if KEY not in metadata:
        raise nameless(path, metadata)
    try:
        return Manifest.from_json(metadata[KEY])
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def before_half(artifact: Path) -> Path:
    """Where the half of a step lies that runs before the frame, for the artifact that holds the rest."""
    return artifact.with_suffix(f".before{artifact.suffix}")


def beside(artifact: Path) -> Path:
    """The other half of an artifact in two halves.

    Raises:
        ArtifactError: it is not there.
    """
    path = before_half(artifact)
    if not path.exists():
        raise ArtifactError(f"{artifact} is half of a step, and {path.name} is not there: {_TOGETHER}")
    return path


def check_halves(artifact: Path, metadata: Mapping[str, str | bytes], of_other: Mapping[str, str | bytes]) -> None:
    """Two halves must have been made together, as the metadata of both files tell.

    Raises:
        ArtifactError: they were not.
    """
    if of_other.get(BEFORE) != metadata[KEY]:
        raise ArtifactError(f"{before_half(artifact)} is not the other half of {artifact.name}: {_TOGETHER}")


def nameless(path: Path, metadata: Mapping[str, str | bytes]) -> ArtifactError:
    """What is wrong with a graph whose file has no manifest."""
    if BEFORE in metadata:
        name = path.with_suffix("").with_suffix(path.suffix).name
        named = f" ({name})" if before_half(path.with_name(name)) == path else ""
        return ArtifactError(
            f"{path} is the half of a step that runs before the frame: give the artifact that lies beside it{named}"
        )
    return ArtifactError(f"{path} has no framecast manifest: make artifacts with 'framecast export'")


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Every text in what JSON gives, names included; raises ValueError past ``MAX_DEPTH`` objects or arrays."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(value, dict):
            yield from value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part, depth + 1)
