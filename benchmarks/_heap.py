"""Bytes that glibc's malloc has handed out in this process, for ``soak.py`` and a test."""

from __future__ import annotations

import ctypes
import threading
import time
from pathlib import Path

FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS.split()]


def in_use() -> int:
    """Bytes in use, in all arenas and in maps of their own (mallinfo2(3)).

    Raises:
        AttributeError: the C library is not glibc 2.33 or newer.
    """
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _Mallinfo2
    info = library.mallinfo2()
    return int(info.uordblks + info.hblkhd)


def tell(path: Path) -> None:
    """Write that to a file twice a second, in a thread."""

    def run() -> None:
        new = path.with_suffix(".new")
        while True:
            new.write_text(str(in_use()))
            new.replace(path)
            time.sleep(0.5)

    threading.Thread(target=run, daemon=True).start()
