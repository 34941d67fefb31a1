"""The manifest: what an artifact says of itself, kept in the metadata of its ONNX file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from framecast.errors import ArtifactError

KEY = "framecast"  # of the ONNX metadata entry
FORMAT = 1


@dataclass(frozen=True)
class StateSpec:
    """One state tensor, float32 [B, *shape]: the graph's input ``state.NAME`` and output ``next.NAME``.

    Its kind is ``carry``: read, and replaced every step.
    """

    name: str
    shape: tuple[int, ...]
    kind: str = "carry"


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
        frame: (C, H, W) that the step takes: float32, ``value_range``, ``channel_order``.
        outputs: K, how many frames one step predicts.
        state: the state tensors, in the order of the graph's inputs.
        warmup: steps from a reset until the state is filled.
        interval: seconds between frames in training, or None where that varied.
        parameters: number of weights.
        weights: how they came about: ``random``, or what they were trained on.
        weights_sha256: hash over all weights.
        quality: as measured at training, or None.
        licence: of the weights.
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
    value_range: tuple[float, float] = (0.0, 1.0)
    quality: Quality | None = None
    format: int = FORMAT

    @property
    def trained(self) -> bool:
        """Whether any quality can be expected."""
        return self.weights != "random"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.frame[2], self.frame[1]

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
            raw["state"] = tuple(StateSpec(s["name"], tuple(s["shape"]), s["kind"]) for s in raw["state"])
            raw["frame"] = tuple(int(v) for v in raw["frame"])
            raw["value_range"] = tuple(raw["value_range"])
            if raw["quality"] is not None:
                raw["quality"] = Quality(**raw["quality"])
            manifest = cls(**raw)
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"its manifest cannot be read ({error!r}): export it again") from error
        if len(manifest.frame) != 3 or min(manifest.frame) < 1 or manifest.channel_order not in ("BGR", "RGB"):
            raise ArtifactError("its manifest gives no usable frame shape or channel order: export it again")
        if any(s.kind != "carry" for s in manifest.state) or not manifest.value_range[0] < manifest.value_range[1]:
            raise ArtifactError(
                "its manifest names a kind of state or a value range that is not known: update framecast"
            )
        return manifest
