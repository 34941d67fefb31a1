"""The device graph gives the same result as the host's conversions and the artifact's step."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from torch import Tensor

from framecast.errors import ExportError
from framecast.export.onnx import describe, to_onnx
from framecast.graph.device import area_weights, device_graph
from framecast.graph.manifest import KEY, Manifest
from framecast.models.step import State, StepModel
from framecast.runtime.convert import blank_frame, to_frame, to_image, to_model_size

HEIGHT, WIDTH = 24, 32


class Fading(StepModel):
    """Predicts the frame that it sees, a little darker at each further step."""

    warmup = 1
    outputs = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frame_shape = (channels, HEIGHT, WIDTH)
        self.state_shapes = {"last": self.frame_shape}
        self.weight = torch.nn.Parameter(torch.tensor(0.9))

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        mixed = self.weight * frame + 0.01 * state["last"]
        return torch.stack([mixed, self.weight * mixed], dim=1), {"last": frame}


@functools.cache
def exported(channels: int) -> tuple[ModelProto, Manifest]:
    model = Fading(channels).eval()
    manifest = describe(model, "fading")
    return to_onnx(model, manifest), manifest


def artifact(channels: int, **changes: Any) -> tuple[ModelProto, Manifest]:
    proto, manifest = ModelProto(), dataclasses.replace(exported(channels)[1], **changes)
    proto.CopyFrom(exported(channels)[0])
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {KEY: manifest.to_json()})
    return proto, manifest


def run(proto: ModelProto, **inputs: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


CAMERA = np.array([True])


def kept(batch: int, pick: int = 0) -> dict[str, Any]:
    return {"keep": np.ones(batch, np.float32), "pick": np.array([pick], np.int64)}


CASES = [
    (3, {}),
    (3, {"channel_order": "RGB", "value_range": (-1.0, 1.0)}),
    (1, {"channel_order": "GRAY"}),
    (3, {"visible": (20, 30), "value_range": (-1.0, 1.0)}),
]


@pytest.mark.parametrize(("channels", "changes"), CASES)
@pytest.mark.parametrize("batch", [1, 2])
def test_pictures_match_the_host(channels: int, changes: dict[str, Any], batch: int) -> None:
    proto, manifest = artifact(channels, **changes)
    rng = np.random.default_rng()
    width, height = manifest.size
    images = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    images = np.stack([to_model_size(image, manifest) for image in images])
    last = rng.random((batch, *manifest.frame), np.float32)
    fed = np.full((batch, manifest.outputs, *manifest.frame), np.nan, np.float32)
    got = run(device_graph(proto), image=images, fed=fed, camera=CAMERA, **kept(batch), **{"state.last": last})
    for b, image in enumerate(images):
        frame = blank_frame(manifest)
        to_frame(image, manifest, frame[0])
        expected = run(proto, frame=frame, **{"state.last": last[b : b + 1]})
        assert np.array_equal(got["prediction"][b], expected["prediction"][0])
        assert np.array_equal(got["next.last"][b], frame[0])
        for k in range(manifest.outputs):
            assert np.array_equal(got["shown"][b, k], to_image(expected["prediction"][0, k], manifest))
    assert got["finite"].tolist() == [1] * batch


def test_a_prediction_is_fed_back_unchanged() -> None:
    proto, manifest = artifact(3)
    image = np.full((1, HEIGHT, WIDTH, 3), 77, np.uint8)
    fed = (3 * np.random.default_rng().standard_normal((2, 2, *manifest.frame))).astype(np.float32)  # not clamped
    state = {"state.last": np.zeros((2, *manifest.frame), np.float32)}
    image = image.repeat(2, axis=0)
    for pick in range(2):
        got = run(device_graph(proto), image=image, fed=fed, camera=~CAMERA, **kept(2, pick), **state)
        assert np.array_equal(got["prediction"], run(proto, frame=fed[:, pick], **state)["prediction"])
        assert np.array_equal(got["next.last"], fed[:, pick])
    assert got["shown"].min() == 0  # clamped, not wrapped around
    assert got["shown"].max() == 255


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_flagged_one_by_one(value: float) -> None:
    proto, manifest = artifact(3)
    fed = np.zeros((3, 2, *manifest.frame), np.float32)
    fed[1, 0, 2, 5, 6] = value
    image, last = np.zeros((3, HEIGHT, WIDTH, 3), np.uint8), np.zeros((3, *manifest.frame), np.float32)
    got = run(device_graph(proto), image=image, fed=fed, camera=~CAMERA, **kept(3), **{"state.last": last})
    assert got["finite"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("poison", [1.5, np.nan, np.inf])
def test_rows_are_reset_one_by_one(poison: float) -> None:
    proto, manifest = artifact(3)
    image = np.full((3, HEIGHT, WIDTH, 3), 77, np.uint8)
    fed = np.zeros((3, 2, *manifest.frame), np.float32)
    last = np.random.default_rng().random((3, *manifest.frame), np.float32)
    expected = last.copy()
    last[1], expected[1] = poison, 0
    inputs = {"image": image, "fed": fed, "camera": CAMERA, **kept(3)}
    whole = run(device_graph(proto), **inputs, **{"state.last": expected})
    inputs["keep"] = np.array([1, 0, 5], np.float32)
    got = run(device_graph(proto), **inputs, **{"state.last": last})
    assert all(np.array_equal(got[name], whole[name]) for name in whole)


@pytest.mark.parametrize(("channels", "changes"), CASES)
@pytest.mark.parametrize("camera", [(64, 48), (65, 71), (32, 24), (40, 30), (17, 13), (80, 12)])
def test_resizing_matches_opencv(channels: int, changes: dict[str, Any], camera: tuple[int, int]) -> None:
    proto, manifest = artifact(channels, **changes)
    image = np.random.default_rng().integers(0, 256, (camera[1], camera[0], 3), dtype=np.uint8)
    state = {"state.last": np.zeros((1, *manifest.frame), np.float32)}
    fed = np.zeros((1, 2, *manifest.frame), np.float32)
    got = run(device_graph(proto, camera), image=image[None], fed=fed, camera=CAMERA, **kept(1), **state)
    expected = to_model_size(image, manifest)
    # OpenCV enlarges, weighs other areas and converts to grey in fixed point or float: its last digit may differ.
    exact = camera == (64, 48) and manifest.size == (32, 24) and channels == 3
    assert np.abs(got["seen"][0].astype(int) - expected).max() <= (0 if exact else 1)
    frame = blank_frame(manifest)
    to_frame(got["seen"][0], manifest, frame[0])
    assert np.allclose(got["prediction"], run(proto, frame=frame, **state)["prediction"], atol=1e-6)


@pytest.mark.parametrize(("size", "target"), [((64, 48), (32, 24)), ((50, 70), (32, 24)), ((20, 70), (32, 24))])
def test_area_weights_match_opencv_in_float(size: tuple[int, int], target: tuple[int, int]) -> None:
    picture = np.random.default_rng().random((size[1], size[0]), np.float32)
    rows, columns = area_weights(size, target)
    expected = cv2.resize(picture, target, interpolation=cv2.INTER_AREA)
    assert np.allclose(rows @ picture @ columns, expected, atol=1e-5)


def test_unusable_artifacts_are_refused() -> None:
    proto, _ = artifact(2)
    with pytest.raises(ExportError, match="its channels are not a picture"):
        device_graph(proto)
    del proto.metadata_props[:]
    with pytest.raises(ExportError, match="no framecast manifest"):
        device_graph(proto)
