"""Run every example."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import framecast
from framecast.camera import open_source

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with a short clip."""
    folder = tmp_path / "clips"
    folder.mkdir()
    writer = cv2.VideoWriter(str(folder / "shapes.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
    with open_source("synthetic://?size=96x64&frames=30&seed=1") as frames:
        for frame in frames:
            writer.write(frame.image)
    writer.release()
    return folder


def test_every_example_has_a_test() -> None:
    text = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.iterdir() if path.is_file() and f'"{path.name}"' not in text] == []


def test_a_camera_in_ten_lines() -> None:
    """Runs without a display: OpenCV's window functions are replaced by ones that do nothing."""
    code = (
        "import cv2, runpy, sys; cv2.imshow = lambda *_: None; cv2.waitKey = lambda _: -1; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(EXAMPLES / "camera.py"),
        "synthetic://?size=96x64&frames=40&fps=50",
        "0.02",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'prediction'" in done.stdout


def test_a_folder_is_scored(clips: Path) -> None:
    printed = example("score_folder.py", clips).splitlines()
    assert [line.split()[0] for line in printed] == ["copy-last", "linear", "dis-flow", "edge"]


def test_a_custom_rival_is_in_the_table(clips: Path) -> None:
    assert "shift" in example("own_rival.py", clips)


def test_a_custom_sink_gets_the_scores(tmp_path: Path) -> None:
    printed = example("own_sink.py", "synthetic://?size=96x64&frames=30&seed=1", tmp_path / "scores.csv")
    rows = list(csv.reader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(rows) > 10
    assert "prediction" in printed


def test_a_custom_network_runs_like_any_other(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    example("own_network.py", tmp_path / "own.onnx")
    last, before = (np.full((192, 256, 3), value, np.uint8) for value in (100, 80))
    with framecast.load(tmp_path / "own.onnx") as predictor:
        predictor.step(before, 0.0)
        predictor.step(last, 0.04)
        assert abs(int(predictor.at(0.08).image[96, 128, 0]) - 110) <= 1


def test_a_checkpoint_predicts_future_frames(tmp_path: Path) -> None:
    example("imported_checkpoint.py", "stip-edge", "demo", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 10


def test_a_detector_finds_a_marker_where_it_will_be(tmp_path: Path) -> None:
    """A marker moves by 4 pixels a frame, and a detector on the late picture is 5 frames behind it."""
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
    black = cv2.aruco.generateImageMarker(dictionary, 7, 60)
    marker = cv2.copyMakeBorder(black, 12, 12, 12, 12, cv2.BORDER_CONSTANT, value=255)
    coarse = np.random.default_rng(1).integers(60, 180, (12, 16, 3), dtype=np.uint8)
    scene = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(tmp_path / "marker.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 240))
    for index in range(30):
        frame = scene.copy()
        frame[60 + index :, 20 + 4 * index :][:84, :84] = marker[..., None]
        writer.write(frame)
    writer.release()
    printed = example("detect_ahead.py", tmp_path / "marker.avi", 5).splitlines()
    found = [
        re.fullmatch(r"([\w ]+): (\d+) of 25 markers found, (\S+) pixels off on average", line) for line in printed
    ]
    (late, late_count, late_off), (ahead, count, off) = (line.groups() for line in found if line)
    assert (late, ahead, int(late_count)) == ("late picture", "prediction", 25)
    assert 19 < float(late_off) < 22
    assert int(count) > 15
    assert float(off) < 5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_action_is_recognised_early() -> None:
    pytest.importorskip("torch")
    printed = example("early_action.py", 150)
    right = [int(percent) for percent in re.findall(r"frames: (\d+)% right", printed)]
    assert len(right) == 5
    assert right[-1] > 80


@pytest.mark.slow
def test_the_notebook_runs() -> None:
    pytest.importorskip("matplotlib").use("agg")
    cells = json.loads((EXAMPLES / "compare.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec("".join(cell["source"]), names)
    results = names["results"]
    assert isinstance(results, dict)
    assert {"edge", "average"} <= set(results["mean"])
