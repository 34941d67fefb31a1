"""The device graph: an artifact's step that takes and returns pictures, for engines that keep states on a device.

Pictures are transferred as bytes. The graph converts colours and range, pads, and resizes if asked, which costs almost
nothing on a GPU. A live step is then a single engine and a single CUDA graph. This module does not need torch.

Inputs, for B cameras and K predictions per step:

- ``image`` uint8 [B, h, w, 3] BGR: the cameras' pictures;
- ``fed`` float32 [B, K, C, H, W]: predictions to feed back; if K > 1, ``pick`` int64 [1] selects one of the K;
- ``camera`` bool [1]: whether the frame comes from ``image`` or from ``fed``;
- ``keep`` float32 [B]: how many past steps each row keeps; 0 right after its reset. Older steps read as zero, so one
  camera of a batch can restart while the others continue. A carried tensor is kept if ``keep`` > 0, and a history's
  slot of age a if ``keep`` > a. The graph selects instead of multiplying, so a NaN in an old state has no effect;
- the artifact's ``state.*``.

The outputs are the artifact's own, and ``shown`` uint8 [B, K, h, w, 3] BGR, the predictions as pictures; ``finite``
float32 [B], 1 if all of a row's predictions are finite; and, if the graph resizes, ``seen`` uint8 [B, h, w, 3] BGR, the
pictures at the model's size.

A model of motion has two device graphs. Its step has no ``shown`` and no ``finite``, and also reads ``elapsed`` float32
[B] in seconds. The graph that renders has both as outputs, next to ``prediction``; its inputs are the fields and
``ahead`` float32 [B], as in the artifact.

A server's graph (``graph/serve.py``) is a device graph without ``fed``, ``camera`` and ``pick``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from framecast.errors import ExportError
from framecast.graph.artifact import manifest_of, metadata_of
from framecast.graph.manifest import RENDER, Manifest

_GREY = (0.114, 0.587, 0.299)  # weights of B, G, R: OpenCV's, from ITU-R BT.601
_BATCH = "batch"


def check_device(manifest: Manifest) -> None:
    """Reject an artifact that a device cannot run on pictures.

    Raises:
        ExportError: its channels are not a picture, or it is not a whole float32 artifact.
    """
    if not manifest.is_picture:
        raise ExportError(f"cannot build {manifest.config} for a live run: its channels are not a picture")
    if manifest.form != "fp32":
        raise ExportError(
            f"{manifest.config} is {manifest.form}, which runs only on a CPU: use the whole float32 artifact"
        )


def device_graph(artifact: ModelProto, camera: tuple[int, int] | None = None, *, feeds: bool = True) -> ModelProto:
    """Make the device graph of an artifact. The artifact itself does not change.

    Args:
        artifact: as :func:`framecast.export.onnx.to_onnx` or ``to_render`` returns it.
        camera: (width, height) of the cameras' pictures, which the graph resizes like INTER_AREA (default: the
            pictures come at the model's size).
        feeds: whether the graph also takes predictions back; otherwise it has no ``fed``, ``camera`` and ``pick``.

    Raises:
        ArtifactError: the manifest cannot be read.
        ExportError: there is no manifest, or :func:`check_device` rejects it.
    """
    manifest = manifest_of(artifact)
    check_device(manifest)
    proto = ModelProto()
    proto.CopyFrom(artifact)
    graph = proto.graph
    nodes = _Nodes()
    if RENDER in metadata_of(artifact):
        _show(nodes, manifest, graph)
        graph.node.extend(nodes.take())
        graph.initializer.extend(nodes.constants)
        onnx.checker.check_model(proto, full_check=True)
        return proto
    width, height = camera or manifest.size
    picture = _picture_in(nodes, manifest, camera)
    if feeds:
        _or_fed(nodes, manifest, picture)
    else:
        nodes.add("Identity", picture, output="frame")
    _keep_rows(nodes, manifest, graph.node)
    boundary = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, [_BATCH, height, width, 3]),
        helper.make_tensor_value_info("keep", TensorProto.FLOAT, [_BATCH]),
    ]
    if feeds:
        fed: list[str | int] = [_BATCH, manifest.outputs, *manifest.frame]
        boundary.append(helper.make_tensor_value_info("fed", TensorProto.FLOAT, fed))
        boundary.append(helper.make_tensor_value_info("camera", TensorProto.BOOL, [1]))
    if feeds and manifest.outputs > 1:
        boundary.append(helper.make_tensor_value_info("pick", TensorProto.INT64, [1]))
    rest = [value for value in graph.input if value.name != "frame"]
    before = nodes.take()
    if manifest.renders == "steps":
        _show(nodes, manifest, graph)
    if camera:
        seen: list[str | int] = [_BATCH, *reversed(manifest.size), 3]
        graph.output.append(helper.make_tensor_value_info("seen", TensorProto.UINT8, seen))
    inner = list(graph.node)
    for old in (graph.node, graph.input):
        del old[:]
    graph.input.extend([*boundary, *rest])
    graph.node.extend([*before, *inner, *nodes.take()])
    graph.initializer.extend(nodes.constants)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _show(nodes: _Nodes, manifest: Manifest, graph: onnx.GraphProto) -> None:
    """Add the outputs ``shown`` and ``finite``."""
    _picture_out(nodes, manifest)
    shown: list[str | int] = [_BATCH, manifest.outputs, *reversed(manifest.size), 3]
    graph.output.append(helper.make_tensor_value_info("shown", TensorProto.UINT8, shown))
    graph.output.append(helper.make_tensor_value_info("finite", TensorProto.FLOAT, [_BATCH]))


class _Nodes:
    """A list of nodes and their constants. Every name begins with ``device.``."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self._count = 0

    def add(self, op: str, *inputs: Any, output: str = "", **attributes: Any) -> str:
        """Append a node and return its output's name. Inputs are names or arrays; arrays become constants."""
        names = [i if isinstance(i, str) else self._constant(i) for i in inputs]
        self._count += 1
        output = output or f"device.{self._count}"
        self._nodes.append(helper.make_node(op, names, [output], name=f"device.node.{self._count}", **attributes))
        return output

    def take(self) -> list[onnx.NodeProto]:
        """Return the nodes added since the last call."""
        taken, self._nodes = self._nodes, []
        return taken

    def _constant(self, value: Any) -> str:
        name = f"device.constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _picture_in(nodes: _Nodes, manifest: Manifest, camera: tuple[int, int] | None) -> str:
    """Compute the step's frame from ``image``, like :mod:`framecast.runtime.convert`; the name of the result."""
    picture = _float(nodes, "image")
    picture = nodes.add("Transpose", picture, perm=[0, 3, 1, 2])  # [B, 3, h, w]
    if camera:
        rows, columns = area_weights(camera, manifest.size)
        picture = nodes.add("MatMul", nodes.add("MatMul", rows, picture), columns)
        # OpenCV averages 2×2 pixels in integers, which rounds halves up; all else it rounds to even.
        if camera == (2 * manifest.size[0], 2 * manifest.size[1]):
            picture = nodes.add("Floor", nodes.add("Add", picture, np.float32(0.5)))
        else:
            picture = _bytes(nodes, picture)
        if manifest.channel_order == "GRAY":
            grey = np.array(_GREY, np.float32).reshape(1, 3, 1, 1)
            picture = nodes.add("ReduceSum", nodes.add("Mul", picture, grey), _axes(1))
            picture = _gathered(nodes, _bytes(nodes, picture), [0, 0, 0], axis=1)
        seen = nodes.add("Transpose", picture, perm=[0, 2, 3, 1])
        nodes.add("Cast", seen, output="seen", to=TensorProto.UINT8)
    take = {"BGR": [0, 1, 2], "RGB": [2, 1, 0], "GRAY": [0]}[manifest.channel_order]
    picture = _gathered(nodes, picture, take, axis=1)
    low, high = manifest.value_range
    picture = nodes.add("Mul", picture, np.float32((high - low) / 255))
    if low:
        picture = nodes.add("Add", picture, np.float32(low))
    (width, height), frame = manifest.size, manifest.frame
    if (height, width) != frame[1:]:
        pads = np.array([0, 0, 0, 0, 0, 0, frame[1] - height, frame[2] - width], np.int64)
        picture = nodes.add("Pad", picture, pads, np.float32(low))
    return picture


def _or_fed(nodes: _Nodes, manifest: Manifest, picture: str) -> None:
    """Compute ``frame``: the picture, or a prediction that is fed back."""
    one = [np.array([1], np.int64)]
    fed = nodes.add("Gather", "fed", "pick", axis=1) if manifest.outputs > 1 else "fed"
    nodes.add("Where", "camera", picture, nodes.add("Squeeze", fed, *one), output="frame")


def _keep_rows(nodes: _Nodes, manifest: Manifest, inner: Iterable[onnx.NodeProto]) -> None:
    """Make the network read zero instead of each state tensor that is as old as ``keep`` or older."""
    readers = list(inner)
    read = {name for node in readers for name in node.input}
    kept: dict[str, str] = {}
    masks: dict[tuple[int, int], str] = {}
    for spec in manifest.state:
        rank = len(spec.shape)
        for age, name in enumerate(spec.inputs):
            if name not in read:
                continue
            if (age, rank) not in masks:
                newer = nodes.add("Greater", "keep", np.float32(age))
                masks[age, rank] = nodes.add("Unsqueeze", newer, _axes(*range(1, rank + 1)))
            kept[name] = nodes.add("Where", masks[age, rank], name, np.float32(0))
    for node in readers:
        node.input[:] = [kept.get(name, name) for name in node.input]


def _picture_out(nodes: _Nodes, manifest: Manifest) -> None:
    """Compute ``shown`` and ``finite`` from ``prediction``, [B, K, C, H, W]."""
    low, high = manifest.value_range
    width, height = manifest.size
    picture = "prediction"
    if (height, width) != manifest.frame[1:]:
        picture = nodes.add("Slice", picture, _axes(0, 0), _axes(height, width), _axes(3, 4))
    if low:
        picture = nodes.add("Sub", picture, np.float32(low))
    picture = _bytes(nodes, nodes.add("Mul", picture, np.float32(255 / (high - low))))
    give = {"BGR": [0, 1, 2], "RGB": [2, 1, 0], "GRAY": [0, 0, 0]}[manifest.channel_order]
    picture = nodes.add("Transpose", _gathered(nodes, picture, give, axis=2), perm=[0, 1, 3, 4, 2])
    nodes.add("Cast", picture, output="shown", to=TensorProto.UINT8)
    # Compare, because a comparison with NaN is false. A maximum may hide a NaN.
    within = nodes.add("LessOrEqual", nodes.add("Abs", "prediction"), np.float32(np.finfo(np.float32).max))
    nodes.add("ReduceMin", _float(nodes, within), _axes(1, 2, 3, 4), output="finite", keepdims=0)


def _float(nodes: _Nodes, value: str) -> str:
    return nodes.add("Cast", value, to=TensorProto.FLOAT)


def _bytes(nodes: _Nodes, value: str) -> str:
    """Round and clamp to 0 … 255; the result is still a float."""
    return nodes.add("Clip", nodes.add("Round", value), np.float32(0), np.float32(255))


def _gathered(nodes: _Nodes, value: str, channels: list[int], axis: int) -> str:
    return value if channels == [0, 1, 2] else nodes.add("Gather", value, np.array(channels, np.int64), axis=axis)


def _axes(*axes: int) -> NDArray[np.int64]:
    return np.array(axes, np.int64)


def area_weights(size: tuple[int, int], target: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make two matrices that resize like OpenCV's INTER_AREA: ``rows @ picture @ columns``.

    They are identity matrices that OpenCV has resized.

    Args:
        size: (width, height) of the pictures.
        target: (width, height) of the result.

    Returns:
        rows [target height, height], columns [width, target width].
    """
    # If either side grows, OpenCV interpolates along both. Doubling the rows makes it do so here too. Then we keep
    # every second row.
    step = 2 if target[0] > size[0] or target[1] > size[1] else 1

    def weights(length: int, wanted: int) -> NDArray[np.float32]:
        unit = np.eye(length, dtype=np.float32)
        if length == wanted:
            return unit
        resized = cv2.resize(unit, (wanted, step * length), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(resized[::step], np.float32)

    return weights(size[1], target[1]).T.copy(), weights(size[0], target[0])
