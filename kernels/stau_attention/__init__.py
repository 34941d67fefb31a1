"""STAU's attention (temporal over a history, spatial over the layers) with its fusion gate."""

from framecast.kernels.stau_attention.operator import stau_attention

__all__ = ["stau_attention"]
