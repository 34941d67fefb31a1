"""The memory of a simulated GPU: buffers that lie far apart in one address space.

Every access is checked. It must lie within one buffer and be aligned; a read needs written bytes; a write needs a
writable buffer; and within a launch, no two threads may use the same place if one of them writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .parse import Fault  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

Array = NDArray[Any]
BASE = 0x7F00_0000_0000  # more than 32 bits, so that a truncated address is outside every buffer
SPAN = 33  # bits: a buffer may be 4 GiB, with a gap of 4 GiB after it, which no 32-bit offset crosses
NONE, SEVERAL = -1, -2  # warps
ALIGNED = 16  # bytes: the alignment that Triton assumes of every pointer


class Buffer:
    """Bytes at an address.

    Attributes:
        name: name in messages.
        address: address of the first byte.
        size: number of bytes.
        data: the bytes, padded so that they can be viewed as wider words.
        defined: 0xFF for each byte that the host or a kernel wrote.
        writable: whether a kernel may write it.
        wrote: 0xFF for each byte that the current launch wrote.
        made: whether an earlier launch wrote it.
    """

    def __init__(self, name: str, address: int, array: Array, writable: bool, defined: bool) -> None:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        padding = -len(raw) % 64
        self.name, self.address, self.size = name, address, len(raw)
        self.data = np.concatenate([raw, np.full(padding, 0xFF, np.uint8)])
        self.defined = np.full(len(self.data), 0xFF if defined else 0, np.uint8)
        self.wrote = np.zeros(len(self.data) if writable else 0, np.uint8)
        self.writable, self.whole, self.made, self.stored = writable, defined, False, 0

    def view(self, array: Array, width: int, count: int) -> Array:
        """View as rows of ``count`` words of ``width`` bytes. A row's index is its offset divided by its size."""
        return array.view(f"u{width}").reshape(-1, count)


class Memory:
    """The buffers of a device."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.early = False  # whether the previous launch allows the next one to start early
        self.waits = False  # whether the current launch has yet to reach griddepcontrol.wait

    def add(
        self, name: str, array: Array, *, writable: bool = False, defined: bool = True, aligned: int = ALIGNED
    ) -> int:
        """Copy an array to a new buffer, and return the buffer's address.

        Args:
            name: name in messages.
            array: the content.
            writable: whether kernels may write it.
            defined: False if a kernel must write it before it is read.
            aligned: the address is a multiple of this, and of no larger power of two.
        """
        assert aligned % ALIGNED == 0, "words must be aligned within the buffer"
        address = BASE + (len(self.buffers) << SPAN) + (1 << (SPAN - 1)) + aligned
        self.buffers.append(Buffer(name, address, array, writable, defined))
        return address

    def space(self, name: str, size: int, *, aligned: int = ALIGNED) -> int:
        """Allocate undefined memory and return its address. Every byte is 0xFF, which is NaN in any float type."""
        return self.add(name, np.full(size, 0xFF, np.uint8), writable=True, defined=False, aligned=aligned)

    def read(self, address: int, dtype: Any, count: int) -> Array:
        """The values at an address within a buffer."""
        buffer = self.buffers[(address - BASE) >> SPAN]
        start = address - buffer.address
        return np.array(buffer.data[start : start + np.dtype(dtype).itemsize * count].view(dtype))

    def load(self, addresses: Array, width: int, count: int) -> tuple[Array, Array | None]:
        """``count`` words for each address, and which addresses have unwritten bytes (None if none).

        Raises:
            Fault: an address may not be read.
        """
        words = np.empty((len(addresses), count), f"u{width}")
        missing = None
        for buffer, at, lanes in self._found(addresses, width * count, "reads"):
            words[lanes] = buffer.view(buffer.data, width, count)[at]
            if self.waits and buffer.made:
                raise Fault(f"reads {buffer.name} before it waits for the earlier launch that writes it")
            if buffer.writable and buffer.view(buffer.wrote, width, count)[at].any():
                raise Fault(f"reads {buffer.name}, which the same launch writes")
            if not buffer.whole:
                unwritten = (buffer.view(~buffer.defined, width, count)[at] != 0).any(axis=1)
                if unwritten.any():
                    missing = np.zeros(len(addresses), bool) if missing is None else missing
                    missing[lanes] = unwritten
        return words, missing

    def store(self, addresses: Array, words: Sequence[Array], width: int) -> None:
        """Write words side by side at each address.

        Raises:
            Fault: an address may not be written, or this launch has already written it.
        """
        count = len(words)
        for buffer, at, lanes in self._found(addresses, width * count, "writes"):
            if not buffer.writable:
                raise Fault(f"writes {buffer.name}, an input")
            if self.waits:
                raise Fault(f"writes {buffer.name} before it waits for an earlier launch, which may read it")
            wrote = buffer.view(buffer.wrote, width, count)
            if wrote[at].any():
                raise Fault(f"writes twice to the same place in {buffer.name}")
            wrote[at] = buffer.view(buffer.defined, width, count)[at] = np.iinfo(f"u{width}").max
            data = buffer.view(buffer.data, width, count)
            for column, word in enumerate(words):
                data[at, column] = word[lanes]
            buffer.stored += len(at) * width * count

    def finish(self) -> None:
        """End the launch.

        Raises:
            Fault: two threads wrote to the same place at the same time.
        """
        for buffer in self.buffers:
            if buffer.stored:
                if buffer.stored != np.count_nonzero(buffer.wrote):
                    raise Fault(f"writes twice to the same place in {buffer.name}")
                buffer.wrote[:], buffer.stored, buffer.made = 0, 0, True

    def _found(self, addresses: Array, width: int, does: str) -> list[tuple[Buffer, Array, Any]]:
        """For each buffer that is accessed: the indices of its words, and the lanes that access them."""
        _aligned(addresses, width, does)
        low, high = int(addresses.min()), int(addresses.max())
        first, last = (low - BASE) >> SPAN, (high - BASE) >> SPAN
        if first < 0 or last >= len(self.buffers):
            raise Fault(f"{does} at {low if first < 0 else high:#x}, which is outside every buffer")
        found = []
        for index in range(first, last + 1):
            lanes: Any = slice(None)
            if first != last:
                lanes = np.flatnonzero((addresses - np.uint64(BASE)) >> np.uint64(SPAN) == index)
                if not len(lanes):
                    continue
                low, high = int(addresses[lanes].min()), int(addresses[lanes].max())
            buffer = self.buffers[index]
            if low < buffer.address or high + width > buffer.address + buffer.size:
                at = (low if low < buffer.address else high) - buffer.address
                raise Fault(f"{does} {width} bytes at byte {at} of {buffer.name}, which has {buffer.size}")
            # Addresses and buffers are aligned to the width, which is at most 16.
            shift = np.uint64(width.bit_length() - 1)
            found.append((buffer, (addresses[lanes] - np.uint64(buffer.address)) >> shift, lanes))
        return found


class Shared:
    """Shared memory of several blocks. Different warps may use the same place only with a barrier in between.

    Attributes:
        start: address of the first byte in every block.
    """

    start = 0x1000  # not 0, so that a null pointer is detected

    def __init__(self, blocks: int, size: int) -> None:
        self.size, self.blocks = size, blocks
        self.room = -(-size // 128) * 128  # a multiple of every access width
        self.data = np.full(blocks * self.room, 0xFF, np.uint8)
        self.defined = np.zeros(blocks * self.room, np.uint8)
        # The warp that has read, or written, each pair of bytes since the last barrier: its number, NONE or SEVERAL.
        self.readers = np.full(blocks * self.room // 2, NONE, np.int8)
        self.writers = np.full_like(self.readers, NONE)

    def load(self, addresses: Array, block: Array, warp: Array, width: int, count: int) -> tuple[Array, Array | None]:
        """Like :meth:`Memory.load`, for threads of these blocks and warps."""
        at = self._found(addresses, block, width * count, "reads")
        for half in self._halves(at, width * count):
            self._meet(self.writers[half], warp, "reads what another warp writes")
            before = self.readers[half]
            self.readers[half] = warp
            several = ((before != NONE) & (before != warp)) | (self.readers[half] != warp)
            self.readers[half[several]] = SEVERAL
        index = at // (width * count)
        words = self.data.view(f"u{width}").reshape(-1, count)[index]
        missing = (~self.defined.view(f"u{width}").reshape(-1, count)[index] != 0).any(axis=1)
        return words, missing if missing.any() else None

    def store(
        self, addresses: Array, block: Array, warp: Array, words: Sequence[Array], bad: Sequence[Any], width: int
    ) -> None:
        """Like :meth:`Memory.store`; ``bad`` says where each word is undefined (None: nowhere)."""
        count = len(words)
        at = self._found(addresses, block, width * count, "writes")
        for half in self._halves(at, width * count):
            self._meet(self.writers[half], warp, "writes what another warp writes")
            self._meet(self.readers[half], warp, "writes what another warp reads")
            self.writers[half] = warp
            self._meet(self.writers[half], warp, "writes what another warp writes")
        index = at // (width * count)
        data, defined = (array.view(f"u{width}").reshape(-1, count) for array in (self.data, self.defined))
        for column, (word, missing) in enumerate(zip(words, bad, strict=True)):
            data[index, column] = word
            full = np.iinfo(f"u{width}").max
            defined[index, column] = full if missing is None else np.where(missing, 0, full)

    def barrier(self, blocks: Array) -> None:
        """All threads of these blocks have reached a barrier."""
        for meetings in (self.readers, self.writers):
            meetings.reshape(self.blocks, -1)[blocks] = NONE

    def _found(self, addresses: Array, block: Array, width: int, does: str) -> Array:
        _aligned(addresses, width, does)
        at = addresses.astype(np.int64) - self.start
        if at.min() < 0 or at.max() + width > self.size:
            raise Fault(f"{does} shared memory from byte {at.min()} to {at.max() + width} of {self.size}")
        return at + block.astype(np.int64) * self.room

    def _halves(self, at: Array, width: int) -> list[Array]:
        return [(at + i) // 2 for i in range(0, width, 2)]

    def _meet(self, others: Array, warp: Array, what: str) -> None:
        if ((others != NONE) & (others != warp)).any():
            raise Fault(f"{what} in shared memory, without a barrier in between")


def _aligned(addresses: Array, width: int, does: str) -> None:
    if (addresses & addresses.dtype.type(width - 1)).any():
        raise Fault(f"{does} {width} bytes at an address that is not a multiple of {width}")
