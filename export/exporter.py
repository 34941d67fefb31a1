"""``framecast export`` and ``import-checkpoint``: turn weights into an artifact, and compare it with its network."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from safetensors.torch import save as to_safetensors

from framecast.camera import Image, open_source
from framecast.errors import ExportError, OptionError
from framecast.export.load_network import load_trained
from framecast.export.onnx import describe, to_onnx, to_render
from framecast.export.parity import Parity, compare, compare_exactly, random_frames
from framecast.files import check_writable, write
from framecast.graph.artifact import save
from framecast.graph.manifest import KEY, RENDER, Manifest, other_half
from framecast.graph.stored import pack
from framecast.models.checkpoints import Checkpoint, read_checkpoint
from framecast.models.configs import build, find
from framecast.models.step import MomentModel, StepModel
from framecast.runtime.convert import to_input
from framecast.runtime.engines import open_engine

STORES = ("fp32", "fp16")  # formats of weights in the file
DRIFT = "stored as fp16"  # marks what rounding the weights costs, among the parities


def export_config(
    config: str,
    output: Path,
    weights: Path | None,
    *,
    source: str,
    frames: int,
    seed: int,
    changes: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
    store: str = "fp32",
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Parity]:
    """Write a configuration's artifact to ``output``; return its parity on random and on real frames.

    Args:
        config: name of the configuration.
        output: file to write; its folder is created.
        weights: trained weights as ``.safetensors``; None for random weights.
        source: clip for the real frames. They are skipped if the network's channels are not a picture.
        frames: number of random frames, and of real frames.
        seed: seed of random weights and random frames.
        changes: options that replace those of the configuration.
        tolerance: error that is always allowed (default: the configuration's); see :class:`Parity`. If it is exceeded,
            float64 decides: see :func:`framecast.export.parity.compare_exactly`.
        store: ``fp16`` halves the file by rounding its weights: see :mod:`framecast.graph.stored`. The float32 graph is
            checked as always. The drift that rounding causes is measured against the same network, and has no limit;
            its names end in ``DRIFT``.
        say: called with a message when the work begins.

    Raises:
        ArtifactError: there is no such configuration, or the weights do not belong to it.
        OptionError: no network can be built with these options, the seed or the tolerance is out of range, or the
            model has no weights to store.
        SinkError: the output cannot be written.
        ExportError: the export failed, differs from the network by more than allowed, or has a weight out of float16's
            range; nothing is written.
        SourceError: the real frames cannot be read.
    """
    if tolerance is not None and not 0 < tolerance < float("inf"):
        raise OptionError(f"--tolerance must be a number above 0, not {tolerance}")
    allowed = find(config).tolerance if tolerance is None else tolerance
    if output.suffix != ".onnx" or output.is_dir():
        raise ExportError(f"cannot write {output}: name a file that ends in .onnx")
    check_writable(output)
    if not 0 <= seed < 2**32:
        raise OptionError(f"--seed must be from 0 to {2**32 - 1}, not {seed}")
    torch.manual_seed(seed)
    if weights is None:
        model = build(config, changes).eval()
        manifest = describe(model, config, changes)
    else:
        model, manifest = load_trained(config, weights, changes)
    if store not in STORES:
        raise OptionError(f"--store takes {' or '.join(STORES)}, not {store}")
    if store != "fp32" and not manifest.parameters:
        raise OptionError(f"{config} has no weights to store as {store}: leave out --store")
    with open_source(source) as opened, tempfile.TemporaryDirectory() as folder:
        say(f"exporting {config} and comparing it with the network over {frames} frames: up to a few minutes")
        draft = Path(folder) / "draft.onnx"
        graphs = save_graphs(model, manifest, draft)
        rollouts = {"random": partial(random_frames, manifest.frame, frames, seed)}
        if manifest.is_picture:
            images = [frame.image for frame in islice(opened, frames)]
            rollouts["real"] = partial(real_frames, images, manifest)
        parity = {}
        with open_engine(draft) as engine:
            for name, rollout in rollouts.items():
                parity[name] = compare(model, engine, rollout(), allowed)
                if not parity[name].holds:
                    say(f"{name} frames: {parity[name].max:.1e} off the network; comparing with float64")
                    parity[name] = compare_exactly(model, engine, rollout(), allowed)
        if store == "fp16":
            graphs = {draft: stored_as_half(graphs[draft], model, manifest)}
            save(graphs[draft], draft)
            with open_engine(draft) as engine:
                drift = {f"{name}, {DRIFT}": compare(model, engine, rollouts[name](), np.inf) for name in parity}
            parity |= drift
    for name, found in parity.items():
        if not found.holds:
            raise ExportError(
                f"cannot write the export of {config}: on {name} frames it is {found.max:.2e} off the network in "
                f"{found.reference}, but only {found.allowed:.0e} is allowed; allow more with --tolerance, or report "
                "this with the versions that 'framecast doctor' prints"
            )
    for path, proto in graphs.items():
        save(proto, output.with_name(path.name.replace(draft.stem, output.stem, 1)))
    return parity


def save_graphs(model: StepModel, manifest: Manifest, output: Path) -> dict[Path, ModelProto]:
    """Write an artifact to ``output``. For a model of motion, also write the graph that renders, beside it.

    Returns:
        The graphs, by the path of their file.

    Raises:
        ExportError: see :func:`framecast.export.onnx.to_onnx`.
        SinkError: a file cannot be written.
    """
    graphs = {output: to_onnx(model, manifest)}
    if isinstance(model, MomentModel):
        graphs[other_half(output, RENDER)] = to_render(model, manifest)
    for path, proto in graphs.items():
        save(proto, path)
    return graphs


def stored_as_half(proto: ModelProto, model: StepModel, manifest: Manifest) -> ModelProto:
    """Return an artifact of a network with its weights stored as float16. Its quality has not been measured.

    Raises:
        ExportError: a weight is out of float16's range.
    """
    packed = pack(proto, {f"model.{name}" for name, _ in model.deployed().named_parameters()})
    rounded = dataclasses.replace(manifest, stored="fp16", quality=None)
    onnx.helper.set_model_props(packed, {KEY: rounded.to_json()})
    return packed


def export_random(config: str, folder: Path, *, artifact: bool = True) -> Path:
    """Write a configuration's artifact with random weights into a folder. The weights are always the same.

    The artifact is not compared with the network. If ``artifact`` is false, the function writes only the weights, as
    safetensors. It seeds torch.

    Raises:
        ArtifactError: there is no such configuration.
        ExportError: the export failed.
    """
    torch.manual_seed(0)
    model = build(config).eval()
    if not artifact:
        path = folder / f"{config}.safetensors"
        write(path, to_safetensors(model.state_dict(), {"config": config, "weights": "random"}), "free some space")
        return path
    path = folder / f"{config}.onnx"
    save_graphs(model, describe(model, config), path)
    return path


def import_checkpoint(path: Path, config: str, output: Path, changes: Mapping[str, Any] | None = None) -> Checkpoint:
    """Convert a released checkpoint to safetensors, which :func:`framecast.export.load_network.load_trained` reads.

    Raises:
        ArtifactError: there is no such configuration, or the file is not a checkpoint for it.
        OptionError: no network can be built with these options.
        SinkError: the output cannot be written.
    """
    with torch.device("meta"):
        model = build(config, changes)
    checkpoint = read_checkpoint(path, model, config)
    metadata = {
        "config": config,
        "options": json.dumps(dict(changes or {})),
        "weights": f"imported from {path.name}",
        "licence": "unknown: ask its authors",
    }
    tensors = {name: value.contiguous() for name, value in checkpoint.tensors.items()}
    write(output, to_safetensors(tensors, metadata), "choose another --output")
    return checkpoint


def real_frames(images: Iterable[Image], manifest: Manifest) -> Iterator[NDArray[np.float32]]:
    """Yield pictures in the step's input format, [1, C, H, W] each."""
    for image in images:
        yield to_input(image, manifest)
