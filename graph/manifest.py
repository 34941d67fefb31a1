"""The manifest: an artifact's description of itself, stored in the metadata of its ONNX file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from framecast.errors import ArtifactError
from framecast.graph.contents import contents
from framecast.parsing import decode

GRAPHLESS = ".json"  # suffix of an artifact that is only a manifest: a model of motion
KEY = "framecast"  # key of the ONNX metadata entry
BEFORE = "framecast.before"  # key in the half that runs before the frame; it holds the other half's manifest
RENDER = "framecast.render"  # key in the graph that renders a model of motion; it holds the step's manifest
LARGEST_SUM = 32_767  # the largest sum of two products that fits into 16 bits
DOMAIN = "framecast"  # domain of our operators in the graph
FORMAT = 1
_CHANNELS: Mapping[str, int | None] = {"BGR": 3, "RGB": 3, "GRAY": 1, "NONE": None}  # channel orders and their sizes
# Limits on a manifest: a damaged or hostile one must not exhaust time or memory. Of our configurations, stau-town has
# the most slots (160), and stip-4k the most elements (51 million, half of them in the prediction).
MAX_CHARACTERS = 1 << 20  # length of the JSON
MAX_DEPTH = 16  # depth of nested objects and arrays
MAX_SLOTS = 4096  # slots of all histories together
MAX_ELEMENTS = 1 << 31  # float32 values of the state and a prediction together: 8 GiB
_Whole = Annotated[int, Meta(ge=1, le=1 << 28)]
_Count = Annotated[int, Meta(ge=0, le=1 << 48)]
_Steps = Annotated[int, Meta(ge=0, le=MAX_SLOTS)]
_Level = Annotated[float, Meta(ge=-1e9, le=1e9)]  # finite
_Shape = Annotated[tuple[_Whole, ...], Meta(max_length=8)]
Seconds = Annotated[float, Meta(gt=0, le=1e6)]
RENDERS = ("steps", "moments")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # these break a message's line or control a terminal
_HALVES: Mapping[str, tuple[str, str, str]] = {  # the artifact, its other half, and the command that makes both
    BEFORE: ("half of a step", "the half of a step that runs before the frame", "framecast split"),
    RENDER: ("a model of motion", "the graph that renders a model of motion", "framecast export"),
}


@dataclass(frozen=True)
class StateSpec:
    """One part of the state, float32 [B, *shape], and its names in the graph.

    There are two kinds. A ``carry`` is one tensor: each step reads input ``state.NAME`` and replaces it with output
    ``next.NAME``. A ``history`` is a ring: each step reads its last ``slots`` values, ``state.NAME.0`` (the newest) and
    so on, and writes one new value, ``next.NAME``.
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
        """Whether this version of framecast supports this kind of state."""
        return (self.kind, self.slots) == ("carry", 0) or (self.kind == "history" and self.slots > 0)


@dataclass(frozen=True)
class Quality:
    """PSNR in dB on ``data``, as in :mod:`framecast.runtime.score`, of the prediction and of copying the last frame."""

    data: str
    prediction: _Level
    copy_last: _Level
    clips: Mapping[str, tuple[_Level, _Level]] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Everything that a runtime needs to know about an artifact.

    Attributes:
        model: name of the network's class.
        config: name of its configuration.
        options: the network's options that differ from its defaults. The graph cuts patches itself, in the order of
            ONNX's SpaceToDepth.
        frame: (C, H, W) of the step's input: float32, in ``value_range`` and ``channel_order``.
        visible: (H, W) of the picture at the top left of the frame. The rest is black padding, never shown or scored.
        channel_order: ``BGR``, ``RGB``, ``GRAY``, or ``NONE`` if the channels are not a picture.
        outputs: K, the number of frames that one step predicts.
        renders: ``moments`` if the model renders any moment at the cost of one step, as a model of motion does;
            ``steps`` if it predicts whole steps. The runtime then rolls out to the two steps around a moment and blends
            their pictures linearly.
        fields: inputs of the graph that renders, besides ``ahead``: name and shape without the batch. Only for
            ``moments`` in graphs. A field with the name of a carried state tensor is that tensor; the step computes
            the others.
        state: the state tensors, in the order of the graph's inputs.
        warmup: steps after a reset until the state is full.
        interval: seconds between frames in training, or None if that varied.
        parameters: number of weights.
        weights: origin of the weights: ``random``, or the training data.
        weights_sha256: hash of all weights.
        quality: quality measured at training, or None.
        licence: licence of the weights.
        precision: ``fp32``, or ``int8`` if layers are quantized (:mod:`framecast.export.quantize`).
        stored: ``fp32``, or ``fp16`` if the weights were rounded to float16 (:mod:`framecast.graph.stored`). The step
            computes in ``precision``.
        calibration: the data on which an int8 artifact was calibrated.
        pair_sum: the largest sum of two products that an int8 layer can reach, as an absolute value. None if unknown,
            as in artifacts older than this field. See :attr:`may_saturate`.
        precomputed: the tensors that the other half computes before the frame arrives, as inputs of this graph: name
            and shape without the batch. Empty unless the step is in two halves (:mod:`framecast.graph.split`).
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
    renders: str = "steps"
    fields: Mapping[str, _Shape] = field(default_factory=dict)
    interval: Seconds | None = None
    channel_order: str = "BGR"
    visible: tuple[_Whole, _Whole] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    value_range: tuple[_Level, _Level] = (0.0, 1.0)
    quality: Quality | None = None
    precision: str = "fp32"
    stored: Literal["fp32", "fp16"] = "fp32"
    calibration: str | None = None
    pair_sum: _Count | None = None
    precomputed: Mapping[str, _Shape] = field(default_factory=dict)
    format: Annotated[int, Meta(ge=1)] = FORMAT

    @property
    def is_picture(self) -> bool:
        """Whether frames are pictures, as from a camera; otherwise they are just channels."""
        return self.channel_order != "NONE"

    @property
    def trained(self) -> bool:
        """Whether the weights are trained. Random weights predict nothing useful."""
        return self.weights != "random"

    @property
    def may_saturate(self) -> bool:
        """Whether its int8 layers may saturate on a CPU that adds two products in 16 bits."""
        return self.precision == "int8" and (self.pair_sum is None or self.pair_sum > LARGEST_SUM)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture in pixels, excluding padding."""
        height, width = self.visible or self.frame[1:]
        return width, height

    @property
    def slots(self) -> int:
        """How many steps back the longest history reaches."""
        return max((spec.slots for spec in self.state), default=0)

    @property
    def nexts(self) -> list[str]:
        """Names of the graph's outputs for the state."""
        return [f"next.{spec.name}" for spec in self.state]

    @property
    def made_fields(self) -> tuple[str, ...]:
        """The fields that the step computes in addition to the state."""
        carried = {spec.name for spec in self.state if spec.kind == "carry"}
        return tuple(name for name in self.fields if name not in carried)

    @property
    def form(self) -> str:
        """The artifact's form, for messages: ``fp32``, ``int8`` or ``half of a step``."""
        return "half of a step" if self.precomputed else self.precision

    def to_json(self) -> str:
        """One JSON object. Raises ValueError if a number is not finite; msgspec would write null."""
        return json.dumps(msgspec.to_builtins(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read what :meth:`to_json` wrote. Fields from newer versions are ignored.

        Raises:
            ArtifactError: it is not a manifest, has a newer format, or exceeds the limits.
        """
        try:
            # Read only the format at first: a newer format may change everything else.
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
        channels = _CHANNELS.get(self.channel_order, 0)
        fits = channels in (None, self.frame[0])
        if not fits or not all(v <= f for v, f in zip(self.visible or (1, 1), self.frame[1:], strict=True)):
            raise ArtifactError("its manifest has no usable frame shape or channel order: export it again")
        known = all(s.known for s in self.state) and self.renders in RENDERS
        if not known or not self.value_range[0] < self.value_range[1]:
            raise ArtifactError(
                "its manifest has an unknown kind of state or model, or an invalid value range: update framecast"
            )
        texts = [*_texts(self.options)]  # first: only the options can be nested too deeply for the next line
        if any(_CONTROL.search(words) for words in (*texts, *_texts(msgspec.to_builtins(self)))):
            raise ValueError("one of its strings has control characters")
        if sum(spec.slots for spec in self.state) > MAX_SLOTS:
            raise ValueError(f"its histories have more than {MAX_SLOTS} slots")
        sizes = [math.prod(spec.shape) * max(spec.slots, 1) for spec in self.state]
        sizes += [self.outputs * math.prod(self.frame), *map(math.prod, self.precomputed.values())]
        sizes += map(math.prod, self.fields.values())
        if sum(sizes) > MAX_ELEMENTS:
            raise ValueError(f"its tensors have more than {MAX_ELEMENTS} elements")
        names = ["frame", *self.precomputed, *(name for spec in self.state for name in spec.inputs)]
        shapes = {spec.name: spec.shape for spec in self.state if spec.kind == "carry"}
        if any(shapes.get(name, shape) != shape for name, shape in self.fields.items()):
            raise ValueError("a field and the state with the same name differ in shape")
        if len(set(names)) < len(names):
            raise ValueError("two of its inputs have the same name")


@dataclass(frozen=True)
class _Format:
    """The field to read before all others."""

    format: Annotated[int, Meta(ge=1)]


def read_metadata(path: Path, metadata: Mapping[str, str | bytes]) -> Manifest:
    """Read an artifact's manifest from its file's metadata. Every reader of artifacts goes through here.

    Args:
        path: the file's path, for messages.
        metadata: the file's metadata, by key. A value is bytes if it is not UTF-8.

    Raises:
        ArtifactError: there is no manifest, or it cannot be used.
    """
    if KEY not in metadata:
        raise nameless(path, metadata)
    try:
        return Manifest.from_json(metadata[KEY])
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def read_json(path: Path) -> Manifest:
    """Read the manifest of a model that needs no graph, from its file; see :data:`GRAPHLESS`.

    Raises:
        ArtifactError: it cannot be read.
    """
    text = contents(path, 4 * MAX_CHARACTERS)  # up to 4 bytes each
    try:
        return Manifest.from_json(text)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def other_half(artifact: Path, key: str = BEFORE) -> Path:
    """Make the path of an artifact's other half, ``BEFORE`` or ``RENDER``."""
    return artifact.with_suffix(f".{key.rpartition('.')[2]}{artifact.suffix}")


def beside(artifact: Path, key: str = BEFORE) -> Path:
    """Find the file of an artifact's other half.

    Raises:
        ArtifactError: there is no such file.
    """
    path = other_half(artifact, key)
    if not path.exists():
        raise ArtifactError(f"{artifact} is {_HALVES[key][0]}, but {path.name} is missing: {_together(key)}")
    return path


def check_halves(
    artifact: Path, metadata: Mapping[str, str | bytes], of_other: Mapping[str, str | bytes], key: str = BEFORE
) -> None:
    """Check, by the metadata of both files, that two halves were made together.

    Raises:
        ArtifactError: they were not.
    """
    if of_other.get(key) != metadata[KEY]:
        raise ArtifactError(f"{other_half(artifact, key)} is not the other half of {artifact.name}: {_together(key)}")


def nameless(path: Path, metadata: Mapping[str, str | bytes]) -> ArtifactError:
    """Make the error for a file that is not an artifact."""
    for key, (_, what, _) in _HALVES.items():
        if key in metadata:
            name = path.with_suffix("").with_suffix(path.suffix).name
            named = f" ({name})" if other_half(path.with_name(name), key) == path else ""
            return ArtifactError(f"{path} is {what}: give the artifact beside it{named}")
    return ArtifactError(f"{path} has no framecast manifest: make artifacts with 'framecast export'")


def _together(key: str) -> str:
    return f"put its matching half beside it, or make both again with '{_HALVES[key][2]}'"


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield every string in a JSON value, including names. Raises ValueError if it is nested beyond ``MAX_DEPTH``."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(value, dict):
            yield from value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part, depth + 1)
