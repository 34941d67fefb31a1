"""Operators with a fused kernel, one folder each. Tests compare every implementation with the folder's `reference`."""
