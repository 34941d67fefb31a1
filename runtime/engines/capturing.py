"""One CUDA graph at a time, for all engines of the process."""

from __future__ import annotations

import threading

# Whoever captures a CUDA graph holds it, and so does whoever waits for the whole device. PyTorch allows one capture in
# a process, begins it by waiting for the device, and keeps its precision in globals. A wait for the device may void the
# capture of another thread, whatever its mode (NVIDIA/TensorRT issue 2888).
CAPTURING = threading.RLock()
