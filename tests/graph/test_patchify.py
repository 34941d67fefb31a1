"""Patching becomes one operator and gives the same values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from framecast.graph.patchify import fuse_patchify
from framecast.models.blocks import patchify, unpatchify


class Patches(nn.Module):
    """Cuts a frame into patches, doubles their values and, unless ``shared``, turns them back into a frame."""

    def __init__(self, patch: int, shared: bool) -> None:
        super().__init__()
        self.patch, self.shared = patch, shared

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        patches = patchify(frame, self.patch)
        if self.shared:  # another node reads the intermediate tensor
            b, c, h, w = frame.shape
            p = self.patch
            blocks = frame.reshape(b, c, h // p, p, w // p, p).permute(0, 3, 5, 1, 2, 4)
            return patches, blocks * 2
        return patches, unpatchify(2 * patches, self.patch)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # from torch's exporter
@pytest.mark.parametrize(("patch", "shared", "operators"), [(2, False, 2), (4, False, 2), (2, True, 0), (1, False, 0)])
def test_patching_becomes_one_operator(patch: int, shared: bool, operators: int, tmp_path: Path) -> None:
    frame = torch.rand(2, 3, 8, 16)
    module = Patches(patch, shared).eval()
    program = torch.onnx.export(module, (frame,), dynamo=True, verbose=False, opset_version=18)
    assert program is not None
    proto = program.model_proto
    before = [node.op_type for node in proto.graph.node].count("Transpose")
    fuse_patchify(proto)
    onnx.checker.check_model(proto, full_check=True)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("SpaceToDepth") + kinds.count("DepthToSpace") == operators
    assert kinds.count("Transpose") == before - operators
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: frame.numpy()})
    for value, expected in zip(found, module(frame), strict=True):
        assert np.array_equal(value, expected.numpy())
