"""Normalisations over many elements: as exact in ONNX Runtime as float32 allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from framecast.export.norms import MANY, TRANSLATIONS

LARGE = (896, 16, 16)  # ASTM's: 229,376 elements


def exported(module: nn.Module, shape: tuple[int, ...], path: Path) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """What ONNX Runtime gives, what float64 gives, and the operators of the graph."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = 0.7 * torch.randn(3, *shape) + 0.3
    program = torch.onnx.export(
        module.eval(),
        (x,),
        input_names=["x"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},),
        custom_translation_table=TRANSLATIONS,
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x.numpy()})
    with torch.inference_mode():
        expected = module.double()(x.double()).numpy()
    return found, expected, {node.op_type for node in program.model_proto.graph.node}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [LARGE, (7, 90, 83), (3, 5, 4)])
def test_layer_norm(tmp_path: Path, shape: tuple[int, ...]) -> None:
    found, expected, operators = exported(nn.LayerNorm(shape), shape, tmp_path / "n.onnx")
    assert np.abs(found - expected).max() < 4e-6  # the plain operator: 9e-6 for the first of them
    assert ("LayerNormalization" in operators) == (np.prod(shape) < MANY)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("groups", "shape"), [(2, (64, 96, 128)), (3, (6, 5, 7)), (1, (4, 3, 3))])
def test_group_norm(tmp_path: Path, groups: int, shape: tuple[int, ...]) -> None:
    found, expected, _ = exported(nn.GroupNorm(groups, shape[0]), shape, tmp_path / "n.onnx")
    assert np.abs(found - expected).max() < 4e-6
