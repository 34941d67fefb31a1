"""Reads and writes artifacts and their manifests with onnx, not torch."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from framecast.errors import ArtifactError, ExportError, first_line
from framecast.files import write
from framecast.graph.contents import graph_bytes
from framecast.graph.manifest import GRAPHLESS, KEY, RENDER, Manifest, read_metadata
from framecast.graph.stored import unpack

IR_VERSION = 10  # the newest that ONNX Runtime 1.23 reads
LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")  # operators that multiply by weights
SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter stores the modules that a node comes from


def manifest_of(proto: ModelProto) -> Manifest:
    """Read the manifest from an artifact's graph, or from the graph that renders a model of motion.

    Raises:
        ArtifactError: the manifest cannot be used.
        ExportError: there is no manifest.
    """
    metadata = metadata_of(proto)
    text = metadata.get(KEY) or metadata.get(RENDER)
    if text is None:
        raise ExportError("the file has no framecast manifest: make artifacts with 'framecast export'")
    return Manifest.from_json(text)


def metadata_of(proto: ModelProto) -> dict[str, str | bytes]:
    """A graph's metadata. Values that are not UTF-8 are bytes, as protobuf gives them."""
    return {entry.key: entry.value for entry in proto.metadata_props}


def read(path: Path) -> ModelProto:
    """Read an artifact's graph. The file must contain all weights.

    Raises:
        ArtifactError: the file is not valid ONNX, has no usable manifest, or keeps weights in other files.
    """
    proto = load(path)
    read_metadata(path, metadata_of(proto))
    return proto


def load(path: Path) -> ModelProto:
    """Read the graph of an artifact or of its other half. The file must contain all weights.

    Weights that are stored as float16 become float32 again (:mod:`framecast.graph.stored`).

    Raises:
        ArtifactError: the file is not valid ONNX, keeps weights in other files, or is of a model without a graph.
    """
    if path.suffix == GRAPHLESS:
        raise ArtifactError(
            f"{path.stem} is a model of motion, not a network: it has no graph and no weights (name a network, such as "
            f"stip-edge, or export its graphs: framecast export {path.stem} -o {path.stem}.onnx)"
        )
    data = graph_bytes(path)
    try:
        proto = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise ArtifactError(f"{path} is not an ONNX file: make one with 'framecast export'") from error
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # besides its own errors, RuntimeError and UnicodeDecodeError from C++
        raise ArtifactError(f"{path} is not valid ONNX ({first_line(error)}): export it again") from error
    unpack(proto)
    return proto


def save(proto: ModelProto, path: Path) -> None:
    """Write an artifact completely or not at all.

    Raises:
        SinkError: the file cannot be written.
    """
    write(path, proto.SerializeToString(), "choose another --output")
