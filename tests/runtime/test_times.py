"""The report, and the summary of a run with ``now``, say what the frames' times mean."""

from __future__ import annotations

import re
from typing import Any

import pytest

import framecast
from framecast import terminal
from framecast.bench.loop import Bounded
from framecast.camera import Times
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.report import Report
from framecast.testing import DriftEngine, ListSource, shades


class Webcam(ListSource):
    """A camera whose driver stamps its frames."""

    @property
    def times(self) -> Times:
        return "capture"


def reported(source: ListSource | Bounded) -> Report:
    pipeline = Pipeline(source, Predictor(DriftEngine()), lookahead=Lookahead(now=True), realtime=True)
    for _ in pipeline:
        pass
    return pipeline.report()


@pytest.mark.parametrize(
    ("source", "times", "message"),
    [
        (Webcam(shades(9), live=True), "capture", "the time since the driver's stamp, plus the delays you gave"),
        (
            Bounded(Webcam(shades(9), live=True), 10.0),
            "capture",
            "the time since the driver's stamp, plus the delays you gave",
        ),
        (ListSource(shades(9), live=True), "arrival", "the time since its arrival, plus the delays you gave"),
        (ListSource(shades(9)), "file", "the time since its time in the file, plus the delays you gave"),
    ],
)
def test_the_meaning_of_times_is_reported(
    source: ListSource | Bounded,
    times: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    report = reported(source)
    assert report["times"] == times
    terminal.summary(report, {})
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(("error", "shown"), [(-0.3, "now +0 ms"), (0.0, "now +0 ms"), (-0.6, "now -1 ms")])
def test_no_minus_zero_is_shown(
    error: float, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    report = reported(ListSource(shades(9), live=True))
    assert report["now"] is not None
    report["now"] |= {"error": error, "late": error / 2}
    report["psnr_db"] |= {"prediction": 30.0, "copy_last": 30.004, "trusted": True}
    terminal.summary(report, {})
    out = capsys.readouterr().out
    assert shown in out
    assert "picture is 0 ms old" in out
    assert "(+0.00)" in out
    assert not re.search(r"-0(\.0+)?\b(?!\.)", out.replace("report", ""))


@pytest.mark.parametrize(
    ("uri", "options", "warned"),
    [
        ("rtsp://camera/stream", {"now": True}, True),
        ("RTSPS://camera/stream", {"now": True}, True),
        ("rtsp://camera/stream", {"now": True, "camera_delay": 0.18}, False),
        ("rtsp://camera/stream", {}, False),
        ("0", {"now": True}, False),
    ],
)
def test_now_from_a_network_camera_warns_without_a_delay(
    uri: str, options: dict[str, Any], warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = ListSource(shades(3, size=(48, 64)), live=True)
    monkeypatch.setattr("framecast.runtime.lane.open_source", lambda *places, **wishes: camera)
    lines: list[str] = []
    framecast.run(uri, announce=lines.append, **options)
    assert len(lines) == warned
    assert all("its delay is taken as 0 ms" in line and "--camera-delay" in line for line in lines)
