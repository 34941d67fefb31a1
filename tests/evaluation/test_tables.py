"""The output of an evaluation: tables, notes, JSON and the HTML page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from framecast.evaluation.ahead import Ahead
from framecast.evaluation.clips import evaluate_clips
from framecast.evaluation.metrics import METRICS, Metric
from framecast.evaluation.page import page
from framecast.evaluation.results import Contender, Results
from framecast.evaluation.sequences import evaluate_sequences
from framecast.evaluation.tables import notes, provenance, tables

from .conftest import HEIGHT, WIDTH, MakeContender, moving  # noqa: TID252 (pytest's importlib mode puts no folder there)

HORIZON = 2


@pytest.fixture
def results(contender: MakeContender, write_clip: Callable[[str, list[np.ndarray]], Path]) -> Results:
    """Two good clips and a third that is too short and has a hostile name; the model was reset once."""
    clips = [str(write_clip(name, moving(count))) for name, count in (("one", 14), ("two", 24), ("<b>", 3))]
    return evaluate_clips([contender("<i>model", poison=3)], clips, ahead=Ahead.in_frames(HORIZON))


@pytest.fixture
def of_sequences(contender: MakeContender, tmp_path: Path) -> Results:
    np.save(tmp_path / "s.npy", np.random.default_rng().integers(0, 256, (7, 2, HEIGHT, WIDTH), np.uint8))
    return evaluate_sequences([contender(order="GRAY")], [str(tmp_path / "s.npy")], given=3)


def test_tables_of_clips(results: Results) -> None:
    first, ahead, near, far, next_frame, last = tables(results)
    assert first.columns == ("clip", "frames scored", "copy-last", "linear", "dis-flow", "<i>model")
    assert [row[0] for row in first.rows] == ["one", "two", "mean of 2 clips"]
    assert first.rows[0][5] == f"{results.of(results.clips[0].values, '<i>model', 'psnr')[0]:.2f}"
    assert [row[0] for row in ahead.rows] == ["1", "2"]
    assert ahead.rows[1][1] == f"{results.of(results.mean, 'copy-last', 'psnr')[1]:.2f}"
    assert (near.title, far.title) == tuple(
        f"{when}, cost and quality, mean of 2 clips at 28×20, CPU for 2 moments per step"
        for when in ("next frame", "2 frames ahead")
    )
    spent, ratio = results.cpu_ms("linear"), results.cpu_to_dis("linear")
    assert spent is not None
    assert ratio is not None
    assert far.rows[1][:3] == ("linear", f"{spent[1]:.1f}", f"{ratio[1]:.2f}")
    assert far.rows[2][2] == "1.00"
    assert far.rows[1][3] == f"{results.of(results.mean, 'linear', 'psnr')[1]:.2f}"
    share = 100 * results.of(results.mean, "linear", "worse_than_copying")[1]
    clip, gain = results.worst("linear", 1)
    assert far.rows[1][4:] == (f"{share:.1f} %", f"{clip.name} {gain:+.2f} dB")
    assert far.rows[0][4:] == ("–", "–")
    assert next_frame.columns[1:3] == last.columns[1:3] == ("SSIM ↑", "SSIM as published ↑")
    for table in tables(results):
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_tables_of_milliseconds(any_size: Contender, write_clip: Callable[[str, list[np.ndarray]], Path]) -> None:
    """Each moment has its own tables. They show the frame time that was scored, and the size if clips differ."""
    clips = [str(write_clip("one", moving(24))), str(write_clip("two", [frame[:30] for frame in moving(24)]))]
    results = evaluate_clips([any_size], clips, ahead=Ahead.in_seconds([0.04, 0.1]))
    near, far, ahead, *costs = tables(results)
    assert (near.title, far.title) == tuple(f"{ms} ms ahead, PSNR in dB at their own sizes" for ms in (40, 100))
    assert far.columns[:4] == ("clip", "size", "scored at, ms", "frames scored")
    assert far.rows[1][:3] == ("two", "56×30", "80.0")
    assert ahead.columns[:2] == ("asked, ms", "scored at, ms")
    assert [row[:2] for row in ahead.rows] == [("40", "40.0"), ("100", "80.0")]
    assert [table.title for table in costs] == [
        *(
            f"{ms} ms ahead, cost and quality, mean of 2 clips at their own sizes, CPU for 2 moments per step"
            for ms in (40, 100)
        ),
        *(f"{ms} ms ahead, mean of 2 clips at their own sizes" for ms in (40, 100)),
    ]
    assert any("a step of fade learns for all 2 moments here" in line for line in notes(results))
    assert provenance(results)[0] == "compared at each clip's own size, 3 channels"
    assert results.to_dict()["size"] is None
    assert results.to_dict()["horizon"] is None
    assert "ms ahead" in page(results)
    for table in tables(results):
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_tables_of_sequences(of_sequences: Results) -> None:
    first, *by_step = tables(of_sequences)
    assert first.title == "mean over the 4 frames after 3 given frames, 2 sequences at 28×20"
    assert first.columns[:6] == (
        "method", "MSE ↓", "MSE clipped ↓", "MAE ↓", "MAE clipped ↓", "SSIM as published ↑",
    )  # fmt: skip
    assert first.rows[2][1] == f"{np.mean(of_sequences.of(of_sequences.mean, 'trend', 'mse')):.2f}"
    assert [len(table.rows) for table in by_step] == [4, 4, 4]


def test_notes_say_what_is_missing(results: Results) -> None:
    said = "\n".join(notes(results))
    assert "skipped 1 of 3 clips:" in said
    assert "<b>: its 3 frames are too few" in said
    assert "<i>model was reset once" in said
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
    assert found["ahead"] == {"in": "frames", "asked": [1, 2]}
    assert found["horizon"] == HORIZON
    assert found["size"] == [WIDTH, HEIGHT]
    for clip in found["clips"]:
        assert clip["ahead_ms"] == pytest.approx([40, 80])
        assert set(clip["cpu_ms"]) == set(found["methods"])
    assert set(found["cost"]) == set(found["methods"])
    assert found["cost"]["dis-flow"]["to_dis"] == [1, 1]
    assert of_sequences.to_dict()["cost"] is None
    assert found["versions"]["trend"] == "0"
    assert of_sequences.to_dict()["kind"] == "sequences"
    assert of_sequences.to_dict()["given"] == 3


def test_adding_a_metric_takes_one_row(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry in METRICS is enough: the metric is measured and appears in the tables, the JSON and the page."""
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
        text = page(found)
        assert "<th>bias &amp; ↓</th>" in text
        assert "<dt>bias &amp; ↓</dt><dd>mean &lt;difference&gt;</dd>" in text


class Page(HTMLParser):
    """Collects the elements, and the URLs that they would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]


def test_the_page_is_self_contained(results: Results, of_sequences: Results) -> None:
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
