"""``framecast bench``: what it prints, writes and refuses. No test limits a latency, because machines differ."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from framecast.runtime.engines import ENGINES

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

pytestmark = pytest.mark.usefixtures("exports_once")

QUICK = ("--warmup", 0, "--duration", 0, "--iterations", 5, "--cold-starts", 0, "--threads", 1)


def test_models_are_interleaved_and_every_output_is_written(run: Run, tmp_path: Path) -> None:
    figures, page = tmp_path / "new" / "bench.json", tmp_path / "bench.html"
    options = ("--warmup", 0, "--duration", 0.3, "--cold-starts", 1, "--threads", 1, "--percentiles", "50,99")
    code, out, err = run("bench", "edge", "stip-edge", *options, "--json", figures, "--html", page)
    assert code == 0, err
    for word in (
        "Latency of a live step",
        "Latency relative to edge",
        "picture in",
        "Cold start",
        "versions",
        "commit",
    ):
        assert word in out
    report = json.loads(figures.read_text())
    assert [one["name"] for one in report["results"]] == ["edge", "stip-edge"]
    for one in report["results"]:
        samples, summary = one["samples"], one["summary"]
        assert summary["n"] == len(samples["starts"]) == len(samples["milliseconds"]) == len(samples["parts"]["step"])
        assert summary["min"] <= summary["median"] <= summary["percentiles"]["99"] <= summary["max"]
        parts = sum(sum(values) for values in samples["parts"].values())
        assert parts == pytest.approx(sum(samples["milliseconds"]), rel=0.05)
        assert one["cold"]["times"] == 1
        assert one["trained"] is True
    assert report["results"][0]["ratio"] is None
    assert report["results"][1]["ratio"]["rounds"] == len({*report["results"][1]["samples"]["rounds"]})
    assert report["machine"]["versions"]["onnxruntime"]
    assert report["settings"]["duration"] == 0.3
    text = page.read_text()
    assert text.count("<svg") == 3
    loaded = re.findall(r"""(?:src|href)=["']?([^"'> ]+)|url\(([^)]+)""", text)
    assert all(place.startswith(("data:", "#")) for pair in loaded for place in pair if place)
    assert "<script" not in text
    assert "few samples for" in err


def test_engines_are_compared_in_a_png_and_a_csv(run: Run, tmp_path: Path) -> None:
    rows, picture = tmp_path / "bench.csv", tmp_path / "bench.png"
    where = ("--csv", rows, "--png", picture)
    code, out, err = run("bench", "stip-edge", "--engine", "onnxruntime,torch", *QUICK, *where)
    assert code == 0, err
    assert "Latency relative to stip-edge onnxruntime" in out
    assert "wrote" in out
    table = list(csv.DictReader(rows.read_text().splitlines()))
    assert {row["case"] for row in table} == {"stip-edge onnxruntime", "stip-edge torch"}
    assert all(float(row["ms"]) > 0 for row in table)
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_a_configuration_that_does_not_ship_is_exported(run: Run) -> None:
    code, out, err = run("bench", "mau-mnist", "--engine", "torch", *QUICK, "--markdown")  # torch needs only weights
    assert code == 0, err
    assert "random" in err
    assert "| mau-mnist (random weights) |" in out
    assert "*Measured by `framecast bench mau-mnist --engine torch" in out


def test_all_lists_the_engines_that_cannot_run_here(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = run("bench", "all", *QUICK)
    assert code == 0, err
    for model in ("edge", "stip-edge"):
        for engine in ENGINES:
            assert f"{model} {engine}: not run: " in out or f"{model} {engine}" in out.partition("not run")[0]


def test_a_single_stream_run_says_how_many_queries_it_needs(run: Run) -> None:
    code, out, err = run("bench", "stip-edge", "--single-stream", *QUICK)
    assert code == 0, err
    assert "INVALID" in out
    assert "662" in out
    assert "INVALID: 5 queries, but the 90 % estimate needs 64 (--iterations)" in err
    code, out, err = run("bench", "stip-edge", "--single-stream", *QUICK, "--iterations", 64)
    assert code == 0, err
    assert "VALID" in out.replace("INVALID", "")
    assert "MLPerf requires at least 600 s" in err


def test_a_stream_is_measured_end_to_end(run: Run, tmp_path: Path) -> None:
    figures, page = tmp_path / "stream.json", tmp_path / "stream.html"
    options = ("--stream", "--fps", 20, "--duration", 1, "--threads", 1)
    code, out, err = run("bench", "stip-edge", *options, "--json", figures, "--html", page)
    assert code == 0, err
    assert "corrected" in out
    report = json.loads(figures.read_text())["streams"]["stip-edge"]
    assert report["loop"]["frames"] == 20
    assert page.read_text().count("<svg") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "no model 'nowhere'"),
        (("nowhere.onnx",), "no such artifact"),
        (("edge", "--engine", "tensorflow"), "no engine 'tensorflow'"),
        (("edge", "--engine", "onnxruntime:fp16"), "only the mixed graph that 'framecast parity' checks"),
        (("edge", "--engine", "onnxruntime:bf16"), "one precision"),
        (("edge", "--iterations", 0), "--iterations must be at least 1, not 0"),
        (("edge", "--duration", -1), "--duration must be 0 or more, not -1"),
        (("edge", "--duration", "nan"), "--duration must be 0 or more, not nan"),
        (("edge", "--warmup", -1), "--warmup must be 0 or more, not -1"),
        (("edge", "--cold-starts", -1), "--cold-starts must be 0 or more, not -1"),
        (("edge", "--threads", -1), "threads must be 0"),
        (("edge", "--percentiles", "50,100"), "percentiles 50,100: give numbers between 0 and 100"),
        (("edge", "--percentiles", "most"), "--percentiles most: give numbers between 0 and 100"),
        (("edge", "--ahead", "soon"), "--ahead 'soon' is not a time"),
        (("edge", "--ahead", 0), "ahead must be above 0 and at most 10 s, not 0 s"),
        (("edge", "--source", "nowhere.mp4"), "no such file"),
        (("edge", "--json", "figures.txt"), "--json figures.txt: give a file that ends in .json"),
        (("edge", "--csv", "figures.json"), "--csv figures.json: give a file that ends in .csv"),
        (("edge", "--html", "figures.pdf"), "--html figures.pdf: give a file that ends in .html"),
        (("edge", "--png", "figures.jpg"), "--png figures.jpg: give a file that ends in .png"),
        (("edge", "--fps", 5), "need a stream: add --stream"),
        (("edge", "--cameras"), "need a stream: add --stream"),
        (("edge", "--stream", "--single-stream"), "choose one"),
        (("edge", "--stream", "--fps", 0), "must be above 0"),
        (("edge", "--stream", "--source", "nowhere.mp4"), "no such file"),
        (("edge", "--stream", "--duration", 0), "must be above 0"),
        (("tau-taxibj",), "cannot show tau-taxibj a camera or a clip: its channels are not a picture"),
        # mau-mnist needs an export first. Errors that are known without it are reported before it begins.
        (("mau-mnist", "nowhere.onnx"), "no such artifact"),
        (("mau-mnist", "--engine", "tensorflow"), "no engine 'tensorflow'"),
        (("mau-mnist", "--engine", "openvino:int8"), "openvino runs in fp32 or bf16"),
        (("mau-mnist", "--threads", -1), "threads must be 0"),
        (("mau-mnist", "--source", "nowhere.mp4"), "no such file"),
        (("mau-mnist", "--stream", "--source", "nowhere.mp4"), "no such file"),
        (("mau-mnist", "--stream", "--fps", -1), "must be above 0"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: tuple[object, ...], message: str) -> None:
    code, out, err = run("bench", *arguments)
    assert (code, out) == (1, "")
    assert message in err.strip().splitlines()[-1]
    assert len(err.strip().splitlines()) == 1


def test_an_output_never_overwrites_an_input(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "mine.json"
    model.write_text("{}")
    code, _, err = run("bench", model, "--json", model)
    assert code == 1
    assert "among the inputs" in err
    code, _, err = run("bench", "edge", "--json", tmp_path / "a.json", "--html", "/proc/a.html", *QUICK)
    assert code == 1
    assert "cannot write" in err


def test_a_busy_machine_gives_a_warning(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framecast.bench.benchmark.load", lambda: 1e3)
    code, _, err = run("bench", "stip-edge", *QUICK)
    assert code == 0
    assert "warning: the machine is busy: load average 1000.00" in err


def test_a_model_against_itself_is_two_cases(run: Run) -> None:
    code, out, err = run("bench", "stip-edge", "stip-edge", *QUICK)
    assert code == 0, err
    assert "Latency relative to stip-edge" in out
    assert "stip-edge #2" in out


def test_a_missing_requirement_is_reported_before_the_export(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", no_driver)
    monkeypatch.setattr("framecast.export.exporter.export_random", lambda *_, **__: pytest.fail("it was exported"))
    for command in (("bench", "mau-mnist", *QUICK), ("run", "demo", "--model", "mau-mnist")):
        code, out, err = run(*command, "--engine", "tensorrt")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("framecast: cannot use tensorrt: ")
        assert "no NVIDIA driver here" in err
