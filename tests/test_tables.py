"""Every table of figures in a document matches the results of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def tables(benchmark: Callable[[str], Any]) -> Any:
    return benchmark("tables")


def test_documents_are_up_to_date(tables: Any) -> None:
    stale = [path.name for path in tables.DOCUMENTS if tables.filled(path.read_text()) != path.read_text()]
    assert stale == [], "run python benchmarks/tables.py"


def test_a_figure_changed_by_hand_is_found(tables: Any) -> None:
    text = (BENCHMARKS.parent / "README.md").read_text()
    assert tables.filled(text.replace("0.23", "0.22")) == text


def test_every_table_is_in_a_document(tables: Any) -> None:
    texts = "".join(path.read_text() for path in tables.DOCUMENTS)
    assert [name for name in tables.TABLES if f"<!-- table: {name} -->" not in texts] == []


def test_the_readme_is_short() -> None:
    text = (BENCHMARKS.parent / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.encode()) <= 10_240


def test_the_tables_of_cameras_read_what_their_benchmarks_print(
    tables: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import _fleet_tables
    import cameras
    import fleet
    import server

    from framecast.bench.fleet import Site, simulate

    monkeypatch.setattr(_fleet_tables, "RESULTS", tmp_path)
    names = ("sizing", "served", "killed", "site", "cameras-edge", "cameras-stip-edge", "isolation-edge")
    assert {tables.TABLES[name]()[1][0] for name in names} == {"not measured yet"}
    camera = server.Camera([0.1] * 9, [0.05] * 9, [1.0] * 9)
    line = server.figures([camera], 1.0, 9_000, 0.5)
    fault = "; killed, ready again after 2.5 s; states lost 4, frames without an answer 81, longest gap 3.1 s, cameras "
    kill = f"kill -9      {line}{fault}that did not come back 0"
    (tmp_path / "server.txt").write_text(f"one server   {line}\ntwo servers  {line}\n{kill}\n{kill}\n")
    (tmp_path / "server.json").write_text('{"model": "edge", "service_ms": [10.0, 30.0]}')
    site = Site(20, 2, [0.01], 20, 10.0, 2.0)
    (tmp_path / "fleet.txt").write_text(fleet.row("one falls silent", site, simulate(site)))
    one = {"p50": 9.0, "p99": 20.0, "dropped": 0.0, "cores": 0.4, "pss_mb": 100.0}
    (tmp_path / "cameras.txt").write_text(
        f"\n## edge\n\n| cameras |\n| --- |\n{cameras.row(2, 2, [one, one])}\n\n## stip-edge\n\n| n |\n| --- |\n| 1 |\n"
    )
    edge = ["100.0", "100.0", "100.0", "0.00%", "1.0"]
    assert tables.TABLES["served"]()[1:] == [["one", "1", "9.0", *edge], ["two", "1", "9.0", *edge]]
    assert tables.TABLES["killed"]()[1:] == [[servers, "2.5", "4", "81", "3.1", "0"] for servers in ("one", "two")]
    assert tables.TABLES["sizing"]()[1] == ["`edge`", "2", "20.0", "50", "3"]
    assert tables.TABLES["site"]()[1][:5] == ["one falls silent", "2", "20", "10.0", "10.0"]
    assert tables.TABLES["cameras-edge"]()[1] == ["2", "2", "9.0", "20.0", "0.0%", "0.80", "200", "yes"]
