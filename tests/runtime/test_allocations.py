"""No allocation a frame in the steady state: what Python and numpy ask for is traced, and a picture would show.

``tracemalloc`` sees every array's data, those that OpenCV makes for its results too, and numpy's own buffers (for a
change of type, say). A frame counts as one that allocates where more than ``NOISE`` was in use at any moment of it than
before it: Python's own objects stay below, the mask of one plane of a picture is six times that. Arrays that were
released within the frame before others were made would hide these; in the steady state none is.

Outside of it: what a library allocates and never shows as an array. That is ONNX Runtime's arena (which keeps what it
has), FFmpeg's and V4L2's decoders, OpenCV's scratch inside one call (INTER_AREA's tables); and ``synthetic://`` and
images, which are computed or decoded anew in the source's thread. Engines on a GPU download into new arrays.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

import framecast
from framecast.camera import Frame, Source, open_source
from framecast.graph.manifest import Manifest
from framecast.runtime import convert, score
from framecast.runtime.engines import Engine, State, engine
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.score import SETTLE
from framecast.testing import ListSource

HEIGHT, WIDTH = 192, 256
NOISE = 8 << 10  # bytes, of Python's objects: up to 5 KB at 10 steps ahead
FRAMES = 20


class DimEngine(Engine):
    """Predicts frame × 0.9, without allocating."""

    name, device, version = "dim", "test", "0"

    def __init__(self, order: str = "BGR", outputs: int = 1) -> None:
        channels = 1 if order == "GRAY" else 3
        self.manifest = Manifest(
            *("Dim", "dim", (channels, HEIGHT, WIDTH), (), 1, 0, "random", "", "none"),
            channel_order=order,
            outputs=outputs,
            value_range=(-1.0, 1.0),
        )

    def step(self, frame: np.ndarray, state_in: State, state_out: State) -> np.ndarray:
        for k in range(self.manifest.outputs):
            np.multiply(frame, np.float32(0.9), out=state_out.prediction[:, k])
        prediction: np.ndarray = state_out.prediction
        return prediction

    def close(self) -> None:
        pass


def cameras(count: int, width: int = 640, height: int = 480) -> list[Frame]:
    """A camera's pictures, of noise; a few arrays, over and over."""
    images = np.random.default_rng().integers(0, 256, (4, height, width, 3), dtype=np.uint8)
    return [Frame(images[i % 4], i / 25, i) for i in range(count)]


def allocating(advance: Callable[[], object], warm: int) -> list[int]:
    """Bytes that were in use beyond what was before, at most, in each of ``FRAMES`` that needed more than ``NOISE``."""
    tracemalloc.start(1)
    try:
        for _ in range(warm):
            advance()
        most = []
        for _ in range(FRAMES):
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            advance()
            most.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return [size for size in most if size > NOISE]


def stepping(predictor: Predictor, horizon: int = 1) -> Callable[[], object]:
    rest = iter(cameras(400))

    def advance() -> None:
        predictor.step(next(rest).image)
        predictor.rollout(horizon)

    return advance


def running(source: Source, predictor: Predictor, horizon: int = 1) -> Callable[[], object]:
    """A pipeline's next event; the last three are held, as a recorder's queue would."""
    events: Iterator[object] = iter(Pipeline(source, predictor, lookahead=Lookahead(frames=horizon)))
    held: list[object] = []

    def advance() -> None:
        held.append(next(events))
        del held[:-3]

    return advance


@pytest.mark.parametrize("order", ["BGR", "RGB", "GRAY"])
@pytest.mark.parametrize("horizon", [1, 5])
def test_a_predictor(order: str, horizon: int) -> None:
    assert allocating(stepping(Predictor(DimEngine(order), watch=False), horizon), 5) == []


def test_a_predictor_of_several_frames_at_once() -> None:
    assert allocating(stepping(Predictor(DimEngine(outputs=3), watch=False), 7), 5) == []


def test_a_network_that_is_real() -> None:
    with framecast.load("stip-edge") as loaded:
        assert loaded.manifest.size == (WIDTH, HEIGHT)
        assert allocating(stepping(Predictor(loaded.engine, watch=False)), 10) == []


def test_the_model_of_motion_keeps_no_more_from_frame_to_frame() -> None:
    """It makes its arrays anew, a frame's worth; what a stream keeps does not grow."""
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8), (0, 0), 3)
    with framecast.load("edge") as predictor:
        held = []
        tracemalloc.start()
        try:
            for i in range(90):
                predictor.step(np.roll(picture, 2 * i, axis=1).astype(np.uint8), i / 25)
                predictor.rollout(3)
                held.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        assert predictor.events == {"first": 1, "new": 89}
    assert max(held[60:]) < max(held[30:60]) + 64 * NOISE


@pytest.mark.parametrize("horizon", [1, 2, 10])
def test_a_pipeline_with_its_scores(horizon: int) -> None:
    source = ListSource(cameras(200))
    assert allocating(running(source, Predictor(DimEngine(), watch=False), horizon), SETTLE + 3 * horizon + 5) == []


def test_a_pipeline_on_a_decoded_clip() -> None:
    with open_source("demo", loop=True) as source:
        assert allocating(running(source, Predictor(DimEngine(), watch=False)), 40) == []


def test_a_source_that_decodes() -> None:
    with open_source("demo", loop=True) as source:
        assert allocating(source.read, 5) == []


def spoiled(temporary: Callable[[np.ndarray], object], inner: Callable[..., object]) -> Callable[..., object]:
    """A function that makes a temporary of its first argument, and lets go of it at once."""

    def call(first: np.ndarray, *args: object, **kwargs: object) -> object:
        temporary(first)
        return inner(first, *args, **kwargs)

    return call


@pytest.mark.parametrize(
    ("place", "name", "temporary"),
    [
        (convert, "resize", lambda image: image.copy()),
        (cv2, "split", lambda seen: seen[..., ::-1].copy()),
        (np, "rint", lambda plane: plane > 0),
        (engine, "is_finite", lambda prediction: np.isfinite(prediction).all()),
        (engine, "to_image", lambda frame: frame * np.float32(255)),
        (score, "psnr", lambda image: image.astype(np.int16)),
        (cv2, "norm", lambda image: image == image),
    ],
)
def test_a_temporary_anywhere_shows_in_every_frame(
    place: object,
    name: str,
    temporary: Callable[[np.ndarray], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(place, name, spoiled(temporary, getattr(place, name)))
    assert len(allocating(running(ListSource(cameras(60)), Predictor(DimEngine(), watch=False)), SETTLE + 8)) == FRAMES


@pytest.mark.parametrize("horizon", [1, 3])
def test_pictures_that_are_no_longer_pooled_show(horizon: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert._pool, "take", lambda shape, dtype=np.uint8: np.empty(shape, dtype))
    advance = running(ListSource(cameras(60)), Predictor(DimEngine(), watch=False), horizon)
    assert len(allocating(advance, SETTLE + 8)) == FRAMES


def test_pictures_stay_as_they_are_while_they_are_held() -> None:
    pipeline = Pipeline(ListSource(cameras(60)), Predictor(DimEngine(), watch=False), lookahead=Lookahead(frames=3))
    held, copies = [], []
    for event in pipeline:
        pictures = [event.input, event.prediction.image, *([] if event.due is None else [event.due])]
        held += pictures
        copies += [picture.copy() for picture in pictures]
    assert all(np.array_equal(picture, copy) for picture, copy in zip(held, copies, strict=True))
