"""Mixed precision: which operators are float16, no needless casts, and predictions that stay close."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from framecast.camera import open_source
from framecast.export.onnx import describe, to_onnx
from framecast.graph.mixed_precision import BETWEEN, LAYERS, MOVES, to_half
from framecast.graph.tensorrt_workarounds import fixed, without_moving_rows
from framecast.models.step import State, StepModel
from framecast.runtime.convert import to_model_size
from framecast.runtime.engines import Engine, open_engine
from framecast.runtime.predictor import Predictor
from framecast.runtime.score import psnr
from framecast.runtime.shipped import find

from ..exported import exported, rounded  # noqa: TID252
from ..networks import NETWORKS  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from ..stepping import stepped  # noqa: TID252

STEPS = 20
# Half a unit in float16's last place is 2.4e-4 of a value near 1; a few of them add up over 20 steps. A warp amplifies
# the error on noise, where the flow is ill-conditioned.
ALLOWED = 4e-3
ALLOWED_WARPED = 2e-2
CASTS = {"stip": (9, 10), "stau": (26, 26), "astm": (13, 16), "tau": (19, 19)}  # to float16, and back


def opened(proto: ModelProto, path: Path) -> Engine:
    onnx.save(proto, path)
    return open_engine(path)


def rollout(engine: Engine, frames: list[np.ndarray]) -> list[np.ndarray]:
    state, spare = engine.new_state(), engine.new_state()
    predictions = []
    for frame in frames:
        predictions.append(engine.step(frame, state, spare).copy())
        state, spare = spare, state
    return predictions


def types(proto: ModelProto) -> dict[str, int]:
    """The element type of every tensor, by ONNX's own type inference rather than our names."""
    graph = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True).graph
    values = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return {**values, **{i.name: i.data_type for i in graph.initializer}}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_rollout_stays_close(name: str, tmp_path: Path) -> None:
    """Checks the graph as ONNX Runtime computes it, and with every value rounded to float16."""
    proto = exported(name)
    with opened(proto, tmp_path / "full.onnx") as engine:
        rng = np.random.default_rng()
        frames = [rng.random((1, *engine.manifest.frame), np.float32) for _ in range(STEPS)]
        wanted = np.array(rollout(engine, frames))
    for graph in (to_half(proto), rounded(to_half(proto))):
        with opened(graph, tmp_path / "half.onnx") as engine:
            error = np.abs(np.array(rollout(engine, frames)) - wanted).max()
        allowed = ALLOWED_WARPED if name == "stip-edge" else ALLOWED * max(1, np.abs(wanted).max())
        # A softmax over unscaled scores is nearly one-hot, so rounding may pick another entry.
        assert 0 < error <= (5 * allowed if "unscaled" in name else allowed)


@pytest.mark.slow
def test_quality_on_the_demo_clip_does_not_change(tmp_path: Path) -> None:
    """PSNR of the next frame over 24 frames, within 0.01 dB."""
    with open_source("demo") as source:
        images = [frame.image for frame in islice(source, 24)]
    proto = onnx.load(find("stip-edge"))
    scores = []
    for graph in (proto, to_half(proto), rounded(to_half(proto))):
        with opened(graph, tmp_path / "model.onnx") as engine:
            predictor = Predictor(engine, watch=False)
            predicted = [stepped(predictor, image).image.copy() for image in images]
            seen = [to_model_size(image, engine.manifest) for image in images]
        scores.append(np.mean([psnr(p, s) for p, s in zip(predicted[8:-1], seen[9:], strict=True)]))
    assert np.ptp(scores) < 0.01, scores


@pytest.mark.parametrize("name", NETWORKS)
def test_only_whitelisted_operators_are_half(name: str) -> None:
    proto = exported(name)
    half = to_half(proto)
    kinds = types(half)
    layers = 0
    for node in half.graph.node:
        is_half = any(kinds.get(n) == TensorProto.FLOAT16 for n in (*node.input, *node.output))
        if node.op_type != "Cast" and is_half:
            assert node.domain == ""
            assert node.op_type in LAYERS | BETWEEN | MOVES, node.op_type
            layers += node.op_type in LAYERS
    assert layers == sum(node.op_type in LAYERS for node in proto.graph.node)  # every layer is half
    assert not {"GridSample", "MatMul", "LayerNormalization", "ReduceMean", "ReduceSum", "Softmax"} & (
        LAYERS | BETWEEN | MOVES
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_inputs_outputs_and_functions_do_not_change(name: str) -> None:
    proto = exported(name)
    half = to_half(proto)
    assert [*half.graph.input, *half.graph.output] == [*proto.graph.input, *proto.graph.output]
    assert half.metadata_props == proto.metadata_props
    assert [f.name for f in half.functions] == [f.name for f in proto.functions]
    calls = [[n for n in p.graph.node if n.domain == "framecast"] for p in (proto, half)]
    assert calls[0] == calls[1]  # unchanged, so that a plugin finds them by name


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_cast_back_and_forth(name: str) -> None:
    half = to_half(exported(name))
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    made = {output for node in casts for output in node.output}
    assert not [node.name for node in casts if node.input[0] in made]
    assert len({node.input[0] for node in casts}) == len(casts)  # each tensor is cast once
    weights = {i.name for i in half.graph.initializer}
    assert not {node.input[0] for node in casts} & weights  # weights are stored in the type that is read
    read = {name for node in half.graph.node for name in node.input} | {o.name for o in half.graph.output}
    assert made <= read
    if name in CASTS:
        to = Counter(node.attribute[0].i for node in casts)
        assert (to[TensorProto.FLOAT16], to[TensorProto.FLOAT]) == CASTS[name]


def graph(nodes: list[onnx.NodeProto], **constants: object) -> ModelProto:
    """A graph from ``x`` to ``y``, both [1, 2, 8, 8], with weights ``w`` for 1×1 convolutions."""
    constants = {"w": np.full((2, 2, 1, 1), 0.5, np.float32), **constants}
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 8, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def halves(proto: ModelProto) -> set[str]:
    """The operators that compute in float16."""
    half = to_half(proto)
    kinds = types(half)
    nodes = [node for node in half.graph.node if node.op_type != "Cast"]
    return {node.op_type for node in nodes if kinds[node.output[0]] == TensorProto.FLOAT16}


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def test_coordinates_stay_float32_even_between_layers() -> None:
    """A layer's flow warps another layer's features, which feed a third layer."""
    nodes = [
        node("Conv", "x w", "flow"),
        node("Mul", "flow unit", "scaled"),
        node("Transpose", "scaled", "grid", perm=[0, 2, 3, 1]),
        node("Conv", "x w", "features"),
        node("GridSample", "features grid", "warped", mode="linear"),
        node("Conv", "warped w", "y"),
    ]
    assert halves(graph(nodes, unit=np.float32(0.25))) == {"Conv"}


def test_a_chain_between_layers_is_half_but_not_one_that_ends_in_an_output() -> None:
    inside = [
        node("Conv", "x w", "a"),
        node("Mul", "a unit", "b"),
        node("Sigmoid", "b", "c"),
        node("Add", "a c", "d"),
    ]
    assert halves(graph([*inside, node("Conv", "d w", "y")], unit=np.float32(2))) == {"Conv", "Mul", "Sigmoid", "Add"}
    assert halves(graph([*inside, node("Identity", "d", "y")], unit=np.float32(2))) == {"Conv"}


@pytest.mark.parametrize("unit", [1e5, 1e-6])
def test_a_constant_that_float16_cannot_hold_keeps_its_operator_float32(unit: float) -> None:
    nodes = [node("Conv", "x w", "a"), node("Mul", "a unit", "b"), node("Conv", "b w", "y")]
    assert halves(graph(nodes, unit=np.float32(unit))) == {"Conv"}
    assert halves(graph([*nodes[:1], node("Identity", "a", "y")], w=np.full((2, 2, 1, 1), 1e5, np.float32))) == set()


def test_matrix_products_are_not_layers() -> None:
    nodes = [node("Conv", "x w", "a"), node("MatMul", "a m", "b"), node("Conv", "b w", "y")]
    assert halves(graph(nodes, m=np.eye(8, dtype=np.float32))) == {"Conv"}


class LeastSquares(StepModel):
    """Mixes the newest two frames by least squares, solved by an unrolled Gauss–Jordan elimination.

    The graphs of NETWORKS contain no such elimination; that of edge does (models/mixing.py).
    """

    warmup = 2

    def __init__(self) -> None:
        super().__init__()
        self.frame_shape = (3, 16, 24)
        self.state_shapes = {"previous": self.frame_shape}
        self.firmness = torch.nn.Parameter(torch.tensor(0.01))

    def forward(self, frame: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        views = torch.cat([state["previous"], frame], dim=1).flatten(2)  # [B, 6, H·W]
        products = views @ views.transpose(1, 2) / views.shape[-1]
        unit = torch.eye(6)
        system = torch.cat([products + self.firmness * unit, products[..., :3]], dim=-1)
        for i in range(6):
            row = system[..., i : i + 1, :]
            row = row / row[..., i : i + 1].clamp(min=0.01)
            system = system - (system[..., i : i + 1] - unit[:, i : i + 1]) * row
        mixed = system[..., 6:].transpose(1, 2) @ views
        return mixed.reshape(-1, 1, *self.frame_shape), {"previous": frame}


@pytest.mark.slow
def test_picking_pivot_rows_by_sums_is_exact(tmp_path: Path) -> None:
    model = LeastSquares()
    proto = fixed(to_onnx(model, describe(model, "least-squares")), 1)
    picked = without_moving_rows(proto)
    onnx.checker.check_model(picked, full_check=True)
    count = Counter(n.op_type for n in picked.graph.node)
    count.subtract(Counter(n.op_type for n in proto.graph.node))
    assert {op: n for op, n in count.items() if n} == {"Slice": -6, "Mul": 6, "ReduceSum": 6}
    with opened(proto, tmp_path / "original.onnx") as before, opened(picked, tmp_path / "picked.onnx") as after:
        frames = [np.random.default_rng(i).random((1, *before.manifest.frame), np.float32) for i in range(4)]
        assert np.array_equal(rollout(before, frames), rollout(after, frames))


def test_a_graph_without_an_elimination_does_not_change() -> None:
    proto = fixed(exported("stip"), 1)
    assert list(without_moving_rows(proto).graph.node) == list(proto.graph.node)
