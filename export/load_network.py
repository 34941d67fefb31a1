"""Loads a network from a file: weights as safetensors, or an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from onnx import numpy_helper
from safetensors import SafetensorError, safe_open
from torch import Tensor

from framecast.errors import ArtifactError, OptionError, first_line, one_line
from framecast.export.onnx import describe, weights_hash
from framecast.graph.artifact import manifest_of, read
from framecast.graph.manifest import Manifest, Quality, Seconds
from framecast.models.configs import CONFIGS, MOTION, build
from framecast.models.step import StepModel
from framecast.parsing import convert, decode


@dataclass(frozen=True)
class _Metadata:
    """The metadata of a file of weights; see :class:`Manifest`. Every field may be missing."""

    config: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    licence: str = "unknown"
    interval: Seconds | None = None
    quality: Quality | None = None


def load_network(path: Path) -> tuple[StepModel, Manifest]:
    """Load a network from a ``.safetensors`` file that names its configuration, or from an artifact with all weights.

    An export may merge equal weights, fold some into others, and change the layout of some. Then the artifact is not
    enough. The hash in the manifest shows whether this happened.

    Raises:
        ArtifactError: the file cannot be read, names no configuration, or does not hold the original weights.
        OptionError: no network can be built with its options.
    """
    if path.suffix == ".safetensors":
        return load_trained(None, path)
    proto = read(path)
    manifest = manifest_of(proto)
    if manifest.form != "fp32":
        raise ArtifactError(f"cannot load a network from {path}: it is {manifest.form}; use the whole float32 artifact")
    if manifest.stored != "fp32":
        raise ArtifactError(
            f"cannot load a network from {path}: its weights are stored as {manifest.stored}; use the .safetensors "
            "file that it was made from"
        )
    if manifest.config not in {*CONFIGS, *MOTION}:
        raise ArtifactError(f"{path}: this version has no configuration {manifest.config!r}: update framecast")
    held = {i.name.removeprefix("model."): i for i in proto.graph.initializer}
    expected = _outline(manifest.config, manifest.options)
    tensors = {
        name: torch.from_numpy(numpy_helper.to_array(held[name]).copy())
        for name, value in expected.items()
        if name in held and tuple(held[name].dims) == value.shape
    }
    if tensors.keys() == expected.keys():
        model = build(manifest.config, manifest.options).eval()
        model.load_state_dict(tensors)
        if weights_hash(model) == manifest.weights_sha256:
            return model, manifest
    raise ArtifactError(
        f"cannot load a network from {path}: its export merged or changed weights; use the .safetensors file that it "
        "was made from"
    )


def _outline(config: str, options: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The weights that a network has, without their memory: a file's options may ask for any amount.

    Raises:
        OptionError: no network can be built with these options.
    """
    with torch.device("meta"):
        return build(config, options).state_dict()


def load_trained(
    config: str | None, path: Path, changes: Mapping[str, Any] | None = None
) -> tuple[StepModel, Manifest]:
    """Load a configuration's network with weights from safetensors. The file's metadata goes into its manifest.

    Every weight must match.

    Args:
        config: name of the configuration; None for the one that the file names.
        path: file of weights; the options in its metadata apply.
        changes: further options.

    Raises:
        ArtifactError: the file is not safetensors, or belongs to another configuration.
        OptionError: no network can be built with these options, or they contradict those in the file.
    """
    if not path.is_file():
        raise ArtifactError(f"no such weights file: {path} (check the path; it ends in .safetensors)")
    try:
        with safe_open(str(path), "pt") as file:
            texts: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"{path} cannot be read as safetensors ({first_line(error)}): "
            "convert a released checkpoint with 'framecast import-checkpoint' first"
        ) from error
    metadata = _metadata(path, texts)
    if config is None and metadata.config not in CONFIGS:
        raise ArtifactError(f"{path} does not name the configuration of its weights: export it to an artifact")
    config = config or str(metadata.config)
    if metadata.config not in (None, config):
        raise ArtifactError(f"{path} holds weights of {one_line(metadata.config)}, not of {config}: export that")
    made = metadata.options
    for option, value in (changes or {}).items():
        if made.get(option, value) != value:
            was, wanted = (str(v).lower() for v in (made[option], value))
            raise OptionError(f"{path} was made with {option}={was}: leave out --set {option}={wanted}")
    options = {**made, **(changes or {})}
    expected = {name: value.shape for name, value in _outline(config, options).items()}
    for name in sorted(expected.keys() | tensors.keys()):
        found, want = tensors.get(name), expected.get(name)
        if found is None or want is None or found.shape != want:
            what = (
                "missing" if found is None else "unknown" if want is None else f"{list(found.shape)}, not {list(want)}"
            )
            raise ArtifactError(f"{path} does not hold weights of {config}: {one_line(name)} is {what}")
    model = build(config, options).eval()
    model.load_state_dict(tensors)
    manifest = describe(
        model,
        config,
        options,
        weights=metadata.weights or f"from {path.name}",
        licence=metadata.licence,
        interval=metadata.interval,
        # The quality was measured with the training options. It does not hold for others, such as another size.
        quality=metadata.quality if options == made else None,
    )
    try:
        return model, Manifest.from_json(manifest.to_json())  # with the same limits as an artifact's
    except (ArtifactError, ValueError) as error:
        raise ArtifactError(f"{path}: {error}") from error


def _metadata(path: Path, texts: Mapping[str, str]) -> _Metadata:
    """Parse the metadata, which safetensors stores as texts. Two of the texts are JSON.

    Raises:
        ArtifactError: the metadata cannot be read.
    """
    try:
        parts = {name: decode(texts[name], dict[str, Any]) for name in ("options", "quality") if name in texts}
        return convert({**texts, **parts}, _Metadata)
    except ValueError as error:
        raise ArtifactError(f"the metadata of {path} cannot be read ({error}): train or import it again") from error
