"""An artifact's file and its manifest, read with onnx and without torch."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from framecast.errors import ArtifactError, ExportError
from framecast.files import write
from framecast.graph.manifest import KEY, Manifest, read_metadata

IR_VERSION = 10  # ONNX Runtime 1.23 reads no newer
LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")  # operators that multiply by weights


def manifest_of(proto: ModelProto) -> Manifest:
    """The manifest of an artifact's graph.

    Raises:
        ArtifactError: its manifest cannot be used.
        ExportError: it has none.
    """
    metadata = metadata_of(proto)
    if KEY not in metadata:
        raise ExportError("the file has no framecast manifest: make artifacts with 'framecast export'")
    return Manifest.from_json(metadata[KEY])


def metadata_of(proto: ModelProto) -> dict[str, str | bytes]:
    """A graph's metadata; protobuf gives bytes for what is not UTF-8."""
    return {entry.key: entry.value for entry in proto.metadata_props}


def read(path: Path) -> ModelProto:
    """An artifact's graph, which must be all in its one file.

    Raises:
        ArtifactError: it is not ONNX, has no manifest or one that cannot be used, or refers to other files.
    """
    proto = load(path)
    read_metadata(path, metadata_of(proto))
    return proto


def load(path: Path) -> ModelProto:
    """A graph, be it an artifact's or its other half, which must be all in its one file.

    Raises:
        ArtifactError: it is not ONNX, or refers to other files.
    """
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, ValueError, OSError) as error:
        raise ArtifactError(f"{path} is not an ONNX file: make one with 'framecast export'") from error
    if any(i.data_location == TensorProto.EXTERNAL for i in proto.graph.initializer):
        raise ArtifactError(f"{path} keeps its weights in other files, which are not read: export it again")
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ArtifactError(f"{path} is not valid ONNX ({one_line(str(error))}): export it again") from error
    return proto


def save(proto: ModelProto, path: Path) -> None:
    """Write an artifact whole or not at all.

    Raises:
        SinkError: the file cannot be written.
    """
    write(path, proto.SerializeToString(), "choose another --output")


def one_line(text: str) -> str:
    """What a library says, however long, for a message."""
    return " ".join(text.split())[:200].rstrip(". ")
