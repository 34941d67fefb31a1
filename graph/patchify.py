"""A graph pass that replaces torch's reshape-transpose-reshape for cutting or joining patches with one operator.

ONNX Runtime 1.31 on two cores (AMD EPYC), 3×512×512 with 2×2 patches: SpaceToDepth takes 0.14 ms, the six-axis
transpose 1.95 ms; DepthToSpace takes 0.82 ms, its transpose 2.20 ms. TensorRT supports both operators.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper, numpy_helper

_PATCHIFY = [0, 3, 5, 1, 2, 4]  # axes of [B, C, H/p, p, W/p, p]: see framecast.models.blocks
_UNPATCHIFY = [0, 3, 4, 1, 5, 2]  # axes of [B, p, p, C, H/p, W/p]


def fuse_patchify(proto: ModelProto) -> None:
    """Replace each equivalent reshape-transpose-reshape with SpaceToDepth or DepthToSpace (mode DCR), in place."""
    nodes, shapes = proto.graph.node, {i.name: i for i in proto.graph.initializer}
    made = {name: node for node in nodes for name in node.output}
    takers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            takers.setdefault(name, []).append(node)

    for after in [node for node in nodes if node.op_type == "Reshape"]:
        middle = made.get(after.input[0])
        before = made.get(middle.input[0]) if middle is not None and middle.op_type == "Transpose" else None
        if middle is None or before is None or before.op_type != "Reshape" or before.input[1] not in shapes:
            continue
        if any(len(takers[name]) > 1 for name in (*before.output, *middle.output)):
            continue
        sizes = numpy_helper.to_array(shapes[before.input[1]]).tolist()
        order = list(helper.get_node_attr_value(middle, "perm"))
        if order == _PATCHIFY and sizes[3] == sizes[5]:
            fused = helper.make_node("SpaceToDepth", before.input[:1], after.output, after.name, blocksize=sizes[3])
        elif order == _UNPATCHIFY and sizes[1] == sizes[2]:
            fused = helper.make_node(
                "DepthToSpace", before.input[:1], after.output, after.name, blocksize=sizes[1], mode="DCR"
            )
        else:
            continue
        after.CopyFrom(fused)
        nodes.remove(before)
        nodes.remove(middle)
