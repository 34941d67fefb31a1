"""What FFmpeg's tools see in a video file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def probed(path: Path) -> dict[str, Any]:
    """ffprobe's view of the video stream, with ``frames``: their times in seconds. Any complaint fails the test."""
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_entries", "stream:frame=pts_time", "-i", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    return {**found["streams"][0], "frames": [float(frame["pts_time"]) for frame in found["frames"]]}


def decoded(path: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """ffmpeg's first picture of a file, RGB [h, w, 3]."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(data, np.uint8).reshape(*shape, 3)
