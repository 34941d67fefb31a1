"""In the steady state, no frame allocates arrays: ``tracemalloc`` traces what Python and numpy allocate.

``tracemalloc`` sees the data of every array, including OpenCV's results, and numpy's own buffers (for a change of type,
say). A frame counts as allocating if its peak memory exceeds the memory before it by more than ``NOISE``. Python's own
objects stay below that; the mask of one plane of a picture is six times as large. An array that is released early in
the frame could hide a new one; in the steady state there is no such array.

Not measured: memory that a library never shows as an array, such as ONNX Runtime's arena (which keeps its memory),
FFmpeg's and V4L2's decoders, and OpenCV's scratch inside a call (INTER_AREA's tables). Not tested: ``synthetic://`` and
images, which the source's thread computes or decodes into new arrays, and engines on a GPU, which download into new
arrays.
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
NOISE = 8 << 10  # bytes: Python's own objects need up to 5 KB at 10 steps ahead
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
    """Frames of noise; four arrays that repeat, as a camera's buffers do."""
    images = np.random.default_rng().integers(0, 256, (4, height, width, 3), dtype=np.uint8)
    return [Frame(images[i % 4], i / 25, i) for i in range(count)]


def allocating(advance: Callable[[], object], warm: int) -> list[int]:
    """For each of ``FRAMES`` frames that needs more than ``NOISE``: its peak bytes above the memory before it."""
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
    """A function that takes a pipeline's next event. The last three are held, as in a recorder's queue."""
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


def test_a_real_network() -> None:
    with framecast.load("stip-edge") as loaded:
        assert loaded.manifest.size == (WIDTH, HEIGHT)
        assert allocating(stepping(Predictor(loaded.engine, watch=False)), 10) == []


def test_the_memory_of_edge_does_not_grow() -> None:
    """It allocates new arrays for each frame, but the memory that a stream keeps does not grow."""
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


def with_temporary(temporary: Callable[[np.ndarray], object], inner: Callable[..., object]) -> Callable[..., object]:
    """Wrap ``inner`` so that each call first makes a temporary from its first argument and drops it."""

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
def test_a_temporary_array_anywhere_is_found_in_every_frame(
    place: object,
    name: str,
    temporary: Callable[[np.ndarray], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(place, name, with_temporary(temporary, getattr(place, name)))
    assert len(allocating(running(ListSource(cameras(60)), Predictor(DimEngine(), watch=False)), SETTLE + 8)) == FRAMES


@pytest.mark.parametrize("horizon", [1, 3])
def test_pictures_outside_the_pool_are_found(horizon: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert._pool, "take", lambda shape, dtype=np.uint8: np.empty(shape, dtype))
    advance = running(ListSource(cameras(60)), Predictor(DimEngine(), watch=False), horizon)
    assert len(allocating(advance, SETTLE + 8)) == FRAMES


def test_pictures_do_not_change_while_they_are_held() -> None:
    pipeline = Pipeline(ListSource(cameras(60)), Predictor(DimEngine(), watch=False), lookahead=Lookahead(frames=3))
    held, copies = [], []
    for event in pipeline:
        pictures = [event.input, event.prediction.image, *([] if event.due is None else [event.due])]
        held += pictures
        copies += [picture.copy() for picture in pictures]
    assert all(np.array_equal(picture, copy) for picture, copy in zip(held, copies, strict=True))
