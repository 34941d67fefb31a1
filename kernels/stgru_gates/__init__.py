"""The STGRU gates (STIP, equation 6) with the layer norms of their two inputs."""

from framecast.kernels.stgru_gates.operator import stgru_gates

__all__ = ["stgru_gates"]
