"""Benchmarks of a predictor in a live loop: steps, streams, cold starts, memory, power; and the report page."""
