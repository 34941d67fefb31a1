"""What is printed and written of results: tables, notes, JSON and the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from framecast.evaluation.clips import evaluate_clips
from framecast.evaluation.metrics import METRICS, Metric
from framecast.evaluation.page import page
from framecast.evaluation.results import Results
from framecast.evaluation.sequences import evaluate_sequences
from framecast.evaluation.tables import notes, provenance, tables

from .conftest import HEIGHT, WIDTH, MakeContender, moving  # noqa: TID252 (pytest's importlib mode puts no folder there)

HORIZON = 2


@pytest.fixture
def results(contender: MakeContender, write_clip: Callable[[str, list[np.ndarray]], Path]) -> Results:
    """Two clips, and one that is too short and has a hostile name; the model was reset once."""
    clips = [str(write_clip(name, moving(count))) for name, count in (("one", 14), ("two", 24), ("<b>", 3))]
    return evaluate_clips([contender("<i>model", poison=3)], clips, horizon=HORIZON)


@pytest.fixture
def of_sequences(contender: MakeContender, tmp_path: Path) -> Results:
    np.save(tmp_path / "s.npy", np.random.default_rng().integers(0, 256, (7, 2, HEIGHT, WIDTH), np.uint8))
    return evaluate_sequences([contender(order="GRAY")], [str(tmp_path / "s.npy")], given=3)


def test_tables_of_clips(results: Results) -> None:
    first, ahead, next_frame, far = tables(results)
    assert first.columns == ("clip", "frames scored", "copy-last", "linear", "dis-flow", "<i>model")
    assert [row[0] for row in first.rows] == ["one", "two", "mean of 2 clips"]
    assert first.rows[0][5] == f"{results.of(results.clips[0].values, '<i>model', 'psnr')[0]:.2f}"
    assert [row[0] for row in ahead.rows] == ["1", "2"]
    assert ahead.rows[1][1] == f"{results.of(results.mean, 'copy-last', 'psnr')[1]:.2f}"
    assert next_frame.columns[1:3] == ("SSIM ↑", "SSIM as published ↑")
    clip, gain = results.worst("linear", HORIZON)
    assert far.rows[1][-1] == f"{clip.name} {gain:+.2f} dB"
    share = 100 * results.of(results.mean, "linear", "worse_than_copying")[1]
    assert far.rows[1][-2] == f"{share:.1f} %"
    for table in tables(results):
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_tables_of_sequences(of_sequences: Results) -> None:
    first, *by_step = tables(of_sequences)
    assert first.title == "mean over the 4 frames after 3 given ones, 2 sequences"
    assert first.columns[:4] == ("method", "MSE ↓", "MAE ↓", "SSIM as published ↑")
    assert first.rows[2][1] == f"{np.mean(of_sequences.of(of_sequences.mean, 'trend', 'mse')):.2f}"
    assert [len(table.rows) for table in by_step] == [4, 4, 4]


def test_notes_say_what_is_missing(results: Results) -> None:
    said = "\n".join(notes(results))
    assert "skipped 1 of 3 clips:" in said
    assert "<b>: 3 frames are too few" in said
    assert "<i>model was reset 1 times" in said
    assert "LPIPS" in said
    assert any("trend 0" in line for line in provenance(results))


def test_the_report_has_every_figure(results: Results, of_sequences: Results) -> None:
    found = json.loads(json.dumps(results.to_dict(), allow_nan=False))
    documented = set(re.findall(r"``(\w+)``", Results.to_dict.__doc__ or ""))
    assert set(found) <= documented
    assert {key for entry in (*found["models"], *found["clips"], *found["skipped"]) for key in entry} <= documented
    assert found["kind"] == "clips"
    assert found["methods"] == ["copy-last", "linear", "dis-flow", "<i>model"]
    assert set(found["metrics"]) == set(METRICS) - {"lpips"}
    model = found["models"][0]
    assert (model["weights"], model["resets"]) == ("by hand", 1)
    for method in found["methods"]:
        for metric in found["metrics"]:
            steps = found["mean"][method][metric]
            assert steps == pytest.approx(np.mean([c["methods"][method][metric] for c in found["clips"]], axis=0))
            assert found["overall"][method][metric] == pytest.approx(np.mean(steps))
    assert set(found["worst"]) == {"linear", "dis-flow", "<i>model"}
    assert len(found["worst"]["linear"]) == HORIZON
    assert found["versions"]["trend"] == "0"
    assert of_sequences.to_dict()["kind"] == "sequences"
    assert of_sequences.to_dict()["given"] == 3


def test_a_metric_is_one_row(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is written for it: it is measured, and shown in every table of figures, the JSON and the page."""
    bias = Metric("bias & ↓", "mean <difference>", 3, lambda compared: float(np.mean(compared.difference)), scale=100)
    monkeypatch.setitem(METRICS, "bias", bias)
    for kind in ("results", "of_sequences"):
        found: Results = request.getfixturevalue(kind)
        model = found.methods[-1]
        figures = found.of(found.mean, model, "bias")
        assert np.isfinite(figures).all()
        written = json.loads(json.dumps(found.to_dict()))
        assert written["metrics"]["bias"] == "mean <difference>"
        assert written["mean"][model]["bias"] == figures
        assert written["clips"][0]["methods"][model]["bias"] == found.of(found.clips[0].values, model, "bias")
        shown = [table for table in tables(found) if "bias & ↓" in table.columns]
        assert len(shown) == (2 if kind == "results" else 1)
        figure = figures[0] if kind == "results" else np.mean(figures)
        assert shown[0].rows[-1][shown[0].columns.index("bias & ↓")] == f"{100 * figure:.3f} %"
        assert shown[0].rows[0][shown[0].columns.index("worse than copying ↓")] == "–"
        text = page(found)
        assert "<th>bias &amp; ↓</th>" in text
        assert "<dt>bias &amp; ↓</dt><dd>mean &lt;difference&gt;</dd>" in text


class Page(HTMLParser):
    """Counts elements, and collects what they would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]


def test_the_page_needs_nothing_else(results: Results, of_sequences: Results) -> None:
    for found, pictures in ((results, 2 * (1 + 2 + 4 * 2)), (of_sequences, 1 + 2 + 3 * 2)):
        text = page(found)
        parsed = Page(text)
        assert parsed.elements.count("svg") == 2
        assert parsed.elements.count("img") == pictures
        assert parsed.elements.count("table") == len(tables(found))
        assert not {"script", "link", "iframe", "i", "b"} & set(parsed.elements)  # names are text
        assert all(place.startswith(("data:image/jpeg;base64,", "#")) for place in parsed.loaded)
        assert not re.search(r"@import|url\((?!#)", text)
        assert "prefers-color-scheme: dark" in text
        assert 'name="viewport"' in text
    assert "&lt;i&gt;model" in page(results)
