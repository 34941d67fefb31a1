"""``mnist://``: its frames, its epochs, the digits that ship, and bad options."""

from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest

from framecast.camera import moving_mnist, open_source
from framecast.camera.digits import Drift, parse_drift
from framecast.errors import SourceError

MNIST = Path(__file__).resolve().parents[2].parent / "shared" / "mnist"


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_scenes_are_the_sequences_of_the_training_generator(digits: int) -> None:
    with open_source(f"mnist://?digits={digits}&seed=7&scene=20&fps=25") as source:
        assert (source.fps, source.length, source.live) == (25.0, None, False)
        frames = list(itertools.islice(source, 60))
    expected = moving_mnist.test_set(Drift().read_digits(), seed=7, sequences=3, length=20, count=digits)
    for index, frame in enumerate(frames):
        scene, age = divmod(index, 20)
        assert (frame.epoch, frame.index) == (scene, index)
        assert frame.time == pytest.approx(index / 25)
        assert frame.image.shape == (64, 64, 3)
        assert (frame.image == expected[age, scene][..., None]).all()


def test_a_longer_scene_continues_the_same_digits() -> None:
    with open_source("mnist://?scene=50") as long, open_source("mnist://?scene=20") as short:
        pairs = list(zip(itertools.islice(long, 20), short, strict=False))
    assert all(np.array_equal(a.image, b.image) for a, b in pairs)


def test_it_ends_after_the_frames_asked_for_and_loops() -> None:
    with open_source("mnist:?frames=5&scene=3") as source:
        assert source.length == 5
        assert [frame.epoch for frame in source] == [0, 0, 0, 1, 1]
    with open_source("mnist://?frames=2", loop=True) as source:
        frames = list(itertools.islice(source, 5))
    assert [frame.epoch for frame in frames] == [0, 0, 1, 1, 2]
    assert np.array_equal(frames[0].image, frames[4].image)


def test_size_and_seed_and_a_file_of_digits(tmp_path: Path) -> None:
    file = tmp_path / "a digit?.gz"
    file.write_bytes(gzip.compress(struct.pack(">4I", 0x803, 1, 28, 28) + b"\x09" * 784))
    with open_source(Drift(str(file), digits=1, size=96).uri) as source:
        image = next(iter(source)).image
    assert image.shape == (96, 96, 3)
    assert (image == 9).sum() == 3 * 784
    one, other = (next(iter(open_source(f"mnist://?seed={seed}"))).image for seed in (1, 2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mnist://?digit=2", "mnist:// has no digit here (it takes digits, size, fps, frames, scene and seed: "),
        ("mnist://?digits=two", "not numbers: mnist://?digits=two (write it like mnist://?digits=2&seed=1"),
        ("mnist://?digits=0", "out of range: mnist://?digits=0 (it is square; digits 1 to 99"),
        ("mnist://?size=64x48", "out of range: mnist://?size=64x48 (it is square"),
        ("mnist://?size=27x27", "size 28x28 to 4096x4096"),
        ("mnist://?fps=nan", "fps 0.1 to 1000"),
        ("mnist://?frames=-1", "frames 0 to 1000000000"),
        (f"mnist://?seed={2**32}", "seed 0 to 4294967295"),
        ("mnist://?seed=0&digits=3&seed=0", "the source has seed twice: give it once"),
        ("mnist://?scene=0", "scene 1 to 10000"),
        ("mnist://none.gz", "cannot read none.gz: No such file or directory"),
        ("mnist://a%00b", "cannot read a�b: not a path"),
        (f"mnist://{__file__}", "is not an IDX file of images"),
    ],
)
def test_bad_options_are_named_in_one_line(uri: str, message: str) -> None:
    with pytest.raises(SourceError) as error:
        open_source(uri)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_uri_gives_the_drift_that_it_came_from() -> None:
    drift = Drift("/a b/c?d", 3, 100, 29.97, 7, 9, 11)
    assert parse_drift(drift.uri) == drift
    with pytest.raises(SourceError, match=r"mnist:// has no fps here \(it takes digits, size, scene and seed"):
        parse_drift("mnist://?fps=3", without=("fps", "frames"))


@pytest.mark.skipif(not MNIST.is_dir(), reason="no ../shared/mnist")
def test_the_shipped_digits_are_the_first_thirty_of_each() -> None:
    images = moving_mnist.read_idx(MNIST / "train-images-idx3-ubyte.gz")
    labels = np.frombuffer(gzip.decompress((MNIST / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    first = np.sort(np.concatenate([np.flatnonzero(labels == digit)[:30] for digit in range(10)]))
    assert np.array_equal(Drift().read_digits(), images[first])
