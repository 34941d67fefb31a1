"""``/live``, ``/ready`` and ``/metrics``: for machines that watch over a run."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from framecast.camera import Frame
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.sinks.health import BUCKETS, Pulse, exposition, readiness
from framecast.runtime.sinks.web import WebSink
from framecast.testing import STAMPS, DriftEngine, ListSource, ManualClock, shades

# Beside this file; pytest's importlib mode puts no test folder on the path.
from .browser import event, get, snapshot  # noqa: TID252

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


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
    clock = ManualClock()
    pulse = Pulse(clock.now)
    assert pulse.failing({}) == "no prediction yet"
    pulse.see(event(0))
    clock.work(3000)
    assert pulse.failing({"interval_ms": 33.3}) is None
    clock.work(100)
    assert pulse.failing({"interval_ms": 33.3}) == "no new prediction for 3.1 s"
    assert pulse.failing({"interval_ms": 1000.0}) is None  # five intervals
    assert pulse.failing({"interval_ms": None}) == "no new prediction for 3.1 s"
    pulse.see(event(1))
    assert pulse.failing({}) is None


def test_a_run_is_not_ready_in_a_short_outage_nor_until_the_next_prediction() -> None:
    clock = ManualClock()
    pulse, out = Pulse(clock.now), {"trouble": "lost rtsp://10.0.0.9/live: it ended", "interval_ms": 33.3}
    pulse.see(event(0))
    for _ in range(2):  # outages
        clock.work(33)
        # Whoever asks needs no token: no address.
        assert pulse.failing(out) == "the camera or the model server is out: trying again"
        clock.work(100)
        assert pulse.failing(out) is not None
        clock.work(20)
        assert pulse.failing({"interval_ms": 33.3}) == "no prediction since the camera was out"
        clock.work(10)
        pulse.see(event(1))
        assert pulse.failing({"interval_ms": 33.3}) is None


def test_later_moments_of_an_old_frame_do_not_make_a_run_ready(sink: WebSink) -> None:
    sink.show(replace(event(0), between=True))
    assert get(f"{sink.url}ready")[0] == 503


def test_the_addresses_in_the_documentation_exist(sink: WebSink) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "monitoring.md").read_text()
    paths = {*re.findall(r"(?:_path:|path:|127\.0\.0\.1:8000)\s*/?(\w[\w.]*)", text)}
    assert paths == {"live", "ready", "metrics", "stats.json"}
    assert {path: get(sink.url + path)[0] for path in paths} == dict.fromkeys(paths, 200) | {"ready": 503}


def figures(text: str) -> dict[str, float]:
    """The samples of one camera in Prometheus' text format, by name and labels. Those of a camera have its name."""
    found = {}
    for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
        labels = dict(sample.labels)
        ours = sample.name.startswith("framecast_") and sample.name != "framecast_viewers"
        assert ("camera" in labels) == ours
        labels.pop("camera", None)
        found[sample.name + "".join(f" {key}={value}" for key, value in sorted(labels.items()))] = sample.value
    return found


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
    assert found["framecast_events_total kind=repeats"] == 3
    assert found["framecast_latency_seconds_bucket le=0.001"] == 1
    assert found["framecast_latency_seconds_count"] == 1
    assert found["framecast_psnr_decibels_count of=prediction"] == 0
    assert 0 <= found["framecast_staleness_seconds"] < 300
    assert 0 <= time.time() - found["framecast_last_frame_timestamp_seconds"] < 300
    assert found["framecast_ready"] == 1
    assert found["framecast_viewers"] == 0
    assert 0 <= found["framecast_frame_age_seconds"] < 300
    assert found["process_resident_memory_bytes"] > 1e6
    assert found["framecast_info engine=onnxruntime (CPU) model=stip-edge source=synthetic://ball version="] == 1
    assert "framecast_reconnects_total" not in found


def test_metrics_follow_the_conventions() -> None:
    report = {**snapshot(), "events": {"reconnects": 7, "gaps": 1}, "versions": {"framecast": '1"\n'}, "host": "box\\1"}
    text = exposition({"door": (report, Pulse())}, 2, "")[0].decode()
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


def test_latencies_and_scores_are_counted() -> None:
    pulse = Pulse()
    for latency in (0.0005, 0.001, 0.0011, 0.033, 0.033, 9.0, 60.0):
        pulse.see(replace(event(0), stamps=replace(STAMPS, stepped=latency)))
    pulse.see(replace(event(0), stamps=replace(STAMPS, stepped=0.033), psnr=30.0, psnr_copy=28.0))
    pulse.see(replace(event(0), psnr=40.0, psnr_copy=28.0, concealed=True))  # no frame
    found = figures(exposition({"door": ({}, pulse)}, 0, "")[0].decode())
    counts = {str(edge): found[f"framecast_latency_seconds_bucket le={edge}"] for edge in (*BUCKETS, "+Inf")}
    assert [counts[edge] for edge in ("0.001", "0.0015", "0.03", "0.05", "7.0", "10.0", "+Inf")] == [
        2,
        3,
        3,
        6,
        6,
        7,
        8,
    ]
    assert found["framecast_latency_seconds_sum"] == pytest.approx(69.1016)
    assert found["framecast_latency_seconds_count"] == 8
    assert found["framecast_psnr_decibels_sum of=prediction"] == 30.0
    assert found["framecast_psnr_decibels_sum of=copy_last"] == 28.0
    assert found["framecast_psnr_decibels_count of=copy_last"] == 1


def test_a_camera_that_repeats_one_picture_gets_stale() -> None:
    clock = ManualClock()
    pulse = Pulse(clock.now, lambda: 1e9 + clock.now())
    assert pulse.staleness is None
    clip = [*shades(6), *[Frame(shades(1)[0].image, index / 25, index) for index in range(6, 12)]]
    for result in Pipeline(ListSource(clip, fps=25.0), Predictor(DriftEngine())):
        pulse.see(result)
        clock.work(40)
    assert pulse.age == pytest.approx(0.04)
    assert pulse.staleness == pytest.approx(0.04 * 6)
    assert pulse.time == pytest.approx(1e9 + 0.04 * 11, abs=result.stamps.latency + 1e-6)


def test_metrics_of_a_run_that_has_no_figures_yet() -> None:
    assert figures(exposition({"door": ({}, Pulse())}, 0, "")[0].decode())["framecast_ready"] == 0


def test_lost_outputs_are_figures() -> None:
    fine = {"trouble": None, "lost": 2, "missed": 30}
    out = {"trouble": "lost rtsp://tv", "lost": 1, "missed": 12}
    found = figures(exposition({"door": ({"outputs": [fine, out]}, Pulse())}, 0, "")[0].decode())
    assert found["framecast_outputs_out"] == 1
    assert found["framecast_outputs_lost_total"] == 3
    assert found["framecast_missed_pictures_total"] == 42


def test_several_cameras_are_ready_only_together_and_each_has_its_figures() -> None:
    pulses = {name: Pulse() for name in ("door", "yard", "gate")}
    pulses["door"].see(event(0))
    cameras: dict[str, tuple[dict[str, object], Pulse]] = {n: ({"frames": 3}, pulse) for n, pulse in pulses.items()}
    cameras["gate"] = {"frames": 9, "ended": "end of source"}, pulses["gate"]  # it has done all that it should
    assert readiness(cameras) == {
        "ready": False,
        "reason": "1 of 3 cameras not ready",
        "cameras": {"yard": "no prediction yet"},
    }
    text = exposition(cameras, 1, "")[0].decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    found = {(s.name, s.labels.get("camera")): s.value for family in families for s in family.samples}
    assert [found["framecast_frames_total", name] for name in pulses] == [3, 3, 9]
    assert [found["framecast_ready", name] for name in pulses] == [1, 0, 1]
    cameras["yard"] = {"ended": "error: x"}, pulses["yard"]
    assert readiness(cameras)["cameras"] == {"yard": "the camera has failed"}
    pulses["yard"].see(event(0))
    cameras["yard"] = {}, pulses["yard"]
    assert readiness(cameras) == {"ready": True}
