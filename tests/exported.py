"""Artifacts of the small networks, each exported once in a test run; and float16 rounding as on a GPU."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from framecast.export.onnx import describe, to_onnx, to_render
from framecast.graph.artifact import save
from framecast.graph.manifest import RENDER, Manifest, other_half
from framecast.graph.mixed_precision import HALF
from framecast.models.step import MomentModel, StepModel

from .networks import SMALL_EDGE, make, small_edge  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


def once(model: StepModel, manifest: Manifest) -> ModelProto:
    """``to_onnx``, but the same weights are exported only once in a test run, because an export takes seconds."""
    return _once("", lambda: to_onnx(model, manifest), manifest)


def render_once(model: MomentModel, manifest: Manifest) -> ModelProto:
    """``to_render``, but only once in a test run."""
    return _once("render.", lambda: to_render(model, manifest), manifest)


def _once(kind: str, export: Callable[[], ModelProto], manifest: Manifest) -> ModelProto:
    with kept(f"{kind}{sha256(manifest.to_json().encode()).hexdigest()}.onnx") as path:
        if not path.exists():
            onnx.save(export(), path)
        return onnx.load(path)


@contextmanager
def kept(name: str) -> Iterator[Path]:
    """A file that all workers of this run share, locked for the caller."""
    path = Path(os.environ["FRAMECAST_TEST_ARTIFACTS"]) / name  # conftest.py makes the folder
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def shared(name: str, model: StepModel, **facts: Any) -> ModelProto:
    """The artifact of a network, which gets the weights that the first worker gave it; ``facts`` are for ``describe``.

    A fixture of a module runs once in each worker: use this there, not ``to_onnx``. Callers must not change the result.
    """
    with kept(f"{name}.pt") as path:
        if path.exists():
            model.load_state_dict(torch.load(path))
        else:
            torch.save(model.state_dict(), path)
    return once(model, describe(model, **{"config": name, **facts}))


@cache
def pair(name: str) -> tuple[StepModel, ModelProto]:
    """A network of ``tests/networks.py`` with random weights, and its artifact. Callers must not change either."""
    model = make(name)
    return model, shared(name, model)


def edge_graphs(folder: Path) -> Path:
    """Write the two graphs of a small edge, 96×64, into a folder; the path of the artifact."""
    path, model = folder / "edge.onnx", small_edge()
    manifest = describe(model, "edge", SMALL_EDGE)
    save(once(model, manifest), path)
    save(render_once(model, manifest), other_half(path, RENDER))
    return path


def exported(name: str) -> ModelProto:
    """The artifact of ``pair``."""
    return pair(name)[1]


def rounded(half: ModelProto) -> ModelProto:
    """Replace a mixed-precision graph's float16 by float32 that is rounded to float16's 11 bits after every node.

    ONNX Runtime has no float16 convolutions on the CPU: it computes them in float32 and skips the rounding between
    nodes. This graph rounds every value by Veltkamp's splitting, which no optimizer removes. Its error is up to 3 times
    as large. The range of float16 is not emulated.
    """
    proto = ModelProto()
    proto.CopyFrom(half)
    graph = proto.graph
    nodes: list[NodeProto] = []

    def split(source: str, output: str) -> None:
        nodes.append(helper.make_node("Mul", [source, "splitter"], [f"{output}.far"]))
        nodes.append(helper.make_node("Sub", [f"{output}.far", source], [f"{output}.rest"]))
        nodes.append(helper.make_node("Sub", [f"{output}.far", f"{output}.rest"], [output]))

    for node in graph.node:
        if node.op_type == "Cast" and node.output[0].endswith(HALF):
            split(node.input[0], node.output[0])
        elif node.op_type == "Cast" and node.input[0].endswith(HALF):
            nodes.append(helper.make_node("Identity", node.input, node.output))
        else:
            made = [name for name in node.output if name.endswith(HALF)]
            nodes.append(NodeProto())
            nodes[-1].CopyFrom(node)
            nodes[-1].output[:] = [f"{name}.exact" if name in made else name for name in node.output]
            for name in made:
                split(f"{name}.exact", name)
    constants = [numpy_helper.from_array(np.float32(2**13 + 1), "splitter")]
    for value in graph.initializer:
        array = numpy_helper.to_array(value)
        wide = array.astype(np.float32) if value.data_type == TensorProto.FLOAT16 else array
        constants.append(numpy_helper.from_array(wide, value.name))
    for field in (graph.node, graph.initializer, graph.value_info):
        del field[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    return proto
