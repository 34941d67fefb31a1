"""``framecast moving-mnist``."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Annotated

import typer

from framecast.cli.shared import check_numbers, check_outputs


def moving_mnist(
    digits_file: Annotated[
        Path,
        typer.Argument(
            metavar="IDX_FILE",
            help="MNIST's digits, gzipped or not. For a test set t10k-images-idx3-ubyte: train-images is what "
            "networks are trained on.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npy file to write.")],
    sequences: Annotated[int, typer.Option(help="How many; fewer are the first of more.")] = 1000,
    seed: Annotated[int, typer.Option(help="Other sequences for another seed, the same for the same.")] = 0,
    frames: Annotated[int, typer.Option(help="Length of a sequence.")] = 20,
    digits: Annotated[int, typer.Option(help="Digits in a sequence.")] = 2,
) -> None:
    """Write a fixed Moving MNIST test set, in the layout of the standard mnist_test_seq.npy."""
    import numpy as np

    from framecast.files import check_writable, write
    from framecast.training.moving_mnist import read_idx, test_set

    check_numbers(sequences=sequences, frames=frames, digits=digits)
    check_outputs(str(digits_file), [output])
    pictures = read_idx(digits_file)
    check_writable(output)
    made = test_set(pictures, seed, sequences, frames, digits)
    buffer = io.BytesIO()
    np.save(buffer, made)
    data = buffer.getvalue()
    write(output, data)
    print(f"wrote {output} ({len(data) / 1e6:.1f} MB): Moving MNIST, {made.dtype} {list(made.shape)}")
    print("its axes: frames, sequences, height, width")
    print(f"made of: {digits} of the {len(pictures):,} digits of {digits_file} a sequence, seed {seed}")
    print(f"sha256: {hashlib.sha256(data).hexdigest()}")
