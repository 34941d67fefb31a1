"""Operators that have a fused kernel: one folder each, its `reference` the truth that everything else is held to."""
