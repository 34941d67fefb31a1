"""Normalisations over many elements are as exact in ONNX Runtime as float32 allows."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from framecast.export.functions import MANY, function, translations
from framecast.graph.manifest import DOMAIN
from framecast.kernels.stgru_gates.operator import stgru_gates

LARGE = (896, 16, 16)  # ASTM's: 229,376 elements


def exported(module: nn.Module, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """Export a module; return the results of ONNX Runtime and of float64, and our functions in the graph."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = 0.7 * torch.randn(3, *shape) + 0.3
    program = torch.onnx.export(
        module.eval(),
        (x,),
        input_names=["x"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},),
        custom_translation_table=translations(),
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    used = {node.op_type for node in proto.graph.node if node.domain == DOMAIN}
    proto.functions.extend(map(function, used))
    proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x.numpy()})
    with torch.inference_mode():
        expected = module.double()(x.double()).numpy()
    return found, expected, used


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest error relative to max(1, |expected|), because random weights make some results large."""
    return float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [LARGE, (7, 90, 83), (3, 5, 4)])
def test_layer_norm(shape: tuple[int, ...]) -> None:
    found, expected, operators = exported(nn.LayerNorm(shape), shape)
    assert error(found, expected) < 2.5e-6  # with ONNX's own operator, 6e-6 to 9e-6 for LARGE
    assert operators == ({"layer_norm"} if np.prod(shape) >= MANY else set())


class Gates(nn.Module):
    """STGRU's gates over [C, 4·B, H, W]: both convolutions' outputs, and states of zero."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.norm_t, self.norm_s = nn.LayerNorm(shape), nn.LayerNorm(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros_like(x[:, : x.shape[1] // 4])
        norms = self.norm_t.weight, self.norm_t.bias, self.norm_s.weight, self.norm_s.bias
        return stgru_gates(x, *norms[:2], x.flip(1), *norms[2:], state, state)[0]


@pytest.mark.filterwarnings("ignore")
def test_the_norms_inside_stgrus_gates() -> None:
    found, expected, operators = exported(Gates((256, 16, 16)), (256, 16, 16))  # STIP-UCF's: 65,536 elements
    assert error(found, expected) < 1e-6  # with ONNX's own operator, 1.3e-6
    assert operators == {"stgru_gates"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("groups", "shape"), [(2, (64, 96, 128)), (3, (6, 5, 7)), (1, (4, 3, 3))])
def test_group_norm(groups: int, shape: tuple[int, ...]) -> None:
    found, expected, operators = exported(nn.GroupNorm(groups, shape[0]), shape)
    assert error(found, expected) < 2.5e-6
    assert operators == {f"group_norm_{groups}"}
