"""What a frame's time says stands in the report, and in the summary of a run that shows now."""

from __future__ import annotations

import pytest

from framecast import terminal
from framecast.bench.loop import Bounded
from framecast.camera import Times
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.predictor import Predictor
from framecast.runtime.report import Report
from framecast.testing import DriftEngine, ListSource, shades


class Webcam(ListSource):
    """One whose driver stamps its frames."""

    @property
    def times(self) -> Times:
        return "capture"


def reported(source: ListSource | Bounded) -> Report:
    pipeline = Pipeline(source, Predictor(DriftEngine()), lookahead=Lookahead(now=True), realtime=True)
    for _ in pipeline:
        pass
    return pipeline.report()


@pytest.mark.parametrize(
    ("source", "times", "says"),
    [
        (Webcam(shades(9), live=True), "capture", "counted from the driver's stamp, plus the delays you gave"),
        (
            Bounded(Webcam(shades(9), live=True), 10.0),
            "capture",
            "counted from the driver's stamp, plus the delays you gave",
        ),
        (ListSource(shades(9), live=True), "arrival", "counted from its arrival, plus the delays you gave"),
        (ListSource(shades(9)), "file", "counted from its time in the file, plus the delays you gave"),
    ],
)
def test_what_a_time_says(
    source: ListSource | Bounded,
    times: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    report = reported(source)
    assert report["times"] == times
    terminal.summary(report, [])
    assert says in capsys.readouterr().out
