"""The file of ``--json``: up to date during the run, complete at any moment, and no earlier report is lost."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import cast

import pytest

from framecast.cli import saved
from framecast.cli.saved import SavedReport
from framecast.errors import SinkError
from framecast.runtime.report import Report

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

REPORT = cast("Report", {"frames": 7})


def test_a_report_is_written_while_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "EVERY", 0.01)
    path = tmp_path / "a.json"
    with SavedReport(path) as file:
        time.sleep(0.05)
        assert not path.exists()  # nothing is known yet
        file.put(REPORT)
        while not path.exists():
            time.sleep(0.01)
        assert json.loads(path.read_text()) == REPORT


def test_a_disk_that_is_full_meanwhile_is_an_error_only_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []

    def full(path: Path, data: bytes) -> None:
        tried.append(path)
        raise SinkError("the disk is full")

    monkeypatch.setattr(saved, "EVERY", 0.001)
    monkeypatch.setattr(saved, "write", full)
    with SavedReport(tmp_path / "a.json") as file:
        file.put(REPORT)
        while len(tried) < 3:
            time.sleep(0.01)
    with pytest.raises(SinkError):
        file.finish()


def test_a_restart_replaces_the_last_report(run: Run, tmp_path: Path) -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    path = tmp_path / "a.json"
    old = '{"frames": 1, "psnr_db": {}}'
    path.write_text(old)
    assert run("run", tmp_path / "missing.mp4", "--json", path)[0] == 1
    assert path.read_text() == old  # it failed before it started
    code, out, _ = run("run", "synthetic://?size=64x48&frames=3", "--json", path)
    assert code == 0
    assert list(tmp_path.iterdir()) == [path]
    assert path.name in "".join(out.split())
    report = json.loads(path.read_text())
    assert report["ended"] == "end of source"
    started = datetime.strptime(report["started"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert before <= started <= datetime.now(timezone.utc)
    assert report["host"]


@pytest.mark.parametrize("mine", ["a letter", '{"precious": 1}'])
def test_what_is_no_report_is_not_replaced(run: Run, tmp_path: Path, mine: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(mine)
    code, _, err = run("run", "synthetic://?size=64x48&frames=3", "--json", path)
    assert (code, path.read_text()) == (1, mine)
    assert err.endswith("it is there, and is no report of framecast (choose another name)\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_older_report_does_not_pass_for_this_runs(
    form: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise SinkError("the disk is full")

    path = tmp_path / "a.json"
    path.write_text('{"frames": 1, "psnr_db": {}}')
    monkeypatch.setattr(saved, "write", full)
    code, out, err = run("run", "synthetic://?size=64x48&frames=3", "--json", path, "--log", form)
    assert code == 1
    if form == "text":
        assert "│ not written │" in out
    else:
        (summary,) = (one for one in map(json.loads, err.splitlines()) if one["event"] == "summary")
        assert summary["fields"]["files"] == []
