"""``benchmarks/papers.py``: its table and its picture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np
import pytest

from framecast.evaluation.made import open_made
from framecast.evaluation.results import Contender
from framecast.evaluation.sequences import evaluate_sequences
from framecast.runtime.predictor import Predictor
from framecast.testing import TrendEngine


@pytest.fixture
def script(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("papers")


def test_the_table_sets_ours_beside_copying_and_the_papers(script: ModuleType) -> None:
    trend = Contender("tau-mini", "x", Predictor(TrendEngine(0.4, "GRAY", size=(64, 64)), watch=False))
    results = evaluate_sequences([trend], ["mnist://"], limit=2)
    table = script.table(results, {"tau-mini": 1_500_000})
    assert table.title == "Moving MNIST, mean over 10 frames after 10, 2 sequences"
    copying, ours = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert [one["method"] for one in (copying, ours)] == ["copy-last", "tau-mini"]
    for name, row in (("copy-last", copying), ("tau-mini", ours)):
        mse = results.of(results.mean, name, "mse")
        assert (row["MSE ↓"], row["MSE, last frame"]) == (f"{np.mean(mse):.2f}", f"{mse[-1]:.1f}")
    assert (copying["artifact"], ours["artifact"]) == ("–", "1.50 MB")
    assert script.published("tau-mini").startswith("19.8 / 0.957 (paper); 24.6 / 0.9454 (OpenSTL, 200 epochs)")
    assert script.published("stip-mini") == "–"


def test_the_picture_has_the_truth_above_each_prediction(script: ModuleType) -> None:
    still = Contender("still", "x", Predictor(TrendEngine(0.0, "GRAY", size=(64, 64)), watch=False))
    frames = open_made("mnist://")[:, 3]
    made = script.picture([still], frames)
    side, gap, left = 64, 4, script.LABEL + 4
    assert made.shape == (24 + 3 * (side + gap), script.LABEL + 10 * (side + gap), 3)
    shown: dict[int, list[np.ndarray]] = {
        0: list(frames[:10]),  # then comes the line of captions
        96: list(frames[10:]),
        164: [frames[9]] * 10,
    }
    for y, row in shown.items():
        for column, frame in enumerate(row):
            x = left + column * (side + gap)
            assert (made[y : y + side, x : x + side] == frame[..., None]).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tau-mini", "--sequences", "0"), "--sequences must be 1 or more, not 0"),
        (("tau-mini", "--sequences", "2", "--sequence", "5"), "--sequence must be one of those scored, from 0 to 1"),
        (("tau-mini", "tau-mini"), "an artifact is given twice"),
        (("no-such",), "no-such"),
    ],
)
def test_bad_input_is_one_line(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: Sequence[str],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/papers.py", "none-idx3-ubyte", *words])
    with pytest.raises(SystemExit) as ended:
        script.script(script.main)
    said = capsys.readouterr().err if ended.value.code == 2 else str(ended.value.code)  # 2: argparse printed it
    last = said.strip().splitlines()[-1]
    assert last.startswith("papers.py: ")
    assert message in last
