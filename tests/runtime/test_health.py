"""``/live``, ``/ready`` and ``/metrics``: for machines that watch over a run."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from framecast.runtime.sinks.health import Pulse, exposition
from framecast.runtime.sinks.web import WebSink

# Beside this file; pytest's importlib mode puts no test folder on the path.
from .browser import event, get, snapshot  # noqa: TID252

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def sink() -> Iterator[WebSink]:
    with contextlib.closing(WebSink("127.0.0.1:0", snapshot=snapshot)) as sink:
        yield sink


@pytest.mark.parametrize("token", [None, "a-token-of-the-owner"])
def test_live_and_ready_need_neither_token_nor_name(token: str | None) -> None:
    with contextlib.closing(WebSink("0", snapshot=snapshot, token=token)) as sink:
        url = sink.url.partition("?")[0]
        for method in ("GET", "HEAD"):
            assert get(f"{url}live", method, Host="10.0.0.9")[0] == 200
            assert get(f"{url}ready", method, Host="10.0.0.9")[0] == 503
        assert json.loads(get(f"{url}ready")[1]) == {"ready": False, "reason": "no prediction yet"}
        sink.show(event(0))
        assert json.loads(get(f"{url}ready")[1]) == {"ready": True}
        assert get(f"{url}live", "POST")[0] == 405


def test_a_run_is_ready_only_while_new_frames_are_predicted() -> None:
    clock = Hands()
    pulse = Pulse(clock)
    assert pulse.failing({}) == "no prediction yet"
    pulse.beat()
    clock.now += 3.0
    assert pulse.failing({"interval_ms": 33.3}) is None
    clock.now += 0.1
    assert pulse.failing({"interval_ms": 33.3}) == "no new prediction for 3.1 s"
    assert pulse.failing({"interval_ms": 1000.0}) is None  # five intervals
    assert pulse.failing({"interval_ms": None}) == "no new prediction for 3.1 s"
    pulse.beat()
    assert pulse.failing({}) is None


def test_later_moments_of_an_old_frame_do_not_make_a_run_ready(sink: WebSink) -> None:
    sink.show(replace(event(0), between=True))
    assert get(f"{sink.url}ready")[0] == 503


def test_the_addresses_and_metrics_in_the_documentation_exist(sink: WebSink) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "unattended.md").read_text()
    paths = {*re.findall(r"(?:_path:|path:|127\.0\.0\.1:8000)\s*/?(\w[\w.]*)", text)}
    assert paths == {"live", "ready", "metrics", "stats.json"}
    assert {path: get(sink.url + path)[0] for path in paths} == dict.fromkeys(paths, 200) | {"ready": 503}
    sink.show(event(0))
    known = {name.partition(" ")[0] for name in figures(get(f"{sink.url}metrics")[1])}
    named = set(re.findall(r"\b(?:framecast|process)_[a-z_]+", text)) - {"framecast_reconnects_total"}
    assert named <= known
    assert {
        name for name in known if name.startswith("framecast_") and not name.endswith(("_count", "_created"))
    } <= named


def figures(text: str) -> dict[str, float]:
    """The samples of Prometheus' text format, by name and labels."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("accept", ["", "text/plain;version=0.0.4", OPEN_METRICS])
def test_metrics_are_in_prometheus_format(sink: WebSink, accept: str) -> None:
    sink.show(event(0))
    status, text, headers = get(f"{sink.url}metrics", Accept=accept)
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics" if accept == OPEN_METRICS else "text/plain")
    assert headers["Cache-Control"] == "no-store"
    found = figures(text.replace("# EOF\n", ""))
    assert found["framecast_frames_total"] == 1234
    assert found["framecast_dropped_frames_total"] == 5
    assert found["framecast_epochs_total"] == 1
    assert found["framecast_resets_total"] == 0
    assert found["framecast_scored_frames_total"] == 1192
    assert found["framecast_events_total kind=repeats"] == 3
    assert found["framecast_latency_seconds quantile=0.5"] == pytest.approx(0.01225)
    assert found["framecast_latency_seconds quantile=0.99"] == pytest.approx(0.0185)
    assert "framecast_latency_seconds quantile=1" not in found  # not finite
    assert found["framecast_latency_seconds_count"] == 1234
    assert found["framecast_psnr_decibels of=prediction"] == 31.5
    assert found["framecast_psnr_decibels of=copy_last"] == 29.125
    assert found["framecast_ready"] == 1
    assert found["framecast_viewers"] == 0
    assert 0 <= found["framecast_frame_age_seconds"] < 300
    assert found["process_resident_memory_bytes"] > 1e6
    assert found["framecast_info engine=onnxruntime (CPU) model=stip-edge source=synthetic://ball version="] == 1
    assert "framecast_reconnects_total" not in found


def test_metrics_follow_the_conventions() -> None:
    clock = Hands()
    report = {**snapshot(), "events": {"reconnects": 7, "gaps": 1}, "versions": {"framecast": '1"\n'}, "host": "box\\1"}
    text = exposition(report, Pulse(clock), 2, "")[0].decode()
    found = figures(text)
    assert found["framecast_reconnects_total"] == 7
    assert [name for name in found if "kind=" in name] == ["framecast_events_total kind=gaps"]
    assert found["framecast_ready"] == 0
    assert "framecast_frame_age_seconds" not in found  # none yet
    assert any('version=1"\n' in name and "host=box\\1" in name for name in found)  # escaped
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        assert family.type != "unknown", family.name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


def test_metrics_of_a_run_that_has_no_figures_yet() -> None:
    assert figures(exposition({}, Pulse(), 0, "")[0].decode())["framecast_ready"] == 0


def test_lost_outputs_are_figures() -> None:
    fine = {"trouble": None, "lost": 2, "missed": 30}
    out = {"trouble": "lost rtsp://tv", "lost": 1, "missed": 12}
    found = figures(exposition({"outputs": [fine, out]}, Pulse(), 0, "")[0].decode())
    assert found["framecast_outputs_out"] == 1
    assert found["framecast_outputs_lost_total"] == 3
    assert found["framecast_missed_pictures_total"] == 42
