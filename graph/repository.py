"""Writes a model repository for NVIDIA Triton Inference Server: the model, its configuration, and how to serve it.

**The sequence batcher is "oldest", not "direct".** Cameras do not tick together. "Direct" gives each sequence a fixed
row of the batch for as long as it lives: the server runs whole batches, with idle rows, and admits only as many cameras
as instances times rows. "Oldest" admits ``max_candidate_sequences`` cameras, and batches whichever of them have a
picture waiting. The price is that the server gathers the states of a batch and scatters them again.

The ONNX Runtime and TensorRT backends use implicit state (``graph/serve.py``). Each state begins with
``initial_state { zero_data: true }``: without it, the first step reads memory that nobody wrote. The Python backend
does not carry implicit state; its model keeps the states itself, by correlation id (``runtime/serving.py``).

There is no ``model_warmup`` for implicit state: Triton's warm-up requests belong to no sequence, so storing their state
fails, and with it the loading. The client's first request, which ends its sequence at once, warms up instead. The
Python model warms up when it is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

from framecast.errors import ExportError, OptionError
from framecast.files import write
from framecast.graph.contents import contents
from framecast.graph.manifest import BEFORE, GRAPHLESS, RENDER, Manifest, other_half, read_json

BACKENDS = ("onnxruntime", "tensorrt", "python")
PROTOCOL = 1  # of the requests; a client refuses any other
WAIT = 2_000  # microseconds that a picture may wait for those of other cameras

_MODEL = '''"""Made by framecast export-server. The server's Python needs framecast: pip install a clone of it"""

from framecast.runtime.serving import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
# Times are double, as in a local engine: rounded to float32 they would give other pictures.
_TYPES = {"image": "TYPE_UINT8", "shown": "TYPE_UINT8", "elapsed": "TYPE_FP64", "ahead": "TYPE_FP64"}


@dataclasses.dataclass(frozen=True)
class Serving:
    """How to serve a model.

    Attributes:
        backend: one of ``BACKENDS``.
        steps: the number of steps that the server predicts ahead. A model of motion renders any moment instead.
        cameras: the largest number of cameras at a time; more wait until one has left or is idle.
        batch: the largest batch. The Python backend steps one camera after another.
        idle: seconds after which a silent camera's state is dropped.
    """

    backend: str = "onnxruntime"
    steps: int = 1
    cameras: int = 64
    batch: int = 8
    idle: float = 60.0

    def check(self) -> None:
        """Raise OptionError if a value is out of range."""
        if self.backend not in BACKENDS:
            raise OptionError(f"no backend {self.backend!r}: choose from {', '.join(BACKENDS)}")
        limits = {"steps": (self.steps, 64), "max-cameras": (self.cameras, 100_000), "batch": (self.batch, 1024)}
        for name, (value, most) in limits.items():
            if not 1 <= value <= most:
                raise OptionError(f"--{name} must be 1 to {most}, not {value}")
        if not 1 <= self.idle <= 86_400:
            raise OptionError(f"--idle must be 1s to 24h, not {self.idle:g} s")


def write_repository(artifact: Path, folder: Path, serving: Serving, name: str | None = None) -> tuple[Path, Manifest]:
    """Write a new version of a model into a repository.

    Args:
        artifact: the model.
        folder: the repository; it is created, and may hold other models.
        serving: how to serve it.
        name: the model's name on the server (default: the artifact's).

    Returns:
        The version's folder, and the manifest that clients get.

    Raises:
        ArtifactError: the model cannot be read.
        ExportError: the backend cannot run this model.
        OptionError: an option is out of range, or the name is not usable.
        SinkError: a file cannot be written.
    """
    serving.check()
    name = artifact.stem if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", name, re.ASCII):
        raise OptionError(f"cannot name a model {name!r} on a server: use letters, digits, '-', '_' and '.'")
    place = folder / name
    version = place / str(1 + max((int(path.name) for path in place.glob("[0-9]*") if path.name.isdigit()), default=0))
    cure = "choose another --output"
    if serving.backend == "python":
        manifest = _python(artifact, version, cure, serving.steps)
    else:
        manifest = _graph(artifact, version if serving.backend == "onnxruntime" else place, serving)
    write(place / "README.md", _readme(name, manifest, serving, version.name).encode(), cure)
    if serving.backend == "tensorrt":  # the server accepts the folder only once it holds the engine
        version.mkdir(parents=True, exist_ok=True)
    write(place / "config.pbtxt", config(name, manifest, serving).encode(), cure)  # last: now the version is complete
    return version, manifest


def _python(artifact: Path, version: Path, cure: str, steps: int) -> Manifest:
    """Write the version for the Python backend: the artifact itself, and a model that runs it."""
    if artifact.suffix == GRAPHLESS:
        manifest, files = read_json(artifact), [artifact]
    else:
        from framecast.graph.artifact import manifest_of, read

        manifest = manifest_of(read(artifact))
        files = [artifact, *(half for half in (other_half(artifact, key) for key in (BEFORE, RENDER)) if half.exists())]
    if not manifest.is_picture:
        raise ExportError(f"cannot serve {manifest.config}: its channels are not a picture")
    for path in files:
        write(version / path.name.replace(artifact.stem, "artifact", 1), contents(path), cure)
    write(version / "model.py", _MODEL.encode(), cure)
    if manifest.renders == "moments":
        return manifest
    return dataclasses.replace(manifest, outputs=max(manifest.outputs, steps))


def _graph(artifact: Path, place: Path, serving: Serving) -> Manifest:
    """Write the server's graph; the manifest in it."""
    if artifact.suffix == GRAPHLESS:
        raise ExportError(
            f"cannot serve {artifact.stem} with {serving.backend}: a model of motion has no such graph (use --backend "
            "python, or a network such as stip-edge)"
        )
    from framecast.graph.artifact import manifest_of, read, save
    from framecast.graph.serve import server_graph
    from framecast.graph.tensorrt_workarounds import without_moving_rows

    proto = server_graph(read(artifact), serving.steps)
    if serving.backend == "tensorrt":
        proto = without_moving_rows(proto)
    save(proto, place / "model.onnx")
    return manifest_of(proto)


def config(name: str, manifest: Manifest, serving: Serving) -> str:
    """The configuration of a model, config.pbtxt."""
    width, height = manifest.size
    moments = manifest.renders == "moments"
    inputs: list[tuple[str, Sequence[int]]] = [("image", (-1, -1, 3) if moments else (height, width, 3))]
    if moments:
        inputs += [("elapsed", (1,)), ("ahead", (-1,))]
    shown = (-1 if moments else manifest.outputs, height, width, 3)
    outputs: list[tuple[str, Sequence[int]]] = [("shown", shown), ("finite", (1,))]
    python = serving.backend == "python"
    batch = 1 if python else serving.batch
    lines = [
        f"# Made by framecast export-server: {manifest.config} for {serving.backend}.",
        f'name: "{name}"',
        f'backend: "{serving.backend}"',
        f"max_batch_size: {batch}",
        *_tensors("input", inputs),
        *_tensors("output", outputs),
        "sequence_batching {",
        f"  max_sequence_idle_microseconds: {round(1e6 * serving.idle)}",
        "  oldest {",
        f"    max_candidate_sequences: {serving.cameras}",
        f"    max_queue_delay_microseconds: {0 if batch == 1 else WAIT}",
        "  }",
    ]
    if not python:
        lines += _state(manifest)
    lines += [
        "}",
        "version_policy { latest { num_versions: 1 } }",
        f"instance_group [ {{ count: 1 kind: {'KIND_CPU' if python else 'KIND_GPU'} }} ]"
        if serving.backend != "onnxruntime"
        else "instance_group [ { count: 1 } ]  # on the GPU if there is one",
        *_parameter("framecast", manifest.to_json()),
        *_parameter("framecast_protocol", str(PROTOCOL)),
        *_parameter("framecast_cameras", str(serving.cameras)),
        *_parameter("framecast_idle", f"{serving.idle:g}"),
    ]
    return "\n".join(lines) + "\n"


def _tensors(kind: str, tensors: Sequence[tuple[str, Sequence[int]]]) -> list[str]:
    return [
        f'{kind} [ {{ name: "{name}" data_type: {_TYPES.get(name, "TYPE_FP32")} dims: {list(dims)} }} ]'
        for name, dims in tensors
    ]


def _state(manifest: Manifest) -> list[str]:
    from framecast.graph.serve import state_pairs

    # In a sequence's first request nothing is kept; later, "keep" is above the age of every slot.
    lines = [
        "  control_input [ {",
        '    name: "keep"',
        f"    control [ {{ kind: CONTROL_SEQUENCE_START fp32_false_true: [ {max(1, manifest.slots)}, 0 ] }} ]",
        "  } ]",
    ]
    for given, output, shape in state_pairs(manifest):
        about = f"data_type: TYPE_FP32 dims: {list(shape)}"
        lines += [
            "  state [ {",
            f'    input_name: "{given}" output_name: "{output}" {about}',
            f'    initial_state [ {{ name: "zero" {about} zero_data: true }} ]',
            "  } ]",
        ]
    return lines


def _parameter(key: str, text: str) -> list[str]:
    return [f'parameters [ {{ key: "{key}" value: {{ string_value: {json.dumps(text)} }} }} ]']


def _readme(name: str, manifest: Manifest, serving: Serving, version: str) -> str:
    needs = {
        "onnxruntime": "It runs on a GPU if the server has one, else on the CPU.",
        "tensorrt": "First build the engine, on a machine with the server's GPU and its version of TensorRT (up to 10, "
        f"`--fp16` makes it faster and less exact):\n\n    {_trtexec(name, manifest, serving, version)}",
        "python": "The server's Python needs framecast: in its image, `pip install /framecast` (a clone of it) and "
        "`pip install --force-reinstall --no-deps opencv-python-headless`, because the image has no display.",
    }[serving.backend]
    return f"""# {name}: {manifest.config} for NVIDIA Triton Inference Server, {serving.backend} backend

Made by `framecast export-server`. {needs}

Serve it, from the repository's folder:

    tritonserver --model-repository=. --strict-readiness=true

Watch a camera through it:

    framecast run 0 --engine server://HOST:8001/{name}

The protocol has no password of its own: keep ports 8000 to 8002 inside your network, or put a TLS proxy in front.
"""


def _trtexec(name: str, manifest: Manifest, serving: Serving, version: str) -> str:
    from framecast.graph.serve import state_pairs

    width, height = manifest.size
    shapes = {"image": (height, width, 3), "keep": (1,), **{given: shape for given, _, shape in state_pairs(manifest)}}

    def sized(batch: int) -> str:
        return ",".join(f"{given}:{'x'.join(map(str, (batch, *shape)))}" for given, shape in shapes.items())

    return (
        f"trtexec --onnx={name}/model.onnx --saveEngine={name}/{version}/model.plan --minShapes={sized(1)} "
        f"--optShapes={sized(serving.batch)} --maxShapes={sized(serving.batch)}"
    )
