"""Announcements of a run: lines on stderr, and a QR code for links that a phone can open."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from framecast.cli.announce import announce, qr_code

LINK = "http://192.168.1.20:8000/?token=icLF0zA51kcXLp2ETKiH6jaz--KnvVBPN4FKeIg-5T4"
FROM_BLOCK = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}


def read(lines: list[str]) -> str:
    """Decode the QR code as a camera would."""
    modules = np.array([[FROM_BLOCK[block] for block in line] for line in lines])  # [rows, columns, 2]
    dark = modules.transpose(0, 2, 1).reshape(-1, modules.shape[1])
    picture = np.kron(255 * (1 - dark), np.ones((8, 8))).astype(np.uint8)
    return cv2.QRCodeDetector().detectAndDecode(picture)[0]


def test_a_qr_code_can_be_read() -> None:
    assert read(qr_code(LINK)) == LINK


@pytest.mark.parametrize(
    ("line", "columns", "codes"),
    [
        (f"watch it at {LINK}", 80, True),
        ("watch it at http://[fd00::2]:8000/?token=x", 80, True),
        (f"watch it at {LINK}", 20, False),  # too narrow
        ("watch it at http://127.0.0.1:8000/", 80, False),
        ("watch it at http://localhost:8000/", 80, False),
        ("watch it at http://[::1]:8000/", 80, False),
        ("warning: this CPU is slow", 80, False),
    ],
)
@pytest.mark.parametrize("terminal", [True, False])
def test_a_qr_code_is_shown_for_links_from_other_devices_and_only_on_a_terminal(
    line: str,
    columns: int,
    codes: bool,
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    announce(line)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{line}\n")
    shown = [row.removeprefix("\033[30;107m").removesuffix("\033[0m") for row in err.splitlines()[1:]]
    assert bool(shown) == (codes and terminal)
    if shown:
        assert read(shown) == line.split()[-1]
