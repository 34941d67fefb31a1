"""Runs GPU work on a second stream, in parallel with the current stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Branch:
    """A CUDA stream that forks from the current stream and joins it again. A captured graph then has two branches.

    Memory that was allocated on the branch is reused only by the branch's stream, and at the next fork
    that stream waits for the current one. If each fork is joined before the next, no memory is overwritten while it is
    still read.
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    @contextmanager
    def fork(self) -> Iterator[None]:
        """Send the work of the ``with`` block to the branch, after all work that the current stream already has."""
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                yield
        except BaseException:
            self.join()  # an open branch would make the capture fail, and that error would hide this one
            raise

    def join(self) -> None:
        """Make the current stream wait for the work of the branch."""
        torch.cuda.current_stream().wait_stream(self._stream)
