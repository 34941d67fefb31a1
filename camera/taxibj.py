"""TaxiBJ: two channels of traffic in 32×32 cells of Beijing, inflow and outflow. It is no camera, and no pictures.

Zhang et al., "Deep spatio-temporal residual networks for citywide crowd flows prediction" (AAAI 2017), in the file that
SimVP and OpenSTL publish: ``taxibj/dataset.npz``. It has ``X_train``, ``Y_train``, ``X_test`` and ``Y_test``: the
frames to give and those to predict, [N, T, 2, H, W], values from -1 to 1. As in their loaders, they are mapped to 0…1.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from framecast.errors import SourceError, first_line
from framecast.redact import redact

SUFFIX = ".npz"
CHANNELS = 2
# Bytes of an array, unpacked: one and a half times the largest. A small file may unpack to gigabytes.
_LARGEST = 1 << 31
# The scale was fitted to the days for training, so that others may be a little beyond it.
_FARTHEST = 2.0
_BLOCK = 256  # sequences to convert at a time, so that no second copy of the whole is in memory
_FILE = "TaxiBJ's dataset.npz has X_train, Y_train, X_test and Y_test"

Flows = NDArray[np.float32]  # [..., H, W, C], values from 0 to 1


def is_taxibj(path: Path) -> bool:
    """Return whether a path has the suffix of TaxiBJ's file."""
    return path.suffix.lower() == SUFFIX


@dataclass(frozen=True)
class _Array:
    """An array of the file, by its header."""

    name: str
    shape: tuple[int, ...]  # [N, T, C, H, W]
    fortran: bool
    dtype: np.dtype[np.floating]


@dataclass(frozen=True)
class Split:
    """The sequences for training, or those for tests, before they are read.

    Attributes:
        path: the file.
        arrays: the frames to give, and those to predict.
    """

    path: Path
    arrays: tuple[_Array, _Array]

    @property
    def given(self) -> int:
        """Number of frames to give."""
        return self.arrays[0].shape[1]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """[N, T, H, W, C] of all sequences, given and predicted frames together."""
        count, given, channels, height, width = self.arrays[0].shape
        return count, given + self.arrays[1].shape[1], height, width, channels

    def read(self) -> Flows:
        """Read the sequences, [N, T, H, W, C]: (x + 1) / 2 in the file's precision, then as float32.

        Raises:
            SourceError: the file is damaged, or holds values that are not scaled to -1…1.
        """
        with _reading(self.path), zipfile.ZipFile(self.path) as archive:
            sequences, first = np.empty(self.shape, np.float32), 0
            for array in self.arrays:
                last = first + array.shape[1]
                with archive.open(f"{array.name}.npy") as file:
                    _header(file)
                    for begin, block in _blocks(file, array):
                        _check_values(self.path, array.name, block)
                        mapped = (block + 1) / 2
                        sequences[begin : begin + len(block), first:last] = mapped.transpose(0, 1, 3, 4, 2)
                first = last
        return sequences


def open_split(path: Path, *, test: bool) -> Split:
    """Open the sequences for training, or those for tests. Only the headers of the arrays are read.

    Raises:
        SourceError: the file cannot be read, or lacks an array, or an array has another shape or type.
    """
    names = ("X_test", "Y_test") if test else ("X_train", "Y_train")
    with _reading(path):
        if path.exists() and not path.is_file():  # a named pipe would wait for a writer
            raise SourceError(f"{redact(str(path))} is not a file: give TaxiBJ's dataset.npz")
        with zipfile.ZipFile(path) as archive:
            x, y = (_look(archive, path, name) for name in names)
    if (x.shape[0], *x.shape[2:]) != (y.shape[0], *y.shape[2:]):
        raise SourceError(
            f"{x.name} and {y.name} of {redact(str(path))} must differ only in their number of frames, not "
            f"{list(x.shape)} and {list(y.shape)}: make the file again"
        )
    return Split(path, (x, y))


def picture(flow: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Draw a frame, [H, W, C]: its channels side by side in grey, uint8 [H, C·W, 3]. Values beyond 0…1 are clamped."""
    grey = np.clip(np.rint(np.hstack([*flow.transpose(2, 0, 1)]) * 255), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into one line.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of files from Python 2
            yield
    except SourceError:
        raise
    except MemoryError as error:
        raise SourceError(f"{redact(str(path))} does not fit into memory: use a machine with more") from error
    except Exception as error:  # zipfile, zlib and the parser of headers raise many kinds
        reason = getattr(error, "strerror", None) or first_line(error)
        raise SourceError(f"cannot read {redact(str(path))} as TaxiBJ: {reason} (make or download it again)") from error


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.floating]]:
    """Read an array's header: shape, whether in Fortran's order, and type. What follows is never unpickled."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _look(archive: zipfile.ZipFile, path: Path, name: str) -> _Array:
    if f"{name}.npy" not in archive.namelist():
        raise SourceError(f"{redact(str(path))} has no {name}: {_FILE} (give that file)")
    with archive.open(f"{name}.npy") as file:
        shape, fortran, dtype = _header(file)
        held = archive.getinfo(f"{name}.npy").file_size - file.tell()
    what = f"{name} of {redact(str(path))}"
    if dtype.kind != "f" or dtype.itemsize not in (4, 8) or len(shape) != 5 or shape[2] != CHANNELS:
        wanted = "float32 or float64 [N, T, 2, H, W]"
        raise SourceError(f"{what} must hold {wanted}, not {dtype} {list(shape)}: give TaxiBJ's dataset.npz")
    if min(shape) < 1:
        raise SourceError(f"{what} is empty, {list(shape)}: give sequences")
    size = math.prod(shape) * dtype.itemsize
    if size > _LARGEST:
        raise SourceError(f"{what} is too large: {size} bytes, of {_LARGEST} that it may have (give TaxiBJ's file)")
    if held != size:
        raise SourceError(f"{what} is damaged: {held} bytes, but {list(shape)} has {size} (make or download it again)")
    return _Array(name, shape, fortran, dtype)


def _blocks(file: IO[bytes], array: _Array) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """Yield an array's sequences, some at a time, and the index of the first of them."""
    count, *shape = array.shape
    step = count if array.fortran else _BLOCK  # Fortran's order interleaves all sequences
    for begin in range(0, count, step):
        some = min(step, count - begin)
        data = file.read(some * math.prod(shape) * array.dtype.itemsize)  # at the end, this checks the file's CRC
        block = np.frombuffer(data, array.dtype)
        yield begin, block.reshape((some, *shape), order="F" if array.fortran else "C")


def _check_values(path: Path, name: str, block: NDArray[np.floating]) -> None:
    low, high = float(block.min()), float(block.max())
    if not -_FARTHEST <= low <= high <= _FARTHEST:  # also if one is NaN
        found = f"values from {low:g} to {high:g}" if math.isfinite(low + high) else "values that are not finite"
        raise SourceError(f"{name} of {redact(str(path))} holds {found}: scale them to -1…1, as published")
