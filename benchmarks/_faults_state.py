"""Faults of values, and what one camera does to another: rows of ``faults.py``."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from _faults_parts import Traced, row, running
from _faults_server import Camera
from onnx import numpy_helper

from framecast.camera import Image, open_source
from framecast.errors import ArtifactError, EngineError
from framecast.runtime.engines import open_engine
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.shipped import find
from framecast.testing import DriftEngine, ListSource, shades


def not_finite(frames: int) -> None:
    """Frames that poison an engine, a poisoned state of a recurrent network, and damaged weights."""
    poison = frames // 2
    engine = DriftEngine()
    engine.poison = lambda count: count == poison  # the state at this frame gives NaN
    pipeline = Pipeline(ListSource(shades(frames)), Predictor(engine), rival=False)
    finite = [bool(np.isfinite(result.prediction.image.astype(float)).all()) for result in pipeline]
    row("poisoned frame: seen and reset after", f"{_frames(0)} (N={len(finite)}; {pipeline.report()['resets']} reset)")
    row("  pictures shown that are not finite", str(len(finite) - sum(finite)))
    clip = _clip(frames)
    with Predictor(open_engine(find("stip-edge"), "onnxruntime"), owns_engine=True, watch=False) as predictor:
        resets: list[int] = []
        for number, frame in enumerate(clip):
            if number == poison:
                for tensor in _state(predictor).values():
                    tensor.reshape(-1)[0] = np.nan
            predictor.step(frame, number / 25)
            predictor.at((number + 1) / 25)
            resets.append(predictor.resets)
        seen = next((number for number in range(frames) if resets[number]), None)
        last = predictor.at(frames / 25).image
    said = "never" if seen is None else f"{_frames(seen - poison)}; {resets[-1]} reset"
    row("one NaN in each state tensor of stip-edge: reset after", f"{said} (N={frames})")
    if seen is not None:
        with Predictor(open_engine(find("stip-edge"), "onnxruntime"), owns_engine=True, watch=False) as fresh:
            for number in range(seen, frames):
                fresh.step(clip[number], number / 25)
                if number == seen:
                    fresh.at((number + 1) / 25)
            apart = int(np.abs(fresh.at(frames / 25).image.astype(int) - last).max())
        row("  difference from a fresh run after it", f"{apart} levels (after {frames - seen} frames)")
    row("weights that are NaN", _damaged(clip))


def _frames(count: int) -> str:
    return f"{count} {'frame' if count == 1 else 'frames'}"


def _state(predictor: Predictor) -> dict[str, Any]:
    return dict(predictor._stepper.state.tensors)


def _clip(frames: int) -> list[Image]:
    with open_source("demo", loop=True) as source:
        return [frame.image for _ in range(frames) if (frame := source.read()) is not None]


def _damaged(clip: list[Image]) -> str:
    """What a run of an artifact with NaN weights says."""
    model = onnx.load(str(find("stip-edge")))
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(weights).copy()
    if values.dtype.kind != "f":
        return f"not run: the largest weights are {values.dtype}"
    values.reshape(-1)[0] = np.nan
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nan.onnx"
        onnx.save(model, str(path))
        shown = 0
        try:
            with Predictor(open_engine(path, "onnxruntime"), owns_engine=True) as predictor:
                for number, frame in enumerate(clip):
                    predictor.step(frame, number / 25)
                    predictor.at((number + 1) / 25)
                    shown += 1
        except (ArtifactError, EngineError) as error:
            return f"the run ends after {_frames(shown)}: {str(error)[:90]}…"
    return f"{shown} pictures, {predictor.resets} resets"


def two_cameras(frames: int) -> None:
    """Two cameras in one process, on their own engines; one dies in the middle."""
    with Camera() as one, Camera("160x120") as other, running(one.url) as left, running(other.url, kept=400) as right:
        left.wait_for(0, 20)
        right.wait_for(0, 20)
        one.kill()
        before, begun = right.pipeline.report()["frames"], time.monotonic()
        right.wait(lambda: right.pipeline.report()["frames"] >= before + frames)
        rate = frames / (time.monotonic() - begun)
        one.start()
        left.wait_for(1, 8)
        largest, pictures, _ = right.predictor.difference()
        report = right.pipeline.report()
        healed = left.same_state()
    row("two cameras, one killed: difference of the other from solo", f"{largest} levels ({pictures} pictures)")
    row(
        "  epochs, resets of the other; its predictions a second", f"{report['epochs']}, {report['resets']}; {rate:.1f}"
    )
    row("  the killed one when it is back", healed)
    engine = open_engine(find("edge"), "opencv")
    clip = _clip(24)
    ours, theirs = Traced(engine), Predictor(engine)
    ours.reset()
    theirs_frames = [frame[::-1].copy() for frame in clip]
    for number, (mine, its) in enumerate(zip(clip, theirs_frames, strict=True)):
        ours.step(mine, number / 25)
        if number < len(clip) // 2:  # then it is gone
            theirs.step(its, number / 25)
            theirs.at((number + 1) / 25)
        ours.at((number + 1) / 25)
    last = ours.at(len(clip) / 25).image
    with Predictor(open_engine(find("edge"), "opencv"), owns_engine=True) as solo:
        for number, mine in enumerate(clip):
            solo.step(mine, number / 25)
            solo.at((number + 1) / 25)
        apart = int(np.abs(solo.at(len(clip) / 25).image.astype(int) - last).max())
    engine.close()
    row("  interleaved on one engine, one leaves", f"{apart} levels (after {len(clip)} frames)")
