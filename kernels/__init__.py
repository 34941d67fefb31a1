"""Operators with a fused kernel, one folder each. Every other form is checked against the folder's `reference`."""
