"""Moving MNIST: comparison with a rewrite of the protocol, reproducible test sets, and bad files."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from framecast.camera import moving_mnist
from framecast.camera.moving_mnist import MovingMNIST, read_idx
from framecast.errors import OptionError, SourceError

MNIST = Path(__file__).resolve().parents[2].parent / "shared" / "mnist"


def idx(pictures: NDArray[np.uint8], kind: int = 0x803) -> bytes:
    return struct.pack(f">I{pictures.ndim}I", kind, *pictures.shape) + pictures.tobytes()


def some_digits(count: int = 5) -> NDArray[np.uint8]:
    return np.random.default_rng().integers(0, 256, (count, 28, 28), np.uint8)


@pytest.mark.parametrize(("size", "length", "count"), [(64, 20, 2), (64, 300, 1), (40, 15, 3), (28, 4, 2)])
def test_a_sequence_follows_the_protocol(size: int, length: int, count: int) -> None:
    digits, seed = some_digits(), int(np.random.default_rng().integers(2**32))
    rng = np.random.default_rng(seed)
    again = np.zeros((length, size, size), np.uint8)
    for _ in range(count):
        x_of = {"y": rng.random(), "x": rng.random()}
        angle = 2 * math.pi * rng.random()
        v_of = {"y": math.sin(angle), "x": math.cos(angle)}
        corners = []
        for _ in range(length):
            for axis in ("y", "x"):
                x_of[axis] += v_of[axis] * 0.1
                if x_of[axis] <= 0:
                    x_of[axis], v_of[axis] = 0.0, -v_of[axis]
                if x_of[axis] >= 1:
                    x_of[axis], v_of[axis] = 1.0, -v_of[axis]
            corners.append((int(x_of["y"] * (size - 28)), int(x_of["x"] * (size - 28))))
        digit = digits[rng.integers(len(digits))]
        for frame, (top, left) in zip(again, corners, strict=True):
            for row in range(28):
                for column in range(28):
                    at = top + row, left + column
                    frame[at] = max(frame[at], digit[row, column])
    made = MovingMNIST(digits, size, length, count).sequence(np.random.default_rng(seed))
    assert made.dtype == np.uint8
    assert np.array_equal(made, again), f"seed {seed}"


def test_a_digit_is_whole_in_every_frame_moves_and_reaches_every_wall() -> None:
    digits = np.full((1, 28, 28), 200, np.uint8)
    source, rng = MovingMNIST(digits, length=200, count=1), np.random.default_rng()
    frames = np.stack([source.sequence(rng) for _ in range(20)])
    assert (np.count_nonzero(frames, axis=(2, 3)) == 28 * 28).all()
    corners = np.array([[np.argwhere(frame)[0] for frame in sequence] for sequence in frames])
    assert corners.min((0, 1)).tolist() == [0, 0]
    assert corners.max((0, 1)).tolist() == [36, 36]
    speed = np.abs(np.diff(corners, axis=1)).sum(2).mean()
    assert 3 < speed < 5.1  # |vy| + |vx| is 3.6 · 4/π = 4.6 on average, a little less at walls


def test_overlapping_digits_are_blended_by_the_maximum() -> None:
    digits = np.stack([np.full((28, 28), value, np.uint8) for value in (150, 200)])
    frames = MovingMNIST(digits, size=32, length=50, count=6).sequence(np.random.default_rng(1))
    assert set(np.unique(frames)) <= {0, 150, 200}
    assert frames.max() == 200


def test_a_smaller_set_is_a_prefix_of_a_larger_one_and_seeds_give_different_sets() -> None:
    digits = some_digits()
    three, five = (moving_mnist.test_set(digits, seed=7, sequences=n, length=6) for n in (3, 5))
    assert three.shape == (6, 3, 64, 64)
    assert np.array_equal(three, five[:, :3])
    assert len({five[:, i].tobytes() for i in range(5)}) == 5
    assert not np.array_equal(three, moving_mnist.test_set(digits, seed=8, sequences=3, length=6))
    alone = MovingMNIST(digits, length=6).sequence(np.random.default_rng([7, 2]))
    assert np.array_equal(three[:, 2], alone)


def test_the_test_set_of_a_seed_never_changes() -> None:
    digits = (np.arange(10 * 28 * 28) % 251).astype(np.uint8).reshape(10, 28, 28)
    made = moving_mnist.test_set(digits, sequences=10)
    assert made.shape == (20, 10, 64, 64)
    assert (
        hashlib.sha256(made.tobytes()).hexdigest() == "5f271a43d789e8db01cf52292e39edab2f0d66e1863980db582fd96f640cd4cb"
    )


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_files_are_read(tmp_path: Path, pack: type[bytes]) -> None:
    digits = some_digits()
    file = tmp_path / "digits"  # no suffix: the content decides
    file.write_bytes(pack(idx(digits)))
    assert np.array_equal(read_idx(file), digits)


@pytest.mark.skipif(not MNIST.is_dir(), reason="no ../shared/mnist")
@pytest.mark.parametrize(("name", "count"), [("t10k", 10_000), ("train", 60_000)])
def test_mnist_itself(name: str, count: int) -> None:
    digits = read_idx(MNIST / f"{name}-images-idx3-ubyte.gz")
    assert digits.shape == (count, 28, 28)
    assert digits[:, 14, 14].mean() > 50 > digits[:, 0, 0].mean()  # digits are in the middle, on black
    with pytest.raises(SourceError, match="holds labels, not images"):
        read_idx(MNIST / f"{name}-labels-idx1-ubyte.gz")


LABELS = idx(np.arange(9, dtype=np.uint8), 0x801)
DIGITS = idx(np.arange(2 * 784).astype(np.uint8).reshape(2, 28, 28))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LABELS, "holds labels, not images (give the -images-idx3-ubyte file beside it)"),
        (gzip.compress(LABELS, mtime=0), "holds labels, not images (give the -images-idx3-ubyte file beside it)"),
        (b"", "is not an IDX file of images (give MNIST's train- or t10k-images-idx3-ubyte)"),
        (b"\x89PNG and more", "is not an IDX file of images (give MNIST's train- or t10k-images-idx3-ubyte)"),
        (DIGITS[:9], "is not an IDX file of images (give MNIST's train- or t10k-images-idx3-ubyte)"),
        (DIGITS[:-1], "is damaged: 1567 bytes, but 2 digits have 1568 (copy it again)"),
        (DIGITS + b"\0", "is damaged: 1569 bytes, but 2 digits have 1568 (copy it again)"),
        (
            gzip.compress(DIGITS, mtime=0)[:-9],
            "is damaged: Compressed file ended before the end-of-stream marker was reached (copy it again)",
        ),
        (gzip.compress(DIGITS, mtime=0)[:-8] + bytes(8), "is damaged: CRC check failed"),
        (gzip.compress(DIGITS, mtime=0)[:10] + b"\xff" * 40, "is damaged: Error -3 while decompressing data"),
        (idx(np.zeros((2, 32, 32), np.uint8)), "holds 2 images of 32x32, not digits of 28x28"),
        (idx(np.zeros((0, 28, 28), np.uint8)), "holds 0 images of 28x28, not digits of 28x28"),
    ],
)
def test_files_without_digits_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "digits.gz"
    file.write_bytes(content)
    with pytest.raises(SourceError) as error:
        read_idx(file)
    assert str(error.value).startswith(f"{file} {message}")


def test_a_small_file_cannot_unpack_to_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framecast.camera.moving_mnist.LARGEST", len(DIGITS))
    for name, content in (("a", DIGITS), ("b", gzip.compress(DIGITS))):
        (tmp_path / name).write_bytes(content)
        assert len(read_idx(tmp_path / name)) == 2
        (tmp_path / name).write_bytes(DIGITS + b"\0" if name == "a" else gzip.compress(DIGITS + b"\0"))
        with pytest.raises(SourceError, match=rf"{name} is too large for digits: more than {len(DIGITS)} bytes"):
            read_idx(tmp_path / name)


def test_unreadable_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^cannot read .*none: No such file or directory \(check the path"):
        read_idx(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(SourceError, match=rf"^{path} is not a file \(give an IDX file of images\)$"):
            read_idx(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 27}, "size must be at least 28, not 27"),
        ({"length": 0}, "length must be at least 1, not 0"),
        ({"count": 0}, "count must be at least 1, not 0"),
    ],
)
def test_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}$"):
        MovingMNIST(some_digits(), **options)


@pytest.mark.parametrize(
    ("digits", "message"),
    [
        (np.zeros((2, 28, 28)), "float64 [2, 28, 28]"),
        (np.zeros((28, 28), np.uint8), "uint8 [28, 28]"),
        (np.zeros((0, 28, 28), np.uint8), "uint8 [0, 28, 28]"),
    ],
)
def test_bad_digits(digits: NDArray[np.uint8], message: str) -> None:
    with pytest.raises(OptionError) as error:
        MovingMNIST(digits)
    assert str(error.value) == f"digits must be uint8 [N, 28, 28], not {message}"


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_bad_seed_or_number_of_sequences(seed: int) -> None:
    with pytest.raises(OptionError, match=f"^seed must be from 0 to 4294967295, not {seed}$"):
        moving_mnist.test_set(some_digits(), seed=seed)
    with pytest.raises(OptionError, match=r"^sequences must be at least 1, not 0$"):
        moving_mnist.test_set(some_digits(), sequences=0)


def test_no_torch_is_needed() -> None:
    program = "import sys, framecast.camera.moving_mnist, framecast.cli.moving_mnist; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
