"""Our operators in ONNX: model-local functions with a body in standard operators.

ONNX Runtime inlines the body; TensorRT can put a plugin in its place. TensorRT looks functions up by name alone, so
names are unique, and inputs are prefixed so that none is mistaken for an outer tensor's. A function has a fixed number
of inputs: where an operator takes lists, their length is part of its ONNX name (``eifag_5``).

``framecast inspect`` finds what it shows by the names that the bodies give: ``update``, ``reset``, ``weights``,
``fusion``, ``gate``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnxscript
import torch
from onnx import AttributeProto, FunctionProto, NodeProto, helper

from framecast.kernels.eifag import eifag as _eifag  # noqa: F401 (registers the operator, as those below do)
from framecast.kernels.stau_attention import stau_attention as _stau_attention  # noqa: F401
from framecast.kernels.stgru_gates import stgru_gates as _stgru_gates  # noqa: F401

DOMAIN = "framecast"
OPSET = 18  # the newest that the ONNX Runtime of Python 3.10 (1.23) and TensorRT 10 both read


class Body:
    """Nodes of a function, one line each: names are separated by blanks."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def add(self, op: str, inputs: str | Sequence[str], outputs: str, **attributes: Any) -> None:
        """Append a node."""
        names = inputs.split() if isinstance(inputs, str) else list(inputs)
        self.nodes.append(helper.make_node(op, names, outputs.split(), **attributes))

    def refer(self, name: str, source: str) -> None:
        """Take the last node's attribute from the function's own."""
        self.nodes[-1].attribute.append(AttributeProto(name=name, type=AttributeProto.FLOAT, ref_attr_name=source))

    def constant(self, output: str, value: float | str) -> None:
        """A scalar: a number, or the name of the function's attribute."""
        if isinstance(value, str):
            self.add("Constant", "", output)
            self.refer("value_float", value)
        else:
            self.add("Constant", "", output, value_float=value)


@dataclass(frozen=True)
class Operator:
    """A torch operator of ours and its ONNX function.

    Attributes:
        inputs: tensors in the operator's order; a name that ends in ``*`` is a list of them.
        outputs: what it gives.
        attributes: its floats, which follow the tensors.
        body: writes the function's nodes, for lists of a given length.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    body: Callable[[Body, int], None]

    def expanded(self, length: int) -> list[str]:
        """Names of the function's inputs."""
        names: list[str] = []
        for name in self.inputs:
            names += [f"g_{name[:-1]}_{i}" for i in range(length)] if name.endswith("*") else [f"g_{name}"]
        return names


def _stgru_gates_body(body: Body, _: int) -> None:
    for x in "ts":
        body.add("LayerNormalization", f"g_conv_{x} g_weight_{x} g_bias_{x}", f"norm_{x}", axis=-3)
        body.refer("epsilon", "epsilon")
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
    """The softmax written out: over lists no axis is needed, and nothing is stacked."""
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
}


def function(name: str) -> FunctionProto:
    """The function of a node's name, as :func:`translations` gave it: ``stgru_gates``, ``eifag_5``."""
    operator, length = OPERATORS.get(name), 0
    if operator is None:
        stem, _, digits = name.rpartition("_")
        operator, length = OPERATORS[stem], int(digits)
    body = Body()
    operator.body(body, length)
    return helper.make_function(
        DOMAIN,
        name,
        operator.expanded(length),
        [f"g_{output}" for output in operator.outputs],
        body.nodes,
        [helper.make_opsetid("", OPSET)],
        list(operator.attributes),
    )


def translations() -> dict[Any, Callable[..., Any]]:
    """For ``torch.onnx.export``: each torch operator of ours to a bare ONNX operator of our domain."""
    return {getattr(torch.ops.framecast, name).default: _translation(name) for name in OPERATORS}


def _translation(name: str) -> Callable[..., Any]:
    operator = OPERATORS[name]

    def call(*arguments: Any) -> Any:
        count = len(operator.inputs)
        tensors: list[Any] = []
        length = 0
        for value in arguments[:count]:
            tensors += value if isinstance(value, Sequence) else [value]
            length = len(value) if isinstance(value, Sequence) else length
        schema = onnx.defs.OpSchema(
            f"{name}_{length}" if length else name,
            DOMAIN,
            1,
            inputs=[onnx.defs.OpSchema.FormalParameter(i, "T") for i in operator.expanded(length)],
            outputs=[onnx.defs.OpSchema.FormalParameter(f"g_{o}", "T") for o in operator.outputs],
            type_constraints=[("T", ["tensor(float)"], "")],
            attributes=[
                onnx.defs.OpSchema.Attribute(a, onnx.defs.OpSchema.AttrType.FLOAT) for a in operator.attributes
            ],
        )
        target = onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, 1), schema.name, op_schema=schema)
        return target(*tensors, **dict(zip(operator.attributes, arguments[count:], strict=True)))

    return call
