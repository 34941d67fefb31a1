"""``framecast.benchmark``: its arguments and results. No timing is checked against a limit: machines differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import framecast
from framecast.bench.benchmark import Settings
from framecast.errors import ArtifactError, EngineError, OptionError
from framecast.runtime.engines import ENGINES
from framecast.runtime.shipped import shipped

QUICK: dict[str, Any] = {"warmup": 0, "duration": 0, "iterations": 5, "cold_starts": 0, "threads": 1}


def cases(result: framecast.bench.benchmark.Benchmark) -> list[str]:
    return [one["name"] for one in result.to_dict()["results"]]


def test_a_model_can_be_compared_with_itself() -> None:
    result = framecast.benchmark(["stip-edge", "stip-edge"], **QUICK)
    assert cases(result) == ["stip-edge", "stip-edge #2"]
    report = result.to_dict()
    assert report["settings"]["iterations"] == 5
    assert report["machine"]["versions"]["onnxruntime"]
    assert {row[0] for table in result.tables[:1] for row in table.rows} == set(cases(result))
    assert len(result.csv.splitlines()) == 1 + sum(one["summary"]["n"] for one in report["results"])
    assert len(result.traces()) == 2


def test_quality_is_reported_beside_latency() -> None:
    """Without a clip it comes from the artifact's manifest; with one it is measured, as ``evaluate`` does."""
    clip = "synthetic://?size=256x192&frames=20&seed=3"
    stated = framecast.benchmark("stip-edge", **QUICK)
    quality = stated.to_dict()["results"][0]["quality"]
    with framecast.load("stip-edge") as predictor:
        known = predictor.manifest.quality
    assert known is not None
    assert (quality["prediction"], quality["data"], quality["n"]) == (known.prediction, known.data, None)
    assert stated.tables[0].rows[0][-1] == f"{known.prediction:.2f}"
    measured = framecast.benchmark("stip-edge", source=clip, ahead=0.1, **QUICK)
    quality = measured.to_dict()["results"][0]["quality"]
    expected = framecast.evaluate("stip-edge", clip, ahead=[0.1]).to_dict()
    assert quality["prediction"] == pytest.approx(expected["mean"]["stip-edge"]["psnr"][0], abs=1e-6)
    assert quality["copy_last"] == pytest.approx(expected["mean"]["copy-last"]["psnr"][0], abs=1e-6)
    assert (quality["n"], quality["ahead_ms"]) == (expected["clips"][0]["scored"][0], pytest.approx(100))
    assert measured.tables[0].title == "Latency of a live step and a picture 100 ms ahead, ms"
    assert measured.tables[1].title == "Quality of these predictions"
    assert measured.tables[1].rows[0][4:] == ("100 ms ahead", clip, str(quality["n"]))


def test_named_engines_and_all_available_engines() -> None:
    result = framecast.benchmark("stip-edge", engines=["onnxruntime", "onnxruntime"], **QUICK)
    assert cases(result) == ["stip-edge onnxruntime", "stip-edge onnxruntime #2"]
    result = framecast.benchmark("stip-edge", engines="all", **QUICK)
    missing = [line.partition(": not run: ")[0] for line in result.not_run]
    assert {*cases(result), *missing} == {f"stip-edge {name}" for name in ENGINES}


@dataclass(frozen=True)
class Ours:
    """A model that chooses its artifact by engine."""

    given: str
    asked: list[str]

    @contextmanager
    def artifact(self, engine: str) -> Iterator[Path]:
        self.asked.append(engine)
        yield shipped()["stip-edge"]


def test_a_model_can_provide_its_own_artifacts() -> None:
    model = Ours("path/of/mine.onnx", [])
    result = framecast.benchmark([model, "stip-edge"], engines=["auto", "onnxruntime"], **QUICK)
    assert model.asked == ["auto", "onnxruntime"]
    assert cases(result)[:2] == ["mine auto", "mine onnxruntime"]
    assert cases(framecast.benchmark({"named": model}, **QUICK)) == ["named"]


def test_a_stream() -> None:
    progress: list[float] = []
    result = framecast.benchmark(
        "stip-edge", stream=True, fps=20, duration=1, threads=1, advance=lambda share, what: progress.append(share)
    )
    assert result.to_dict()["streams"]["stip-edge"]["loop"]["frames"] == 20
    assert result.tables[0].title == "stip-edge, live"
    assert progress == [0.0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"models": []}, OptionError, "nothing to measure"),
        ({"engines": []}, OptionError, "nothing to measure"),
        ({"models": "nope"}, ArtifactError, "no model 'nope'"),
        ({"engines": "tensorflow"}, OptionError, "no engine 'tensorflow'"),
        ({"ahead": 0}, OptionError, "ahead must be above 0 and at most 10 s, not 0 s"),
        ({"ahead": 11}, OptionError, "ahead must be above 0 and at most 10 s, not 11 s"),
        ({"iterations": 0}, OptionError, "iterations must be at least 1, not 0"),
        ({"duration": -1}, OptionError, "duration must be 0 or more, not -1"),
        ({"cold_starts": -1}, OptionError, "cold-starts must be 0 or more, not -1"),
        ({"percentiles": ()}, OptionError, "percentiles : give numbers between 0 and 100"),
        ({"percentiles": (0, 50)}, OptionError, "percentiles 0,50: give numbers"),
        ({"fps": 5}, OptionError, "fps and cameras need a stream"),
        ({"stream": True, "single_stream": True}, OptionError, "choose one"),
        ({"stream": True, "duration": 0}, OptionError, "above 0"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        framecast.benchmark(**{"models": "stip-edge", **QUICK, **options})


def test_the_error_says_why_no_engine_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise EngineError("it is broken: mend it")

    monkeypatch.setattr("framecast.bench.opened.open_engine", broken)
    with pytest.raises(EngineError, match=r"no engine is available here \(stip-edge \w+: not run: it is"):
        framecast.benchmark("stip-edge", engines="all", **QUICK)


def test_the_default_settings() -> None:
    assert Settings() == Settings("demo", None, False, None, False, False, 0.2, 3.0, None, (50.0, 90.0, 95.0, 99.0), 3)
