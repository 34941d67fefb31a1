"""``framecast.evaluate``: its arguments, callables as rivals, and the arguments that it refuses."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framecast
from framecast.errors import ArtifactError, OptionError, SourceError
from framecast.evaluation import results as results_module
from framecast.evaluation.rivals import Linear
from framecast.evaluation.tables import tables
from framecast.runtime.shipped import shipped

CLIP = "synthetic://?size=64x48&frames=14&seed=3"


def ahead(last: np.ndarray, before: np.ndarray, ahead: Sequence[float]) -> list[np.ndarray]:
    return Linear().predict(last, before, ahead)


def test_any_callable_can_be_a_rival() -> None:
    results = framecast.evaluate("stip-edge", CLIP, horizon=2, rivals={"mine": ahead, "black": black}, threads=1)
    found = results.to_dict()
    assert found["methods"] == ["copy-last", "linear", "dis-flow", "mine", "black", "stip-edge"]
    assert found["mean"]["mine"] == found["mean"]["linear"]
    assert found["mean"]["black"]["psnr"][0] < found["mean"]["copy-last"]["psnr"][0]
    assert "| mine |" in str(tables(results)[0])


def black(last: np.ndarray, before: np.ndarray, ahead: Sequence[float]) -> list[np.ndarray]:
    return [np.zeros_like(last)] * len(ahead)


def test_a_rival_is_given_the_moments() -> None:
    """A rival gets its moments in frames of the clip. At 30 frames a second, 40 ms becomes frame 1, the nearest one."""
    asked: list[Sequence[float]] = []

    def noting(last: np.ndarray, before: np.ndarray, ahead: Sequence[float]) -> list[np.ndarray]:
        asked.append(ahead)
        return [last] * len(ahead)

    results = framecast.evaluate("stip-edge", CLIP, ahead=[0.1, 0.04], rivals={"noting": noting}, threads=1)
    assert results.to_dict()["mean"]["noting"] == results.to_dict()["mean"]["copy-last"]
    # The cost is measured one moment at a time. The clip's rate is known from the third frame on.
    assert {tuple(one) for one in asked[3:]} == {(1.0, 3.0), (1.0,), (3.0,)}
    assert results.to_dict()["ahead"] == {"in": "ms", "asked": [40.0, 100.0]}


def test_models_can_be_names_paths_or_open_predictors() -> None:
    by_name = framecast.evaluate("stip-edge", [CLIP], horizon=1, frames=12)
    by_path = framecast.evaluate([shipped()["stip-edge"]], [CLIP], horizon=1, frames=12)
    with framecast.load("stip-edge") as predictor:
        opened = framecast.evaluate({"opened": predictor}, CLIP, horizon=1, frames=12)
    assert by_path.to_dict()["mean"] == by_name.to_dict()["mean"]
    assert opened.to_dict()["mean"]["opened"] == by_name.to_dict()["mean"]["stip-edge"]
    assert opened.to_dict()["models"][0]["given"] == "opened"
    assert by_name.clips[0].frames == 12


def test_results_are_one_line_in_a_shell() -> None:
    results = framecast.evaluate("stip-edge", CLIP, horizon=1)
    assert re.fullmatch(
        r"Results\(1 scored; psnr at the first moment: copy-last \d+\.\d\d, .*see to_dict\(\)\)", repr(results)
    )


def test_progress_is_reported() -> None:
    told: list[tuple[float, str]] = []
    framecast.evaluate("stip-edge", CLIP, horizon=1, advance=lambda *at: told.append(at))
    assert told[:-1] == [(number / 14, f"{CLIP}: frame {number} of 14") for number in range(1, 15)]
    assert told[-1] == (1, f"{CLIP}: done")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"horizon": 0}, OptionError, "horizon must be at least 1, not 0"),
        ({"ahead": []}, OptionError, "ahead must be above 0 and at most 10 s, not nothing"),
        ({"ahead": [0.04, 0]}, OptionError, "ahead must be above 0 and at most 10 s, not 0.04 s, 0 s"),
        ({"ahead": [float("nan")]}, OptionError, "ahead must be above 0 and at most 10 s, not nan s"),
        ({"ahead": [40]}, OptionError, "ahead must be above 0 and at most 10 s, not 40 s"),
        ({"ahead": [0.04], "horizon": 2}, OptionError, "horizon cannot be used with ahead: leave it out"),
        ({"size": (64, 48)}, OptionError, "stip-edge takes 256×192 only: leave out the size"),
        ({"frames": 0}, OptionError, "frames must be at least 1, not 0"),
        ({"given": 3}, OptionError, "say how many frames to give and to predict: both"),
        ({"sequences": 3}, OptionError, "sequences cannot be used with clips"),
        ({"threads": -1}, OptionError, "threads must be 0"),
        ({"models": []}, OptionError, "no model given"),
        ({"models": "nope"}, ArtifactError, "no model 'nope'"),
        ({"clips": []}, SourceError, "no clips given"),
        ({"rivals": {"linear": ahead}}, OptionError, "two rivals have the same name"),
        (
            {"models": {"mine": "stip-edge"}, "rivals": {"mine": ahead}},
            OptionError,
            "mine is the name of a model and of a rival",
        ),
        (
            {"rivals": {"short": lambda last, before, ahead: [last]}},
            OptionError,
            r"rival short must return 5 frames, uint8 \[192, 256, 3\]; it returned 1: uint8 \[192, 256, 3\]",
        ),
        (
            {"rivals": {"crash": lambda last, before, ahead: 1 / 0}},
            OptionError,
            "rival crash failed: ZeroDivisionError",
        ),
        (
            {"rivals": {"float": lambda last, before, ahead: [last / 255] * len(ahead)}},
            OptionError,
            r"it returned \d: float64 \[192, 256, 3\]",
        ),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        framecast.evaluate(**{"models": "stip-edge", "clips": CLIP, **options})


def test_rivals_and_ahead_are_only_for_clips(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.zeros((12, 1, 16, 16), np.uint8))
    with pytest.raises(OptionError, match=r"rivals cannot be used with sequences"):
        framecast.evaluate("stip-edge", tmp_path / "s.npy", rivals={"mine": ahead})
    with pytest.raises(OptionError, match=r"ahead cannot be used with sequences"):
        framecast.evaluate("stip-edge", tmp_path / "s.npy", ahead=[0.04])


def test_it_needs_no_torch() -> None:
    code = "import framecast, sys; sys.modules['lpips'] = None\n"
    code += f"framecast.evaluate('stip-edge', {CLIP!r}, horizon=1); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_functions_name_the_same_thing_alike() -> None:
    """``open`` and ``run`` share parameters, progress callbacks get the same arguments, and times are in seconds."""
    one, other = (inspect.signature(function).parameters for function in (framecast.open, framecast.run))
    shared = one.keys() & other.keys()
    assert shared == one.keys() >= {"source", "model", "ahead", "camera_delay"}
    assert [name for name in shared - {"source"} if one[name] != other[name]] == []
    assert results_module.Advance == import_module("framecast.bench.benchmark").Advance
    assert "ahead: score these moments instead, in seconds." in (framecast.evaluate.__doc__ or "")
