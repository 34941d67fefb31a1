"""The manifest: what an artifact says of itself, kept in the metadata of its ONNX file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framecast.errors import ArtifactError

LARGEST_SUM = 32_767  # of two products, that fits into 16 bits
KEY = "framecast"  # of the ONNX metadata entry
PREPARES = "framecast.prepares"  # of that in the half of a step that runs before the frame: the other's manifest
DOMAIN = "framecast"  # of our operators in the graph
FORMAT = 1
_CHANNELS: Mapping[str, int | None] = {"BGR": 3, "RGB": 3, "GRAY": 1, "NONE": None}  # orders, and how many there are
_TOGETHER = "put the one beside it that was made with it, or make both with 'framecast prepare'"


@dataclass(frozen=True)
class StateSpec:
    """One part of the state, float32 [B, *shape], and how the graph names it.

    Its kind is ``carry``: input ``state.NAME``, read and replaced by output ``next.NAME`` every step; or ``history``: a
    ring, of which the step reads the last ``slots`` values, ``state.NAME.0`` (the newest) and on, and writes one new
    one, ``next.NAME``.
    """

    name: str
    shape: tuple[int, ...]
    kind: str = "carry"
    slots: int = 0

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
    prediction: float
    copy_last: float
    clips: Mapping[str, tuple[float, float]] = field(default_factory=dict)


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
        ready: where the step is in two halves (:mod:`framecast.export.prepare`), the shape without the batch of every
            tensor that the other half makes of the state beforehand, by the name of this graph's input.
    """

    model: str
    config: str
    frame: tuple[int, int, int]
    state: tuple[StateSpec, ...]
    warmup: int
    parameters: int
    weights: str
    weights_sha256: str
    licence: str
    outputs: int = 1
    interval: float | None = None
    channel_order: str = "BGR"
    visible: tuple[int, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    value_range: tuple[float, float] = (0.0, 1.0)
    quality: Quality | None = None
    precision: str = "fp32"
    calibration: str | None = None
    pair_sum: int | None = None
    ready: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def trained(self) -> bool:
        """Whether any quality can be expected."""
        return self.weights != "random"

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
        return "half of a step" if self.ready else self.precision

    @property
    def may_saturate(self) -> bool:
        """Whether its int8 layers may come out wrong on a CPU that adds two products in 16 bits."""
        return self.precision == "int8" and (self.pair_sum is None or self.pair_sum > LARGEST_SUM)

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what :meth:`to_json` wrote.

        Raises:
            ArtifactError: it is no manifest, or one of a format that this version does not know.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            if raw["format"] != FORMAT:
                raise ArtifactError(
                    f"its manifest has format {raw['format']}, this framecast reads {FORMAT}: update it"
                )
            raw["state"] = tuple(
                StateSpec(str(s["name"]), _whole(s["shape"]), str(s["kind"]), int(s.get("slots", 0)))
                for s in raw["state"]
            )
            raw["frame"] = _whole(raw["frame"])
            raw["visible"] = _whole(raw["visible"]) if raw.get("visible") else None
            low, high = map(float, raw["value_range"])
            raw["value_range"] = low, high
            raw["outputs"], raw["warmup"] = int(raw["outputs"]), int(raw["warmup"])
            raw["interval"] = None if raw["interval"] is None else float(raw["interval"])
            raw["pair_sum"] = None if raw.get("pair_sum") is None else int(raw["pair_sum"])
            raw["ready"] = {str(name): _whole(shape) for name, shape in raw.get("ready", {}).items()}
            raw["quality"] = None if raw["quality"] is None else Quality(**raw["quality"])
            manifest = cls(**raw)
            manifest._check()
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"its manifest cannot be read ({error!r}): export it again") from error
        return manifest

    def _check(self) -> None:
        known = _CHANNELS.get(str(self.channel_order), 0)
        fits = len(self.frame) == 3 and min(self.frame) > 0 and known in (None, self.frame[0]) and self.outputs > 0
        if not fits or not all(0 < v <= f for v, f in zip(self.visible or (1, 1), self.frame[1:], strict=True)):
            raise ArtifactError("its manifest gives no usable frame shape or channel order: export it again")
        if not all(s.known for s in self.state) or not self.value_range[0] < self.value_range[1]:
            raise ArtifactError(
                "its manifest names a kind of state or a value range that is not known: update framecast"
            )


def other_half(artifact: Path) -> Path:
    """Where the half of a step lies that runs before the frame, for the artifact that holds the rest."""
    return artifact.with_suffix(f".prepare{artifact.suffix}")


def beside(artifact: Path) -> Path:
    """The other half of an artifact in two halves.

    Raises:
        ArtifactError: it is not there.
    """
    path = other_half(artifact)
    if not path.exists():
        raise ArtifactError(f"{artifact} is half of a step, and {path.name} is not there: {_TOGETHER}")
    return path


def check_halves(artifact: Path, metadata: Mapping[str, str], of_other: Mapping[str, str]) -> None:
    """Two halves must have been made together, as the metadata of both files tell.

    Raises:
        ArtifactError: they were not.
    """
    if of_other.get(PREPARES) != metadata[KEY]:
        raise ArtifactError(f"{other_half(artifact)} is not the other half of {artifact.name}: {_TOGETHER}")


def nameless(path: Path, metadata: Mapping[str, str]) -> ArtifactError:
    """What is wrong with a graph whose file has no manifest."""
    if PREPARES in metadata:
        name = path.with_suffix("").with_suffix(path.suffix).name
        named = f" ({name})" if other_half(path.with_name(name)) == path else ""
        return ArtifactError(
            f"{path} is the half of a step that runs before the frame: give the artifact that lies beside it{named}"
        )
    return ArtifactError(f"{path} has no framecast manifest: make artifacts with 'framecast export'")


def _whole(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
