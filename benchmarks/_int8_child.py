"""Runs graphs: ``_int8_child.py FOLDER OUTPUT.npz``. It needs only numpy and ONNX Runtime, so any Python can run it.

Every ``NAME.onnx`` in the folder runs on the inputs in ``NAME.npz``, in one thread. Its first output goes to
``OUTPUT.npz``. An artifact (its metadata has a manifest) instead steps over ``frames`` [T, 1, C, H, W] from a reset.
The first prediction of every step then goes to ``OUTPUT.npz``, [T, C, H, W].
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


def rollout(session: Any, manifest: dict[str, Any], frames: np.ndarray) -> np.ndarray:
    """Return the first prediction of every step."""
    past = {s["name"]: [np.zeros((1, *s["shape"]), np.float32)] * max(s.get("slots", 0), 1) for s in manifest["state"]}
    names, predictions = [output.name for output in session.get_outputs()], []
    for frame in frames:
        feeds = {"frame": frame}
        for spec in manifest["state"]:
            for age, value in enumerate(past[spec["name"]]):
                feeds[f"state.{spec['name']}" + (f".{age}" if spec.get("slots") else "")] = value
        found = dict(zip(names, session.run(None, feeds), strict=True))
        predictions.append(found["prediction"][0, 0])
        past = {name: [found[f"next.{name}"], *values[:-1]] for name, values in past.items()}
    return np.stack(predictions)


def main(folder: Path, output: str) -> None:
    """Run all graphs of a folder."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import, as framecast does
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options, found = onnxruntime.SessionOptions(), {}
    options.intra_op_num_threads = 1
    for path in sorted(folder.glob("*.onnx")):
        inputs = dict(np.load(path.with_suffix(".npz")))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        manifest = session.get_modelmeta().custom_metadata_map.get("framecast")
        if manifest:
            found[path.stem] = rollout(session, json.loads(manifest), inputs["frames"])
        else:
            found[path.stem] = session.run(None, inputs)[0]
    np.savez(output, **found)  # type: ignore[arg-type]  # numpy's stubs mistake the names for savez's own option


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
