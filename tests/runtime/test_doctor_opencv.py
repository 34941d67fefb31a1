"""The doctor's findings on OpenCV, GStreamer, and a system OpenCV that ours hides."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import pytest

from framecast.runtime import doctor


def findings() -> dict[str, doctor.Finding]:
    return {finding.part: finding for finding in doctor.examine()}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake system OpenCV beside ours from PyPI; the path of its ``__init__.py``."""
    monkeypatch.setattr(doctor, "_SYSTEM", tmp_path)
    monkeypatch.setattr(doctor, "_SYSTEM_PYTHON", sys.executable)
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: backend != cv2.CAP_GSTREAMER)
    package = tmp_path / "python3.10" / "dist-packages" / "cv2"
    package.mkdir(parents=True)
    return package / "__init__.py"


REGISTRY = "CAP_GSTREAMER = 1\nclass videoio_registry:\n    hasBackend = staticmethod(lambda backend: {})\n"


def test_a_hidden_opencv_with_gstreamer_is_found(system: Path) -> None:
    system.write_text(REGISTRY.format(True))
    found = findings()["opencv of the system"]
    assert found.state == f"{system} has GSTREAMER; {cv2.__file__} hides it"
    assert "--system-site-packages VENV; in VENV pip uninstall opencv-python" in found.cure
    assert "numpy<2" in found.cure


@pytest.mark.parametrize("text", [REGISTRY.format(False), "raise ImportError('numpy.core.multiarray')"])
def test_a_hidden_opencv_without_gstreamer_or_broken_is_ignored(system: Path, text: str) -> None:
    system.write_text(text)
    assert "opencv of the system" not in findings()


def test_the_system_opencv_is_ignored_if_ours_has_gstreamer(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system.write_text(REGISTRY.format(True))
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: True)
    found = findings()
    assert "opencv of the system" not in found
    assert found["opencv GSTREAMER (csi://)"] == doctor.Finding("opencv GSTREAMER (csi://)", "here")


def test_gst_launch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = findings()["gst-launch-1.0 (csi://)"]
    assert found.state == "missing"
    assert "apt-get install gstreamer1.0-tools" in found.cure
