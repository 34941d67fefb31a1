"""``framecast moving-mnist``."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Annotated

import typer

from framecast.cli.checks import check_numbers, check_outputs
from framecast.errors import OptionError


def moving_mnist(
    digits_file: Annotated[
        Path,
        typer.Argument(
            metavar="IDX_FILE",
            help="MNIST's digits, gzipped or not. Use t10k-images-idx3-ubyte, because networks are trained on "
            "train-images.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The .npy file to write.")],
    sequences: Annotated[
        int, typer.Option(metavar="N", help="Number of sequences. A smaller set is the start of a larger one.")
    ] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed. The same seed gives the same sequences.")] = 0,
    length: Annotated[int, typer.Option(metavar="N", help="Frames in a sequence.")] = 20,
    digits: Annotated[int, typer.Option(metavar="N", help="Digits in a sequence.")] = 2,
) -> None:
    """Write a fixed Moving MNIST test set.

    The layout matches the standard mnist_test_seq.npy: uint8 [frames, sequences, height, width].
    """
    import numpy as np

    from framecast.camera.moving_mnist import read_idx, test_set
    from framecast.files import check_writable, write

    check_numbers(sequences=sequences, length=length, digits=digits)
    check_outputs(str(digits_file), [output])
    if output.suffix != ".npy":
        raise OptionError(f"{output} must end in .npy")
    pictures = read_idx(digits_file)
    check_writable(output)
    made = test_set(pictures, seed, sequences, length, digits)
    buffer = io.BytesIO()
    np.save(buffer, made)
    data = buffer.getvalue()
    write(output, data)
    print(f"wrote {output} ({len(data) / 1e6:.1f} MB): Moving MNIST, {made.dtype} {list(made.shape)}")
    print("axes: frames, sequences, height, width")
    print(f"{digits} digit{'s' * (digits != 1)} a sequence, from the {len(pictures):,} of {digits_file}; seed {seed}")
    print(f"sha256: {hashlib.sha256(data).hexdigest()}")
