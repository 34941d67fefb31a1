"""Our operators in ONNX: model-local functions with a body in standard operators.

ONNX Runtime inlines the body; TensorRT can put a plugin in its place. TensorRT looks functions up by name alone, so
names are unique, and inputs are prefixed so that none is mistaken for an outer tensor's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import onnxscript
import torch
from onnx import FunctionProto, NodeProto, helper

from framecast.kernels.stgru_gates import stgru_gates as _registers_the_operator  # noqa: F401

DOMAIN = "framecast"
OPSET = 18  # the newest that the ONNX Runtime of Python 3.10 (1.23) and TensorRT 10 both read

_INPUTS = ("conv_t", "weight_t", "bias_t", "conv_s", "weight_s", "bias_s", "t", "s")
_ATTRIBUTES = ("forget_bias", "epsilon")


def stgru_gates() -> FunctionProto:
    """``framecast::stgru_gates``, layer norms inside: see :func:`framecast.kernels.stgru_gates.stgru_gates`."""
    nodes = []

    def node(op: str, inputs: str, outputs: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(op, inputs.split(), outputs.split(), **attributes))

    def refer(target: NodeProto, name: str, source: str, kind: onnx.AttributeProto.AttributeType) -> None:
        target.attribute.append(onnx.AttributeProto(name=name, type=kind, ref_attr_name=source))

    for x in "ts":
        node("LayerNormalization", f"g_conv_{x} g_weight_{x} g_bias_{x}", f"norm_{x}", axis=-3)
        refer(nodes[-1], "epsilon", "epsilon", onnx.AttributeProto.FLOAT)
        node("Split", f"norm_{x}", f"z_{x} r_{x} t_{x} s_{x}", axis=1, num_outputs=4)
    node("Constant", "", "forget")
    refer(nodes[-1], "value_float", "forget_bias", onnx.AttributeProto.FLOAT)
    node("Constant", "", "one", value_float=1.0)
    node("Add", "z_t z_s", "z_sum")
    node("Add", "z_sum forget", "z_biased")
    node("Sigmoid", "z_biased", "update")
    node("Add", "r_t r_s", "r_sum")
    node("Sigmoid", "r_sum", "reset")
    node("Sub", "one update", "renew")
    for x, own, other in (("t", "t_t", "t_s"), ("s", "s_s", "s_t")):
        node("Mul", f"reset {other}", f"{x}_gated")
        node("Add", f"{own} {x}_gated", f"{x}_sum")
        node("Tanh", f"{x}_sum", f"{x}_candidate")
        node("Mul", f"renew {x}_candidate", f"{x}_new")
        node("Mul", f"update g_{x}", f"{x}_kept")
        node("Add", f"{x}_new {x}_kept", f"g_next_{x}")
    return helper.make_function(
        DOMAIN,
        "stgru_gates",
        [f"g_{name}" for name in _INPUTS],
        ["g_next_t", "g_next_s"],
        nodes,
        [helper.make_opsetid("", OPSET)],
        list(_ATTRIBUTES),
    )


FUNCTIONS: Mapping[str, Callable[[], FunctionProto]] = {"stgru_gates": stgru_gates}


def translations() -> dict[Any, Callable[..., Any]]:
    """For ``torch.onnx.export``: each torch operator of ours to a bare ONNX operator of our domain."""
    schema = onnx.defs.OpSchema(
        "stgru_gates",
        DOMAIN,
        1,
        inputs=[onnx.defs.OpSchema.FormalParameter(f"g_{name}", "T") for name in _INPUTS],
        outputs=[onnx.defs.OpSchema.FormalParameter(f"g_next_{name}", "T") for name in "ts"],
        type_constraints=[("T", ["tensor(float)"], "")],
        attributes=[onnx.defs.OpSchema.Attribute(name, onnx.defs.OpSchema.AttrType.FLOAT) for name in _ATTRIBUTES],
    )
    operator = onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, 1), "stgru_gates", op_schema=schema)

    def call(*args: Any) -> Any:
        *tensors, forget_bias, epsilon = args
        return operator(*tensors, forget_bias=forget_bias, epsilon=epsilon)

    return {torch.ops.framecast.stgru_gates.default: call}
