"""Manifests for tests: with every field, and with the fewest."""

from __future__ import annotations

from framecast.graph.manifest import Manifest, Quality, StateSpec

PLAIN = Manifest("Still", "still", (3, 4, 6), (StateSpec("count", (1,)),), 1, 0, "random", "", "none")
WHOLE = Manifest(
    model="Still",
    config="still",
    frame=(3, 4, 6),
    state=(StateSpec("count", (1,)), StateSpec("past", (2,), "history", 3)),
    warmup=3,
    parameters=12,
    weights="clips of ours",
    weights_sha256="0" * 64,
    licence="Apache-2.0",
    outputs=2,
    interval=0.04,
    visible=(3, 6),
    options={"layers": 2, "gates": {"kind": "soft", "widths": [1, 2]}},
    value_range=(-1.0, 1.0),
    quality=Quality("some clips", 31.5, 30, {"a": (31.5, 30.25)}),
    calibration="the demo",
    precomputed={"ready.a": (4, 5)},
)
