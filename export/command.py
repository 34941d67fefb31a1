"""``framecast export``: build, load weights, export, and hold the artifact against the network."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from framecast.camera import Source, open_source
from framecast.errors import ArtifactError, ExportError
from framecast.export.onnx import describe, save, to_onnx
from framecast.export.parity import Parity, compare, random_frames
from framecast.models.configs import build, find
from framecast.models.step import StepModel
from framecast.runtime.convert import blank, see, to_frame
from framecast.runtime.engines import open_engine
from framecast.runtime.manifest import Manifest, Quality


def export_config(
    config: str,
    output: Path,
    weights: Path | None,
    *,
    frames: str,
    steps: int,
    seed: int,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Parity]:
    """Write a configuration's artifact to ``output``; returns its parity on random and on real frames.

    Real frames are left out where the network's channels are no picture.

    Raises:
        ArtifactError: no such configuration, or the weights are not its.
        OptionError: no network can be built with these changes to the configuration's options.
        ExportError: the export failed, or differs from the network by more than is allowed; nothing is written.
        SourceError: the real frames cannot be read.
    """
    allowed = find(config).parity
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise ExportError(f"cannot write {output}: its folder is missing or closed to you (choose another --output)")
    torch.manual_seed(seed)
    model = build(config, changes).eval()
    manifest = load_weights(model, config, weights, changes) if weights else describe(model, config, changes)
    with open_source(frames) as source, tempfile.TemporaryDirectory() as folder:
        proto = to_onnx(model, manifest)
        draft = Path(folder) / "draft.onnx"
        save(proto, draft)
        with open_engine(draft) as engine:
            parity = {"random": compare(model, engine, random_frames(manifest.frame, steps, seed), allowed)}
            if manifest.channel_order != "NONE":
                parity["real"] = compare(model, engine, real_frames(source, manifest, steps), allowed)
    for name, found in parity.items():
        if not found.holds:
            raise ExportError(
                f"the export of {config} differs from it by {found.max:.2e} on {name} frames, {found.allowed:.0e} is "
                "allowed: nothing is written; report this with the versions that 'framecast doctor' prints"
            )
    save(proto, output)
    return parity


def load_weights(model: StepModel, config: str, path: Path, changes: Mapping[str, Any] | None = None) -> Manifest:
    """Load safetensors into a network, strictly, and describe it by the file's own metadata.

    Raises:
        ArtifactError: the file is not safetensors, or not of this configuration.
    """
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read as safetensors: {str(error).splitlines()[0]}") from error
    expected = {name: value.shape for name, value in model.state_dict().items()}
    for name in sorted(expected.keys() | tensors.keys()):
        found, want = tensors.get(name), expected.get(name)
        if found is None or want is None or found.shape != want:
            what = (
                "missing" if found is None else "unknown" if want is None else f"{list(found.shape)}, not {list(want)}"
            )
            raise ArtifactError(f"{path} does not hold weights of {config}: {name} is {what}")
    model.load_state_dict(tensors)
    quality = json.loads(metadata["quality"]) if "quality" in metadata else None
    return describe(
        model,
        config,
        changes,
        weights=metadata.get("weights", f"from {path.name}"),
        licence=metadata.get("licence", "unknown"),
        interval=float(metadata["interval"]) if "interval" in metadata else None,
        quality=Quality(**quality) if quality else None,
    )


def real_frames(source: Source, manifest: Manifest, steps: int) -> Iterator[NDArray[np.float32]]:
    """The first frames of a source as the step takes them, [1, C, H, W] each."""
    for _ in range(steps):
        if (frame := source.read()) is None:
            break
        tensor = blank(manifest)
        to_frame(see(frame.image, manifest), manifest, tensor)
        yield tensor
