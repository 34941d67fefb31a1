"""Our operators in ONNX: model-local functions with a body in standard operators.

ONNX Runtime inlines the body; TensorRT can replace it with a plugin. TensorRT looks functions up by name alone, so
their names are unique. Their inputs have a prefix, so that none is mistaken for an outer tensor. A body has a fixed
number of slots or groups. If it has any, their number ends the name (``eifag_5``).

Normalisations over many elements are functions too, for two reasons. First, a rewrite to mixed precision can find them.
Second, our bodies are precise enough in float32. ONNX Runtime sums the elements of a LayerNormalization or
InstanceNormalization one after the other, and loses precision with each. Over ASTM's 229,376 elements its error is
9e-6, and PyTorch's is 1e-6. A recurrence accumulates this error. Our bodies take a mean per channel, then the mean of
these means, which is as precise as PyTorch.

``framecast inspect`` finds the values to show by their names in the bodies: ``update``, ``reset``, ``weights``,
``fusion``, ``gate``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnxscript
import torch
from onnx import AttributeProto, FunctionProto, NodeProto, helper

from framecast.graph.manifest import DOMAIN
from framecast.kernels.eifag.operator import eifag as _eifag  # noqa: F401 (registers the operator, as those below do)
from framecast.kernels.stau_attention.operator import stau_attention as _stau_attention  # noqa: F401
from framecast.kernels.stgru_gates.operator import stgru_gates as _stgru_gates  # noqa: F401

OPSET = 18  # the newest that both TensorRT 10 and ONNX Runtime 1.23 (the last for Python 3.10) can read
# Minimum elements for our own layer norm. With LayerNormalization, STAU-KITTI's 61,440 elements are 1e-5 off after 20
# steps; with ours, 2e-6. Ours costs 0.03 ms more each time, so smaller norms stay LayerNormalization. Those inside
# STGRU's gates are always ours: with lively weights, STIP-UCF's 65,536 elements are 4.3e-5 off float64 after 10 steps
# with LayerNormalization, and 1.3e-5 with ours, as in PyTorch.
MANY = 50_000


class Body:
    """The nodes of a function. Each takes one line; spaces separate names."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def add(self, op: str, inputs: str | Sequence[str], outputs: str, **attributes: Any) -> None:
        """Append a node."""
        names = inputs.split() if isinstance(inputs, str) else list(inputs)
        self.nodes.append(helper.make_node(op, names, outputs.split(), **attributes))

    def refer(self, name: str, source: str) -> None:
        """Link an attribute of the last node to the function's attribute ``source``."""
        self.nodes[-1].attribute.append(AttributeProto(name=name, type=AttributeProto.FLOAT, ref_attr_name=source))

    def constant(self, output: str, value: float | str) -> None:
        """Append a scalar: a number, or the value of a function's attribute by its name."""
        if isinstance(value, str):
            self.add("Constant", "", output)
            self.refer("value_float", value)
        else:
            self.add("Constant", "", output, value_float=value)


@dataclass(frozen=True)
class Operator:
    """One of our torch operators and its ONNX function.

    Attributes:
        inputs: tensors in the operator's order; a name that ends in ``*`` is a list of tensors.
        outputs: names of the outputs.
        attributes: names of the float arguments, which follow the tensors.
        body: writes the function's nodes for a number of slots or groups; 0 if the operator has none.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    body: Callable[[Body, int], None]

    def expanded(self, count: int) -> list[str]:
        """Return the names of the function's inputs, with lists of ``count`` slots."""
        names: list[str] = []
        for name in self.inputs:
            names += [f"g_{name[:-1]}_{i}" for i in range(count)] if name.endswith("*") else [f"g_{name}"]
        return names


def _stgru_gates_body(body: Body, _: int) -> None:
    for x in "ts":
        _add_layer_norm(body, f"g_conv_{x}", f"g_weight_{x}", f"g_bias_{x}", f"norm_{x}", prefix=f"{x}_")
        body.add("Split", f"norm_{x}", f"z_{x} r_{x} t_{x} s_{x}", axis=1, num_outputs=4)
    body.constant("forget", "forget_bias")
    body.constant("one", 1.0)
    body.add("Add", "z_t z_s", "z_sum")
    body.add("Add", "z_sum forget", "z_biased")
    body.add("Sigmoid", "z_biased", "update")
    body.add("Add", "r_t r_s", "r_sum")
    body.add("Sigmoid", "r_sum", "reset")
    body.add("Sub", "one update", "renew")
    for x, own, other in (("t", "t_t", "t_s"), ("s", "s_s", "s_t")):
        body.add("Mul", f"reset {other}", f"{x}_gated")
        body.add("Add", f"{own} {x}_gated", f"{x}_sum")
        body.add("Tanh", f"{x}_sum", f"{x}_candidate")
        body.add("Mul", f"renew {x}_candidate", f"{x}_new")
        body.add("Mul", f"update g_{x}", f"{x}_kept")
        body.add("Add", f"{x}_new {x}_kept", f"g_next_{x}")


def _eifag_body(body: Body, length: int) -> None:
    """Write the softmax element by element, so that lists need neither an axis nor stacking."""
    body.constant("forget", "forget_bias")
    body.add("Add", "g_forget forget", "forget_biased")
    body.add("Sigmoid", "forget_biased", "gate")
    body.constant("never", float("-inf"))
    indices = range(length)
    for i in indices:
        body.constant(f"begins_{i}", float(i))
        body.add("Less", f"g_count begins_{i}", f"unwritten_{i}")
        body.add("Mul", f"g_cells_{i} gate", f"agreement_{i}")
        body.add("Where", f"unwritten_{i} never agreement_{i}", f"score_{i}")
    body.add("Max", [f"score_{i}" for i in indices], "largest")
    for i in indices:
        body.add("Sub", f"score_{i} largest", f"shifted_{i}")
        body.add("Exp", f"shifted_{i}", f"share_{i}")
    body.add("Sum", [f"share_{i}" for i in indices], "shares")
    for i in indices:
        body.add("Div", f"share_{i} shares", f"weights_{i}")
        body.add("Mul", f"weights_{i} g_cells_{i}", f"part_{i}")
    body.add("Sum", [f"part_{i}" for i in indices], "gathered")
    body.add("Sigmoid", "g_input", "input_gate")
    body.add("Tanh", "g_candidate", "new")
    body.add("Mul", "input_gate new", "added")
    body.add("Mul", "gate gathered", "kept")
    body.add("Add", "added kept", "g_next_cell")


def _stau_attention_body(body: Body, length: int) -> None:
    indices = range(length)
    body.add("Constant", "", "axes", value_ints=[1, 2, 3])
    for i in indices:
        body.add("Mul", f"g_keys_{i} g_query", f"product_{i}")
        body.add("ReduceSum", f"product_{i} axes", f"score_{i}")  # [B, 1, 1, 1]
    body.add("Concat", [f"score_{i}" for i in indices], "scores", axis=1)
    body.constant("factor", "scale")
    body.add("Mul", "scores factor", "scaled")
    body.add("Softmax", "scaled", "weights", axis=1)
    body.add("Split", "weights", " ".join(f"weight_{i}" for i in indices), axis=1, num_outputs=length)
    for i in indices:
        body.add("Mul", f"weight_{i} g_values_{i}", f"part_{i}")
    body.add("Sum", [f"part_{i}" for i in indices], "attended")
    body.constant("one", 1.0)
    body.add("Sigmoid", "g_gate", "fusion")
    body.add("Sub", "one fusion", "rest")
    body.add("Mul", "fusion g_current", "kept")
    body.add("Mul", "rest attended", "taken")
    body.add("Add", "kept taken", "g_fused")


def _layer_norm_body(body: Body, _: int) -> None:
    _add_layer_norm(body, "g_x", "g_weight", "g_bias", "g_normed")


def _add_layer_norm(body: Body, x: str, weight: str, bias: str, output: str, prefix: str = "") -> None:
    """Write a layer norm over [C, H, W] as means of means; ``prefix`` keeps the names of its values apart."""
    p = prefix
    body.add("Constant", "", f"{p}pixels", value_ints=[2, 3])
    body.add("Constant", "", f"{p}channels", value_ints=[1])
    body.constant(f"{p}least", "epsilon")
    body.add("ReduceMean", f"{x} {p}pixels", f"{p}channel_mean")
    body.add("ReduceMean", f"{p}channel_mean {p}channels", f"{p}mean")
    body.add("Sub", f"{x} {p}mean", f"{p}centred")
    body.add("Mul", f"{p}centred {p}centred", f"{p}squared")
    body.add("ReduceMean", f"{p}squared {p}pixels", f"{p}channel_variance")
    body.add("ReduceMean", f"{p}channel_variance {p}channels", f"{p}variance")
    body.add("Add", f"{p}variance {p}least", f"{p}positive")
    body.add("Sqrt", f"{p}positive", f"{p}deviation")
    body.add("Div", f"{p}centred {p}deviation", f"{p}normalised")
    body.add("Mul", f"{p}normalised {weight}", f"{p}scaled")
    body.add("Add", f"{p}scaled {bias}", output)


def _group_norm_body(body: Body, groups: int) -> None:
    body.add("Constant", "", "grouped", value_ints=[0, groups, -1])  # [B, G, C/G] of [B, C]
    body.add("Constant", "", "pixels", value_ints=[2, 3])
    body.add("Constant", "", "each", value_ints=[2])
    body.add("Constant", "", "affine", value_ints=[-1, 1, 1])
    body.constant("least", "epsilon")
    body.add("Shape", "g_x", "shape", start=0, end=2)  # [B, C]
    body.add("Constant", "", "one_pixel", value_ints=[1, 1])
    body.add("Concat", "shape one_pixel", "by_channel", axis=0)  # [B, C, 1, 1]
    # Compute each group's statistics, and repeat them for its channels.
    for values, mean in (("g_x", "mean"), ("squared", "variance")):
        body.add("ReduceMean", f"{values} pixels", f"{mean}_channel", keepdims=0)
        body.add("Reshape", f"{mean}_channel grouped", f"{mean}_grouped")
        body.add("ReduceMean", f"{mean}_grouped each", f"{mean}_group")
        body.add("Shape", f"{mean}_grouped", f"{mean}_size")
        body.add("Expand", f"{mean}_group {mean}_size", f"{mean}_spread")
        body.add("Reshape", f"{mean}_spread by_channel", mean)
        if mean == "mean":
            body.add("Sub", "g_x mean", "centred")
            body.add("Mul", "centred centred", "squared")
    body.add("Add", "variance least", "positive")
    body.add("Sqrt", "positive", "deviation")
    body.add("Reshape", "g_weight affine", "weight")
    body.add("Reshape", "g_bias affine", "bias")
    body.add("Div", "weight deviation", "scale")
    body.add("Mul", "centred scale", "scaled")
    body.add("Add", "scaled bias", "g_normed")


OPERATORS: Mapping[str, Operator] = {
    "stgru_gates": Operator(
        inputs=("conv_t", "weight_t", "bias_t", "conv_s", "weight_s", "bias_s", "t", "s"),
        outputs=("next_t", "next_s"),
        attributes=("forget_bias", "epsilon"),
        body=_stgru_gates_body,
    ),
    "eifag": Operator(
        inputs=("cells*", "count", "input", "forget", "candidate"),
        outputs=("next_cell",),
        attributes=("forget_bias",),
        body=_eifag_body,
    ),
    "stau_attention": Operator(
        inputs=("keys*", "values*", "query", "gate", "current"),
        outputs=("fused",),
        attributes=("scale",),
        body=_stau_attention_body,
    ),
    "layer_norm": Operator(("x", "weight", "bias"), ("normed",), ("epsilon",), _layer_norm_body),
    "group_norm": Operator(("x", "weight", "bias"), ("normed",), ("epsilon",), _group_norm_body),
}


def function(name: str) -> FunctionProto:
    """Return the function of a node's type, as :func:`translations` names it: ``stgru_gates``, ``eifag_5``."""
    operator, count = OPERATORS.get(name), 0
    if operator is None:
        stem, _, digits = name.rpartition("_")
        operator, count = OPERATORS[stem], int(digits)
    body = Body()
    operator.body(body, count)
    return helper.make_function(
        DOMAIN,
        name,
        operator.expanded(count),
        [f"g_{output}" for output in operator.outputs],
        body.nodes,
        [helper.make_opsetid("", OPSET)],
        list(operator.attributes),
    )


def translations() -> dict[Any, Callable[..., Any]]:
    """Return a table for ``torch.onnx.export``, from torch operators to ONNX operators; ours have our own domain."""
    aten, ours = torch.ops.aten, torch.ops.framecast
    return {
        **{getattr(ours, name).default: _translation(name) for name in ("stgru_gates", "eifag", "stau_attention")},
        aten.layer_norm.default: _layer_norm,
        aten.group_norm.default: _group_norm,
        aten.gelu.default: _gelu,
    }


def _translation(name: str) -> Callable[..., Any]:
    """Return the translation of one of our operators. Its arguments are inputs, some of them lists, then attributes."""
    inputs = len(OPERATORS[name].inputs)

    def call(*arguments: Any) -> Any:
        tensors: list[Any] = []
        count = 0
        for value in arguments[:inputs]:
            tensors += value if isinstance(value, Sequence) else [value]
            count = len(value) if isinstance(value, Sequence) else count
        return _call(name, count, tensors, arguments[inputs:])

    return call


def _layer_norm(x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float = 1e-5, _cudnn: bool = True) -> Any:
    if len(shape) == 3 and math.prod(shape) >= MANY:
        return _call("layer_norm", 0, [x, weight, bias], [eps])
    normed, *_ = onnxscript.opset18.LayerNormalization(x, weight, bias, axis=-len(shape), epsilon=eps)
    return normed


def _group_norm(x: Any, groups: int, weight: Any, bias: Any, eps: float = 1e-5, _cudnn: bool = True) -> Any:
    return _call("group_norm", groups, [x, weight, bias], [eps])


def _gelu(x: Any) -> Any:
    """Write x·(1 + erf(x/√2))/2 in the order that ONNX Runtime fuses into one node. It does not fuse torch's order."""
    op = onnxscript.opset18
    erf = op.Erf(op.Div(x, op.Constant(value_float=math.sqrt(2))))
    return op.Mul(op.Mul(x, op.Add(erf, op.Constant(value_float=1.0))), op.Constant(value_float=0.5))


def _call(name: str, count: int, tensors: Sequence[Any], attributes: Sequence[Any]) -> Any:
    """Make a node of our domain."""
    operator = OPERATORS[name]
    schema = onnx.defs.OpSchema(
        f"{name}_{count}" if count else name,
        DOMAIN,
        1,
        inputs=[onnx.defs.OpSchema.FormalParameter(i, "T") for i in operator.expanded(count)],
        outputs=[onnx.defs.OpSchema.FormalParameter(f"g_{o}", "T") for o in operator.outputs],
        type_constraints=[("T", ["tensor(float)"], "")],
        attributes=[onnx.defs.OpSchema.Attribute(a, onnx.defs.OpSchema.AttrType.FLOAT) for a in operator.attributes],
    )
    target = onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, 1), schema.name, op_schema=schema)
    return target(*tensors, **dict(zip(operator.attributes, attributes, strict=True)))
