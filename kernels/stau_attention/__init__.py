"""STAU's attention (temporal over a history, spatial over the layers) with its fusion gate."""
