"""``framecast eval``: what a user types, and the tables, files and errors that result."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from framecast.graph.artifact import save

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)
from .exported import exported  # noqa: TID252

CLIP = "synthetic://?size=256x192&frames=14&seed=3"


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with random weights that takes 16×16 grey frames."""
    path = tmp_path_factory.mktemp("artifact") / "small.onnx"
    save(exported("mau"), path)
    return path


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    path = tmp_path / "test.npy"
    np.save(path, np.random.default_rng().integers(0, 256, (9, 3, 16, 16), np.uint8))
    return path


def test_eval_scores_clips_as_live_runs_do(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A synthetic clip, and a folder that holds a good and a damaged video."""
    monkeypatch.setenv("COLUMNS", "200")  # xdist's workers have 80
    folder, figures, page = tmp_path / "clips", tmp_path / "out" / "eval.json", tmp_path / "out" / "eval.html"
    folder.mkdir()
    (folder / "damaged.mp4").write_bytes(b"no video")
    writer = cv2.VideoWriter(str(folder / "good.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    for i in range(14):
        writer.write(cv2.circle(np.zeros((120, 160, 3), np.uint8), (30 + 5 * i, 60), 20, (200, 180, 40), -1))
    writer.release()
    code, out, err = run("eval", "stip-edge", CLIP, folder, "--horizon", 2, "--json", figures, "--html", page)
    assert (code, err) == (0, "")
    assert "next frame, PSNR in dB at 256×192" in out
    assert "CPU for 2 moments per step" in out
    assert "skipped 1 of 3 clips" in out
    assert "damaged.mp4" in out
    assert page.read_text().startswith("<!doctype html>")

    found = json.loads(figures.read_text(), parse_constant=pytest.fail)
    assert [clip["name"] for clip in found["clips"]] == [CLIP, "good"]
    for clip, source in zip(found["clips"], (CLIP, folder / "good.avi"), strict=True):
        live = tmp_path / "live.json"
        for k in range(2):
            assert run("run", source, "--model", "stip-edge", "--horizon", k + 1, "--json", live)[0] == 0
            quality = json.loads(live.read_text())["psnr_db"]
            assert clip["scored"][k] == quality["n"] > 0
            assert clip["methods"]["stip-edge"]["psnr"][k] == pytest.approx(quality["prediction"], abs=6e-4)
            assert clip["methods"]["copy-last"]["psnr"][k] == pytest.approx(quality["copy_last"], abs=6e-4)


def test_milliseconds(run: Run, tmp_path: Path) -> None:
    """Tables name the moments as typed. Table and JSON also give the time of the scored frame, and the CPU time."""
    figures = tmp_path / "eval.json"
    code, out, err = run("eval", "stip-edge", CLIP, "--ahead", "40,0.1s", "--threads", 1, "--json", figures)
    assert (code, err) == (0, "")
    assert "100 ms ahead, PSNR in dB at 256×192" in out
    assert "scored at, ms" in out
    found = json.loads(figures.read_text(), parse_constant=pytest.fail)
    assert found["ahead"] == {"in": "ms", "asked": [40, 100]}
    assert found["clips"][0]["ahead_ms"] == pytest.approx([100 / 3, 100])  # the clip has 30 frames a second
    assert all(min(cost["cpu_ms"]) >= 0 and len(cost["to_dis"]) == 2 for cost in found["cost"].values())


def test_sequences(run: Run, grey: Path, sequences: Path, tmp_path: Path) -> None:
    figures, page = tmp_path / "eval.json", tmp_path / "eval.html"
    code, out, err = run(
        "eval", grey, sequences, "--given", 5, "--sequences", 2, "--json", figures, "--html", page, "--threads", 1
    )
    assert (code, err) == (0, "")
    assert "mean over the 4 frames after 5 given frames, 2 sequences at 16×16" in out
    assert "small has random weights" in out
    found = json.loads(figures.read_text(), parse_constant=pytest.fail)
    assert found["methods"] == ["copy-last", "linear", "small"]
    assert (found["kind"], found["given"], found["horizon"]) == ("sequences", 5, 4)
    truth = np.load(sequences)[:, :2].astype(np.float64) / 255
    copied = np.mean([((truth[4] - truth[t]) ** 2).sum((1, 2)).mean() for t in range(5, 9)])
    assert found["overall"]["copy-last"]["mse"] == pytest.approx(copied)


def test_bad_input_is_one_line_with_the_cure(run: Run, grey: Path, sequences: Path, tmp_path: Path) -> None:
    empty, damaged, cut = tmp_path / "empty", tmp_path / "damaged.mp4", tmp_path / "cut.npy"
    empty.mkdir()
    damaged.write_bytes(b"no video")
    cut.write_bytes(sequences.read_bytes()[:-9])
    cases: list[tuple[list[object], int, str]] = [
        (["stip-edge"], 2, "framecast eval needs CLIP..."),
        (["stip-edge", empty], 1, "no videos or images"),
        (["stip-edge", damaged], 1, "not a video that can be decoded"),
        (["stip-edge", damaged, tmp_path / "none.mp4"], 1, "none of the 2 clips"),
        (["stip-edge", "synthetic://?frames=5"], 1, "give a longer clip"),
        (["stip-edge", CLIP, "--horizon", 0], 1, "--horizon must be at least 1, not 0"),
        (["stip-edge", CLIP, "--ahead", "soon"], 1, "--ahead 'soon' is not a time"),
        (["stip-edge", CLIP, "--ahead", "40,"], 1, "--ahead '' is not a time"),
        (["stip-edge", CLIP, "--ahead", "0"], 1, "ahead must be above 0 and at most 10 s, not 0 s"),
        (["stip-edge", CLIP, "--ahead", "11s"], 1, "ahead must be above 0 and at most 10 s, not 11 s"),
        (["stip-edge", CLIP, "--ahead", "40", "--horizon", 2], 1, "horizon cannot be used with ahead"),
        (["stip-edge", CLIP, "--size", "64"], 1, "--size takes WIDTHxHEIGHT in pixels"),
        (["stip-edge", CLIP, "--size", "64x48"], 1, "takes 256×192 only"),
        (["stip-edge", CLIP, "--frames", 0], 1, "--frames must be at least 1"),
        (["stip-edge", CLIP, "--given", 10], 1, "say how many frames to give and to predict: both"),
        (["stip-edge", CLIP, "--given", 4, "--predict", 6, "--horizon", 2], 1, "horizon cannot be used with sequences"),
        (["stip-edge", CLIP, "--given", 4, "--predict", 11], 1, "it has 14 frames, but a sequence has 15"),
        (["edge", CLIP, "--given", 4, "--predict", 6], 1, "edge is a model of motion, which has no steps to count"),
        (["stip-edge", empty, "--layout", "kth"], 1, "no clip to test with in"),
        (["stip-edge", empty, "--layout", "bair"], 1, "no layout 'bair': there are kth"),
        (["stip-edge", CLIP, "--sequences", 10], 1, "sequences cannot be used with clips"),
        (["stip-edge", CLIP, "--also", grey], 1, "same resolution"),
        (["stip-edge", CLIP, "--also", "nope"], 1, "no model 'nope'"),
        (["nope", CLIP], 1, "stip-edge"),
        (["mau-mnist", CLIP, "--also", "nope"], 1, "no model 'nope'"),  # reported before the first model is exported
        (["mau-mnist", CLIP, "--threads", -1], 1, "threads must be 0"),
        (["tau-taxibj", CLIP], 1, "not a picture"),
        (["stip-edge", CLIP, "--json", "/proc/no/x.json"], 1, "another path"),
        (["stip-edge", CLIP, "--html", "/proc/no/x.html"], 1, "another path"),
        (["stip-edge", CLIP, "--html", tmp_path / "x.json", "--json", tmp_path / "x.json"], 1, "named twice"),
        (["stip-edge", damaged, "--json", damaged], 1, "among the inputs"),
        ([grey, sequences, "--given", 2, "--json", grey], 1, "among the inputs"),
        ([grey, sequences, CLIP], 1, "evaluate them separately"),
        ([grey, sequences, "--horizon", 2], 1, "horizon cannot be used with sequences"),
        ([grey, sequences, "--ahead", "40"], 1, "ahead cannot be used with sequences"),
        ([grey, sequences, "--frames", 2], 1, "frames cannot be used with sequences"),
        ([grey, sequences, "--sequences", 0], 1, "--sequences must be at least 1"),
        ([grey, sequences], 1, "--given must be 1 to 8, not 10"),
        ([grey, sequences, "--given", 2], 1, "small needs 5 frames before it predicts: use --given 5"),
        ([grey, cut], 1, "cannot read"),
        (["stip-edge", sequences, "--given", 5], 1, "use a model of that size"),
    ]
    for arguments, expected, words in cases:
        code, out, err = run("eval", *arguments)
        assert (code, out) == (expected, ""), (arguments, err)
        assert len(err.splitlines()) == 1, err
        assert words in err
    assert damaged.read_bytes() == b"no video"


def test_a_page_without_matplotlib_is_refused_before_the_work(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = run("eval", "stip-edge", CLIP, "--html", tmp_path / "x.html")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "--html needs matplotlib: pip install 'framecast[eval]'" in err
    assert not (tmp_path / "x.html").exists()


def test_models_of_the_same_name_are_listed_by_path(run: Run, grey: Path, sequences: Path, tmp_path: Path) -> None:
    figures, other = tmp_path / "eval.json", tmp_path / grey.name
    other.write_bytes(grey.read_bytes())
    assert run("eval", grey, sequences, "--also", other, "--also", grey, "--given", 5, "--json", figures)[0] == 0
    found = json.loads(figures.read_text())
    assert found["methods"] == ["copy-last", "linear", str(grey), str(other)]
    assert found["overall"][str(grey)] == found["overall"][str(other)]


RIVAL = """
def still(last, before, ahead):
    return [last] * len(ahead)

three = 3
"""


def test_a_function_in_a_file_is_a_rival(
    run: Run, sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_rivals.py").write_text(RIVAL)
    Path("broken.py").write_text("1 / 0")
    figures = tmp_path / "eval.json"
    words = ("eval", "stip-edge", CLIP, "--horizon", 1, "--rival", "my_rivals.py:still", "--json", figures)
    code, out, err = run(*words)
    assert code == 0, err
    assert "still" in out
    found = json.loads(figures.read_text())["mean"]
    assert found["still"] == found["copy-last"]
    assert run("eval", "stip-edge", CLIP, "--horizon", 1, "--rival", "my_rivals:still")[0] == 0
    for rival, message in (
        ("still", "give a file and a function in it, such as mine.py:predict"),
        ("my_rivals.py:", "give a file and a function in it"),
        ("nowhere.py:still", "nowhere.py cannot be loaded (FileNotFoundError"),
        ("broken.py:still", "broken.py cannot be loaded (ZeroDivisionError: division by zero)"),
        ("my_rivals.py:moving", "my_rivals.py has no function moving"),
        ("my_rivals.py:three", "my_rivals.py has no function three"),
    ):
        code, out, err = run("eval", "stip-edge", CLIP, "--rival", rival)
        assert (code, out, err.count("\n")) == (1, "", 1), rival
        assert f"--rival {rival}: {message}" in err
    code, _, err = run("eval", "mau-mnist", sequences, "--rival", "my_rivals.py:still")
    assert code == 1
    assert "rivals cannot be used with sequences" in err
