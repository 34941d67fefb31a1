"""Tables on a terminal and in a file: no figure is broken across lines or left out."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from framecast import terminal

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

LATENCIES = ("", "n", "min", "mean", "median", "p90", "p95", "p99", "max", "CV %")
NAMES = ("stip-edge onnxruntime", "edge tensorrt:fp16", "a_model_with_a_long_name_and_no_blank_in_it onnxruntime-cuda")


def figures(rows: int, columns: int) -> list[list[str]]:
    """Figures that all differ, so that the test can find each one."""
    return [[f"{1000 * row + 10 * column + 0.5:.1f}" for column in range(columns)] for row in range(1, rows + 1)]


def lines(heads: Sequence[str], rows: Sequence[Sequence[str]], capsys: pytest.CaptureFixture[str]) -> list[str]:
    terminal.table("Latency of a live step, ms", heads, rows)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("count", [3, 9, 30])
def test_no_figure_is_broken(
    width: int, count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    numbers = figures(len(NAMES), count)
    rows = [(name, *row) for name, row in zip(NAMES, numbers, strict=True)]
    heads = ["", *(f"percentile {i}" for i in range(count))]
    shown = lines(heads, rows, capsys)
    assert max(map(len, shown)) <= width
    found = re.findall(r"\d+\.\d", "\n".join(shown))
    assert sorted(found) == sorted(number for row in numbers for number in row)


def test_only_names_fold_if_that_is_enough(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    row = (NAMES[0], "100", "22.8", "35.7", "37.3", "47.7", "50.6", "52.9", "53.4", "7.1")
    shown = lines(LATENCIES, [row], capsys)
    cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in shown]
    assert [line for line in cells if line] == [
        list(LATENCIES),
        ["stip-edge", *row[1:]],
        ["onnxruntime", *[""] * 9],
    ]


def test_a_label_and_its_figure_stay_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    latencies = "p50 22.10  p90 30.25  p95 31.14  p99 42.01  max 43.55  (n 1000)"
    shown = "\n".join(lines(("", ""), [("due → sink, every frame (corrected), ms", latencies)], capsys))
    assert all(part in shown for part in latencies.split("  "))
    assert "┃" not in shown  # empty headings draw no heading row


def test_a_file_gets_lines_of_100_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    numbers = figures(len(NAMES), 30)
    shown = lines(
        [f"column {i}" for i in range(31)], list(zip(NAMES, *zip(*numbers, strict=True), strict=True)), capsys
    )
    assert 80 < max(map(len, shown)) <= terminal.WIDTH == 100
    assert sorted(re.findall(r"\d+\.\d", "\n".join(shown))) == sorted(number for row in numbers for number in row)


def test_text_is_broken_between_words_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    shown = lines(("part", "state"), [("engine onnxruntime", "1.31.1, on the CPU")], capsys)
    cells = " ".join(re.split("[│┃]", line)[2].strip() for line in shown if line.startswith("│"))
    assert cells.strip() == "1.31.1, on the CPU"


@pytest.mark.parametrize("command", ["models", "doctor"])
def test_lists_fit_a_terminal(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(command)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
