"""``framecast moving-mnist``: the file that it writes, and its errors."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from framecast.camera import moving_mnist

Run = Callable[..., tuple[int, str, str]]
MNIST = Path(__file__).resolve().parents[1].parent / "shared" / "mnist"


@pytest.fixture
def digits_file(tmp_path: Path) -> Path:
    digits = np.random.default_rng().integers(0, 256, (7, 28, 28), np.uint8)
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(struct.pack(">4I", 0x803, *digits.shape) + digits.tobytes()))
    return file


def test_writes_the_set_of_a_seed_and_prints_its_hash(run: Run, digits_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "test.npy"
    options = ("--sequences", 3, "--seed", 5, "--length", 4, "--digits", 1)
    code, out, err = run("moving-mnist", digits_file, "-o", file, *options)
    assert (code, err) == (0, "")
    made = np.load(file)
    assert made.dtype == np.uint8
    assert np.array_equal(made, moving_mnist.test_set(moving_mnist.read_idx(digits_file), 5, 3, 4, 1))
    assert f"wrote {file} (0.0 MB): Moving MNIST, uint8 [4, 3, 64, 64]" in out
    assert f"1 digit a sequence, from the 7 of {digits_file}; seed 5" in out
    assert f"sha256: {hashlib.sha256(file.read_bytes()).hexdigest()}" in out


def test_by_default_it_has_the_shape_of_the_standard_file(run: Run, digits_file: Path, tmp_path: Path) -> None:
    assert run("moving-mnist", digits_file, "-o", tmp_path / "a.npy", "--sequences", 2)[0] == 0
    assert (
        run("moving-mnist", digits_file, "-o", tmp_path / "b.npy", "--sequences", 2, "--digits", 2, "--seed", 0)[0] == 0
    )
    assert np.load(tmp_path / "a.npy").shape == (20, 2, 64, 64)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.skipif(not MNIST.is_dir(), reason="no ../shared/mnist")
def test_the_test_set_of_mnist_has_the_documented_hash(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("moving-mnist", MNIST / "t10k-images-idx3-ubyte.gz", "-o", tmp_path / "test.npy")
    assert code == 0
    assert "sha256: 41e4a118644635ca1fb731697c6e4b8d1407721b10a97224d37ec6eb0912bded" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sequences", 0), "--sequences must be at least 1, not 0"),
        (("--length", 0), "--length must be at least 1, not 0"),
        (("--digits", -1), "--digits must be at least 1, not -1"),
        (("--digits", 100), "count must be at most 99 digits, not 100"),
        (("--seed", -1), "seed must be from 0 to 4294967295, not -1"),
        (
            ("--sequences", 10**12),
            "1,000,000,000,000 sequences of 20 frames do not fit into memory: make fewer, or shorter ones",
        ),
    ],
)
def test_bad_options(run: Run, digits_file: Path, tmp_path: Path, options: tuple[str, int], message: str) -> None:
    code, out, err = run("moving-mnist", digits_file, "-o", tmp_path / "x.npy", *options)
    assert (code, out, err) == (1, "", f"framecast: {message}\n")
    assert not (tmp_path / "x.npy").exists()


def test_bad_files(run: Run, digits_file: Path, tmp_path: Path) -> None:
    before = digits_file.read_bytes()
    code, _, err = run("moving-mnist", digits_file, "-o", digits_file)
    assert code == 1
    assert "is among the inputs" in err
    assert digits_file.read_bytes() == before

    code, _, err = run("moving-mnist", tmp_path / "none", "-o", tmp_path / "x.npy")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"framecast: cannot read {tmp_path / 'none'}: No such file or directory")

    code, _, err = run("moving-mnist", digits_file, "-o", tmp_path / "x.txt")
    assert (code, err) == (1, f"framecast: {tmp_path / 'x.txt'} must end in .npy\n")

    (tmp_path / "in.npy").mkdir()
    code, _, err = run("moving-mnist", digits_file, "-o", tmp_path / "in.npy")
    assert (code, err.count("\n")) == (1, 1)
    assert "not a regular file" in err

    assert run("moving-mnist", digits_file)[0] == 2  # no --output
