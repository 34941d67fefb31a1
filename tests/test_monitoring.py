"""The dashboard and the alarms in ``containers/`` name only metrics and labels that a run has; each is documented."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import framecast

ROOT = Path(__file__).resolve().parents[1]
ALERTS = (ROOT / "containers" / "alerts.yml").read_text()
DASHBOARD: dict[str, Any] = json.loads((ROOT / "containers" / "grafana.json").read_text())
OURS = {"up": {"instance", "job"}}  # made by Prometheus; it gives the two labels to every series
WORDS = {"and", "or", "unless", "by", "on", "ignoring", "without", "bool", "offset", "time"}

Series = dict[str, set[str]]  # the labels of each series, by its name


def used(expression: str) -> Series:
    """The series in an expression of PromQL, with the labels that it selects or groups by."""
    text = re.sub(r'"[^"]*"', '""', re.sub(r"\[[^\]]*\]", "", expression))
    grouped = {name for names in re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", text) for name in _names(names)}
    text = re.sub(r"\b(?:by|on|ignoring)\s*\([^)]*\)", " ", text)
    found: Series = {}
    for name, selector in re.findall(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()\s*(\{[^}]*\})?", re.sub(r"\d\w*", "0", text)):
        if name not in WORDS:
            found.setdefault(name, set()).update(_names(re.sub(r'[=!~]+""', "", selector)))
    for labels in found.values():
        labels |= grouped - {"le", "of"}
    if "le" in grouped:
        next(labels for name, labels in found.items() if name.endswith("_bucket")).add("le")
    return found


def _names(text: str) -> set[str]:
    return set(re.findall(r"[a-z_]+", text))


def expressions() -> Iterator[str]:
    """Those of the alarms, and of the dashboard's panels."""
    folded = re.sub(r">-\n((?: {10}.*\n)+)", lambda block: " ".join(block[1].split()) + "\n", ALERTS)
    yield from re.findall(r"^ +expr: (.+)$", folded, re.MULTILINE)
    yield from (target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])


@pytest.fixture(scope="module")
def served() -> Series:
    """The series of a real run."""
    pages: list[str] = []
    texts: list[str] = []

    def ask(result: object) -> None:
        with urllib.request.urlopen(pages[0] + "metrics") as answer:
            texts.append(answer.read().decode())

    framecast.run(
        "synthetic://?size=64x48",
        frames=3,
        serve="127.0.0.1:0",
        announce=lambda line: pages.append(line.split()[-1]),
        sinks=[ask],
    )
    found: Series = {}
    for family in text_string_to_metric_families(texts[-1]):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_expressions_are_read() -> None:
    assert used('sum by (le, instance) (rate(a_bucket{of="x", instance=~"$i"}[5m])) > 1e6 or (time() - b > 3)') == {
        "a_bucket": {"of", "instance", "le"},
        "b": {"instance"},
    }


def test_dashboard_and_alarms_use_series_that_a_run_has(served: Series) -> None:
    known = {name: labels | {"instance", "job"} for name, labels in served.items()} | OURS
    found = list(expressions())
    assert len(found) > 20
    for expression in found:
        for name, labels in used(expression).items():
            assert name in known, expression
            assert labels <= known[name], (expression, name)
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert any(named <= known[name] for name in used(target["expr"])), target


def test_every_metric_is_documented_and_every_documented_one_exists(served: Series) -> None:
    text = (ROOT / "docs" / "unattended.md").read_text()
    rows = re.findall(r"^\| (`(?:framecast|process)_.*?) \|", text, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)", row)}
    assert named <= set(served)
    assert {name for name in served if name.startswith("framecast_")} <= named


def test_the_dashboard_can_be_imported_anywhere() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    assert [variable["type"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "query"]
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool: apt-get install prometheus")
def test_the_alarms_fire() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", ROOT / "tests" / "alerts_test.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
