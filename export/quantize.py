"""Makes the int8 form of an artifact, for CPUs: static quantization, calibrated with the state in the loop.

Layers read and write uint8 activations. Weights are symmetric int8 with one scale per output channel, and lie between
-64 and 64 (7 bits). In the graph, each layer stands between QuantizeLinear and DequantizeLinear nodes (QDQ). Source:
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018.
Without samples of the state, calibration would find no range for it. The float32 network therefore steps through real
frames, and the state at each step is a sample.

Why 7 bits: with AVX2 and no VNNI, ONNX Runtime and OpenVINO add two products in 16 bits. 255 × 127 × 2 does not fit and
saturates at 32,767; 255 × 64 × 2 = 32,640 fits. So the sums are the same integers on every CPU.

``benchmarks/int8_cpus.py`` compared the schemes. The results here are for stip-edge on the demo clip. Column "layers":
how many layers give the same integers in ONNX Runtime on both an AMD EPYC with AVX-512 VNNI and QEMU's Haswell (AVX2,
no VNNI). Other columns: change in PSNR of the next frame, and speedup, both against float32, on the EPYC in one thread:

====== ======== =================== =================== ===================
scheme layers   ONNX Runtime        OpenVINO            OpenVINO, AVX2 only
====== ======== =================== =================== ===================
u8s7   16 of 16 -0.005 dB, 1.27 ×   -0.004 dB, 1.32 ×   -0.004 dB, 1.20 ×
u8s8   13 of 16 -0.011 dB, 1.29 ×   -0.006 dB, 1.34 ×   -0.002 dB, 1.20 ×
s8s8   7 of 8   -0.011 dB, 1.17 ×   -0.083 dB, 1.33 ×   -0.085 dB, 1.18 ×
u8u8   –        -0.008 dB, 1.18 ×   -0.007 dB, 0.99 ×   -0.007 dB, 0.98 ×
====== ======== =================== =================== ===================

With s8s8, ONNX Runtime runs only half of the layers in int8; it converts their activations to uint8, and saturates too.
With u8u8, OpenVINO is no faster than in float32. SSE4.1 and ARM's NEON (emulated) give the EPYC's integers in every
scheme that was run on them. Everything between the layers is float32. The last bit of its values depends
on the CPU, and may change how an activation is rounded.

Convolutions stay in float32 if they are the first on a frame, the last before the prediction, or have few channels. (In
a network with a motion prior, narrow convolutions are filters and differences, which int8 would not speed up.)
Normalisations, gates, warps and solvers stay in float32 too.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from framecast.camera import Image
from framecast.errors import ExportError
from framecast.export.pair_sums import pair_sums
from framecast.graph.artifact import IR_VERSION, LAYERS, manifest_of, read, save
from framecast.graph.manifest import KEY, Manifest
from framecast.runtime.convert import to_input
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.engine import state_buffers
from framecast.runtime.stepper import Stepper

LEAST_CHANNELS = 16  # minimum input and output channels of an int8 layer
SCHEME = "u8s7"
_QUANTIZED = ("Conv", "MatMul", "Gemm")  # ONNX Runtime has no transposed convolution in int8


@dataclass(frozen=True)
class Scheme:
    """The integers that a layer computes with.

    Attributes:
        activations: ``QUInt8`` or ``QInt8``, as ONNX Runtime names them.
        weights: ``QUInt8`` or ``QInt8``.
        reduced: whether the weights have only 7 bits.
    """

    activations: str
    weights: str
    reduced: bool = False


SCHEMES = {
    "u8s7": Scheme("QUInt8", "QInt8", reduced=True),
    "u8s8": Scheme("QUInt8", "QInt8"),
    "s8s8": Scheme("QInt8", "QInt8"),
    "u8u8": Scheme("QUInt8", "QUInt8"),
}


def quantize(
    artifact: Path,
    output: Path,
    clips: Iterable[Iterable[Image]],
    calibration: str,
    *,
    ends: bool = False,
    scheme: str = SCHEME,
) -> tuple[int, int]:
    """Write an artifact's int8 form.

    Args:
        artifact: the float32 artifact.
        output: file to write; on an error nothing is written.
        clips: frames to calibrate on, uint8 [H, W, 3] BGR; each clip starts from a reset.
        calibration: description of the clips, for the manifest.
        ends: quantize the first and last layers too.
        scheme: one of ``SCHEMES``; the others exist only for comparison with the default.

    Returns:
        The number of int8 layers, and the number of all layers.

    Raises:
        ArtifactError: the file is not an artifact.
        ExportError: the artifact is not float32 or not whole, takes no pictures, or has no layer to quantize; or there
            is no frame.
        EngineError: the artifact cannot run.
        SinkError: the output cannot be written.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    integers = SCHEMES[scheme]
    proto = read(artifact)
    manifest = manifest_of(proto)
    if manifest.precomputed:
        raise ExportError(f"{artifact} is half of a step: quantize the whole artifact, then split that")
    if manifest.precision != "fp32":
        raise ExportError(f"{artifact} is {manifest.precision} already: quantize the float32 artifact")
    if not manifest.is_picture:
        raise ExportError(f"cannot quantize {manifest.config}: its channels are not a picture to calibrate on")
    chosen = layers(proto, ends=ends)
    count = sum(node.op_type in LAYERS for node in proto.graph.node)
    if not chosen:
        raise ExportError(
            f"cannot quantize {manifest.config}: its {count} layers are first, last, narrow or transposed"
        )
    steps = _samples(artifact, manifest, clips)
    if (first := next(steps, None)) is None:
        raise ExportError("no frames to calibrate on: give clips that have frames")
    samples = _Samples(chain([first], steps))
    with tempfile.TemporaryDirectory(prefix="framecast-") as folder, _quiet():
        made = Path(folder) / "int8.onnx"
        quantize_static(
            proto,
            str(made),
            samples,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTIZED),
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=QuantType[integers.activations],
            weight_type=QuantType[integers.weights],
            reduce_range=integers.reduced,
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantized = onnx.load(str(made))
    described = dataclasses.replace(
        manifest,
        precision="int8",
        calibration=f"{calibration}, {samples.count} frames",
        pair_sum=max(pair_sums(quantized).values()),
        quality=None,
    )
    quantized.ir_version = min(quantized.ir_version, IR_VERSION)
    onnx.helper.set_model_props(quantized, {KEY: described.to_json()})
    save(quantized, output)
    return len(chosen), count


def layers(proto: ModelProto, *, ends: bool = False) -> list[str]:
    """Return the names of nodes that can be int8: wide enough and, unless ``ends``, neither first nor last layers."""
    nodes = proto.graph.node
    weights = {i.name: i for i in proto.graph.initializer}
    after = _reached(nodes, {"frame"}, lambda node: (node.input, node.output))
    before = _reached(reversed(nodes), {"prediction"}, lambda node: (node.output, node.input))
    chosen = []
    for node in nodes:
        if node.op_type not in _QUANTIZED or node.input[1] not in weights:
            continue
        shape = numpy_helper.to_array(weights[node.input[1]]).shape
        at_an_end = after & set(node.input) or before & set(node.output)
        if min(shape[:2]) >= LEAST_CHANNELS and (ends or not at_an_end):
            chosen.append(node.name)
    return chosen


def _reached(nodes: Iterable[NodeProto], names: set[str], ends: Any) -> set[str]:
    """Return all names reachable from ``names``, in the nodes' order, without passing through a layer."""
    for node in nodes:
        sources, targets = ends(node)
        if node.op_type not in LAYERS and names & set(sources):
            names |= {name for name in targets if name}
    return names


class _Samples:
    """The samples that ONNX Runtime's calibration reads."""

    def __init__(self, samples: Iterator[Mapping[str, NDArray[Any]]]) -> None:
        self._samples = samples
        self.count = 0

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        """Return the next step's inputs by name; None at the end."""
        sample = next(self._samples, None)
        self.count += sample is not None
        return sample


def _samples(
    artifact: Path, manifest: Manifest, clips: Iterable[Iterable[Image]]
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Yield the inputs of every step over the clips, with the state that the float32 network carries."""
    with open_engine(artifact, "onnxruntime") as engine:
        stepper = Stepper(engine)
        for clip in clips:
            stepper.reset()
            for image in clip:
                frame, state = to_input(image, manifest), state_buffers(manifest, stepper.state)
                yield {"frame": frame, **{name: tensor.copy() for name, tensor in state.items()}}
                stepper.step(frame)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantizer's advice to preprocess the model (our exporter did), and its sessions' warnings."""
    import onnxruntime

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(3)
    try:
        yield
    finally:
        root.setLevel(level)
        onnxruntime.set_default_logger_severity(2)
