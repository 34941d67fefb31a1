"""The lock that allows one CUDA graph capture at a time, for all engines of the process."""

from __future__ import annotations

import threading

# Hold it to capture a CUDA graph, or to wait for the whole device. Such a wait may invalidate a capture in another
# thread, in any capture mode (NVIDIA/TensorRT issue 2888). PyTorch allows one capture per process, waits for the device
# before it, and keeps its precision in globals.
CAPTURING = threading.RLock()
