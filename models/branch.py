"""Work on a GPU that runs beside what follows it, on a stream of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Branch:
    """A CUDA stream that leaves the current one, and joins it again. A captured graph then has two branches.

    What it allocates is freed into its own stream, which waits for the current one before the next fork. So nothing is
    overwritten that is still read, if each fork is joined before the next.
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    @contextmanager
    def fork(self) -> Iterator[None]:
        """Within it, work goes on the branch; it waits for what the current stream was given so far."""
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                yield
        except BaseException:
            self.join()  # a capture that ends with a branch would hide the error
            raise

    def join(self) -> None:
        """From here on, the current stream waits for what the branch was given."""
        torch.cuda.current_stream().wait_stream(self._stream)
