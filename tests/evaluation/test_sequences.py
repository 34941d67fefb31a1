"""Test sequences, by the papers' protocol: float frames, starting from a reset, every frame scored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

import framecast
from framecast.camera import moving_mnist
from framecast.camera.digits import Drift
from framecast.errors import EngineError, OptionError, SourceError
from framecast.evaluation.made import open_made
from framecast.evaluation.metrics import METRICS, Truth
from framecast.evaluation.samples import open_sequences
from framecast.evaluation.sequences import evaluate_sequences, forecast
from framecast.evaluation.tables import notes
from framecast.graph.artifact import save
from framecast.models.tau import TAU
from framecast.training.objectives import predict_clip

from ..exported import pair  # noqa: TID252 (pytest's importlib mode puts no folder on the path)
from .conftest import HEIGHT, WIDTH, MakeContender  # noqa: TID252 (likewise)

ROOT = Path(__file__).resolve().parents[2]
MNIST = ROOT.parent / "shared" / "mnist"
WriteClip = Callable[[str, list[np.ndarray]], Path]
GIVEN, LENGTH = 4, 9


def sequences(count: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """uint8 [LENGTH, count, H, W] that change slowly enough not to clip at once."""
    rng = np.random.default_rng()
    steps = rng.integers(-20, 21, (LENGTH, count, *size))
    return np.clip(128 + np.cumsum(steps, axis=0), 0, 255).astype(np.uint8)


def by_hand(given: np.ndarray, horizon: int, outputs: int) -> np.ndarray:
    """The prediction of conftest.py's model after uint8 frames [t, H, W], in float64."""
    values = list(given / 255.0)
    predicted: list[np.ndarray] = []
    while len(predicted) < horizon:
        change = 0.4 * (values[-1] - values[-2])
        block = [values[-1] + (k + 1) * change for k in range(outputs)]
        values += block
        predicted += block
    return np.stack(predicted[:horizon])


@pytest.mark.parametrize("outputs", [1, 2, 5, 7])
def test_forecast_is_an_unclamped_rollout(contender: MakeContender, outputs: int) -> None:
    frames = sequences(1)[:GIVEN, 0]
    model = contender(order="GRAY", outputs=outputs)
    found = forecast(model.predictor.engine, frames[..., None], 5)
    assert found.shape == (5, HEIGHT, WIDTH, 1)
    assert np.allclose(found[..., 0], by_hand(frames, 5, outputs), atol=1e-5)

    for frame in frames:
        model.predictor.step(np.repeat(frame[..., None], 3, axis=2))
    for image, prediction in zip(found, model.predictor.rollout(5), strict=True):
        assert np.abs(np.clip(255 * image, 0, 255) - prediction.image).max() <= 0.501  # rounded


def test_every_figure_matches_a_plain_recomputation(contender: MakeContender, tmp_path: Path) -> None:
    array = sequences(3)
    np.save(tmp_path / "test.npy", array)
    results = evaluate_sequences([contender(order="GRAY", outputs=2)], [str(tmp_path / "test.npy")], given=GIVEN)
    assert results.methods == ("copy-last", "linear", "trend")
    (clip,) = results.clips
    assert (clip.name, clip.frames, len(results.ahead), results.given) == ("test", 3, LENGTH - GIVEN, GIVEN)
    assert (clip.size, clip.ahead_ms, clip.cpu_ms) == ((WIDTH, HEIGHT), None, None)
    assert clip.scored == (3,) * len(results.ahead)
    for k in range(1, len(results.ahead) + 1):
        mse, mae, ssim, copied, linear = [], [], [], [], []
        for n in range(3):
            truth = array[GIVEN + k - 1, n]
            guess = by_hand(array[:GIVEN, n], k, 2)[-1]
            mse.append(((guess - truth / 255) ** 2).sum())
            mae.append(np.abs(guess - truth / 255).sum())
            ssim.append(Truth(truth[..., None]).compare(guess[..., None]).ssim(data_range=2))
            copied.append(((array[GIVEN - 1, n] / 255 - truth / 255) ** 2).sum())
            last, before = (array[GIVEN - i, n].astype(np.float64) for i in (1, 2))
            linear.append((((last + k * (last - before)).clip(0, 255) - truth) ** 2).sum() / 255**2)
        assert results.of(clip.values, "linear", "mse")[k - 1] == pytest.approx(np.mean(linear))
        assert results.of(clip.values, "trend", "mse")[k - 1] == pytest.approx(np.mean(mse), rel=1e-4)
        assert results.of(clip.values, "trend", "mae")[k - 1] == pytest.approx(np.mean(mae), rel=1e-4)
        assert results.of(clip.values, "trend", "ssim_published")[k - 1] == pytest.approx(np.mean(ssim), abs=1e-4)
        assert results.of(clip.values, "copy-last", "mse")[k - 1] == pytest.approx(np.mean(copied))
    assert clip.strip.labels == ("next frame", f"{LENGTH - GIVEN} frames ahead")
    assert np.array_equal(clip.strip.last[..., 0], array[GIVEN - 1, 1])


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_colour_and_clips_from_a_reset(
    contender: MakeContender, write_clip: WriteClip, tmp_path: Path, order: str
) -> None:
    """A file in colour, and a folder of the same frames: 20 frames are two sequences of nine; two are left over."""
    rng = np.random.default_rng()
    frames = np.clip(128 + np.cumsum(rng.integers(-20, 21, (20, HEIGHT, WIDTH, 3)), axis=0), 0, 255).astype(np.uint8)
    array = np.stack([frames[:9], frames[9:18]], axis=1)
    np.save(tmp_path / "test.npy", array)
    model = contender(order=order, outputs=2)
    of_file = evaluate_sequences([model], [str(tmp_path / "test.npy")], given=4, predict=3).clips[0]
    for k in range(3):
        errors = [(by_hand(array[:4, n], 3, 2)[k] - array[4 + k, n] / 255) ** 2 for n in range(2)]
        assert of_file.values[2, k, list(METRICS).index("mse")] == pytest.approx(
            np.mean([error.sum() for error in errors]), rel=1e-4
        )
    clip = str(write_clip("clip", list(frames)))
    results = evaluate_sequences([model], [clip, str(tmp_path / "test.npy")], given=4, predict=5)
    of_clip, of_file = results.clips
    assert (of_clip.name, of_clip.frames, of_clip.size, of_clip.scored) == ("clip", 2, (WIDTH, HEIGHT), (2,) * 5)
    assert np.allclose(of_clip.values, of_file.values, rtol=1e-12)
    assert of_clip.strip.last.shape == (HEIGHT, WIDTH, 3)


def test_clips_for_a_grey_model_become_grey(contender: MakeContender, write_clip: WriteClip) -> None:
    frames = sequences(10)[0][..., None].repeat(3, axis=3)
    found = evaluate_sequences([contender(order="GRAY")], [str(write_clip("grey", list(frames)))], given=4, predict=3)
    assert np.array_equal(found.clips[0].strip.last, frames[3, ..., :1])


def test_a_data_set_is_one_row(contender: MakeContender, write_clip: WriteClip, tmp_path: Path) -> None:
    """KITTI to Caltech: every third frame, its centre. The layout gives the protocol. Short clips are listed."""
    caltech = tmp_path / "caltech"
    (caltech / "set06").mkdir(parents=True)
    rng = np.random.default_rng()
    wide = [rng.integers(0, 256, (HEIGHT, 2 * WIDTH, 3), np.uint8) for _ in range(66)]
    write_clip("caltech/set06/V000", wide)
    write_clip("caltech/set06/V001", wide[:9])
    found = framecast.evaluate({"trend": contender().predictor}, caltech, layout="kitti-caltech")
    assert (found.given, len(found.ahead), found.clips[0].frames) == (10, 1, 2)
    assert np.array_equal(found.clips[0].strip.last, wide[27][:, WIDTH // 2 : -(WIDTH // 2)])
    assert found.skipped == (("set06/V001", "set06/V001: it has 3 frames, but a sequence has 11"),)
    assert notes(found)[:2] == ["skipped 1 clips:", "  set06/V001: it has 3 frames, but a sequence has 11"]


def test_tau_predicts_more_frames_than_it_has_by_recursion(tmp_path: Path) -> None:
    """As in OpenSTL's test on KTH, the block of predictions is the next block of inputs."""
    model, proto = pair("tau-clip")
    save(proto, tmp_path / "tau.onnx")
    frames = np.random.default_rng().integers(0, 256, (5, 16, 24, 1), np.uint8)
    with torch.inference_mode():
        expected = predict_clip(
            cast(TAU, model), torch.from_numpy(frames).permute(0, 3, 1, 2)[:, None].float() / 255, 13
        )
    with framecast.load(tmp_path / "tau.onnx") as predictor:
        found = forecast(predictor.engine, frames, 13)
    assert np.allclose(found[..., 0], expected[0, :, 0].numpy(), atol=1e-4)


def test_moving_mnist_is_the_set_of_its_seed(contender: MakeContender, tmp_path: Path) -> None:
    array = moving_mnist.test_set(Drift().read_digits(), sequences=2, length=14)
    np.save(tmp_path / "test.npy", array)
    model = contender(order="GRAY", outputs=4, size=(64, 64))
    made, read = (
        evaluate_sequences([model], [place], given=GIVEN, limit=2)
        for place in ("mnist://?scene=14", str(tmp_path / "test.npy"))
    )
    assert np.array_equal(made.clips[0].values, read.clips[0].values)
    digest = hashlib.sha256(array.transpose(1, 0, 2, 3).tobytes()).hexdigest()
    assert [clip.origin[1] for clip in (*made.clips, *read.clips) if clip.origin] == [digest, digest]
    (line,) = (line for line in notes(made) if digest in line)
    assert line.startswith("mnist, seed 0: 2 sequences, SHA-256")
    assert "300 training digits that ship" in line
    assert made.to_dict()["clips"][0]["sha256"] == digest
    with pytest.raises(SourceError, match="mnist:// has no fps here"):
        evaluate_sequences([model], ["mnist://?fps=3"])


@pytest.mark.skipif(not MNIST.is_dir(), reason="no ../shared/mnist")
def test_the_hash_of_the_first_hundred_test_sequences_is_the_documented_one() -> None:
    made = open_made(f"mnist://{MNIST}/t10k-images-idx3-ubyte.gz")
    assert made.shape == (20, 10_000, 64, 64)
    digest = hashlib.sha256(b"".join(made[:, index].tobytes() for index in range(100))).hexdigest()
    assert f"first 100: `{digest}`" in (ROOT / "docs" / "moving-mnist.md").read_text()


def test_limit_takes_the_first_sequences(contender: MakeContender, tmp_path: Path) -> None:
    array = sequences(4)
    np.save(tmp_path / "all.npy", array)
    np.save(tmp_path / "two.npy", array[:, :2])
    model = contender(order="GRAY")
    first = evaluate_sequences([model], [str(tmp_path / "all.npy")], given=GIVEN, limit=2)
    two = evaluate_sequences([model], [str(tmp_path / "two.npy")], given=GIVEN)
    assert first.clips[0].frames == 2
    assert np.array_equal(first.clips[0].values, two.clips[0].values)


def test_bad_files(tmp_path: Path) -> None:
    good = tmp_path / "good.npy"
    np.save(good, sequences(2))
    (tmp_path / "cut.npy").write_bytes(good.read_bytes()[:-100])
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "floats.npy", np.zeros((5, 2, 8, 8)))
    np.save(tmp_path / "flat.npy", np.zeros((5, 8, 8), np.uint8))
    np.save(tmp_path / "none.npy", np.zeros((5, 0, 8, 8), np.uint8))
    (tmp_path / "huge.npy").write_bytes(
        b"\x93NUMPY\x01\0\x56\0"
        + f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**62}, 8, 8, 8)}}".ljust(86).encode()
    )
    (tmp_path / "deep.npy").write_bytes(good.read_bytes().replace(b"{'descr'", b"((((((((", 1))
    assert open_sequences(str(good)).shape == (LENGTH, 2, HEIGHT, WIDTH, 1)
    for name in ("cut", "text", "empty", "objects", "missing", "deep", "huge"):
        with pytest.raises(SourceError, match=rf"cannot read .*{name}\.npy as sequences"):
            open_sequences(str(tmp_path / f"{name}.npy"))
    for name, got in (("floats", r"float64 \[5, 2, 8, 8\]"), ("flat", r"\[5, 8, 8\]"), ("none", r"\[5, 0, 8, 8\]")):
        with pytest.raises(SourceError, match=rf"must hold uint8 \[T, N, H, W\].*{got}"):
            open_sequences(str(tmp_path / f"{name}.npy"))


def test_bad_use(contender: MakeContender, tmp_path: Path) -> None:
    good, small, short = (str(tmp_path / f"{name}.npy") for name in ("good", "small", "short"))
    np.save(good, sequences(1))
    np.save(small, sequences(1, (16, 16)))
    np.save(short, sequences(1)[:6])
    grey = contender("grey", order="GRAY")
    cases = (
        (contender("colour"), [good], GIVEN, "colour takes 28×20 BGR.*holds 28×20 GRAY"),
        (grey, [small], GIVEN, "holds 16×16 GRAY"),
        (grey, [good, short], GIVEN, "of 6 and 9 frames together: evaluate them separately"),
        (grey, [good], LENGTH, "--given must be 1 to 8, not 9"),
        (contender("slow", order="GRAY", warmup=6), [good], GIVEN, "slow needs 6 frames.*--given 6"),
    )
    for model, places, given, message in cases:
        with pytest.raises(OptionError, match=message):
            evaluate_sequences([model], places, given=given)
    with pytest.raises(EngineError, match="not finite 2 frames ahead"):
        evaluate_sequences([contender(order="GRAY", poison=GIVEN + 1)], [good], given=GIVEN)
