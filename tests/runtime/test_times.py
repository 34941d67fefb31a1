"""The report, and the summary of a run with ``now``, say what the frames' times mean."""

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
        (Webcam(shades(9), live=True), "capture", "counted from the driver's stamp, with the delays given"),
        (
            Bounded(Webcam(shades(9), live=True), 10.0),
            "capture",
            "counted from the driver's stamp, with the delays given",
        ),
        (ListSource(shades(9), live=True), "arrival", "counted from its arrival, with the delays given"),
        (ListSource(shades(9)), "file", "counted from its turn in the file, with the delays given"),
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
    terminal.summary(report, [])
    assert message in capsys.readouterr().out
