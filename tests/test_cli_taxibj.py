"""TaxiBJ on the command line: from ``dataset.npz`` to trained weights, an artifact and its scores; and the errors."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from .clips import write_flows  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)
from .conftest import Run  # noqa: TID252 (likewise)

SMALL = ("hidden_spatial=4", "hidden_temporal=8", "translator_layers=2")
TINY = (*(word for setting in SMALL for word in ("--set", setting)), "--updates", 2, "--batch", 2, "--device", "cpu")


def test_from_the_file_to_scores(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The printed commands work; and the artifact's MSE is the one of validation."""
    monkeypatch.chdir(tmp_path)
    write_flows(Path("dataset.npz"))
    code, said, err = run("train", "tau-taxibj", "dataset.npz", "--output", "taxi", "--val", "dataset.npz", *TINY)
    assert code == 0, err
    assert "framecast run" not in said
    facts = json.loads(Path("taxi/run.json").read_text())
    assert (facts["recipe"]["name"], facts["recipe"]["given"], facts["recipe"]["predicted"]) == ("tau-taxibj", 4, 4)
    assert (facts["data"]["kind"], facts["data"]["files"]["dataset.npz"]["sequences"]) == ("6 sequences of TaxiBJ", 6)
    assert facts["sessions"][0]["scored_on"]["files"]["dataset.npz"]["sequences"] == 3
    sample = cv2.imread("taxi/samples/000002.png")
    assert sample is not None
    assert sample.shape == (24 + 2 * 64, 7 * 128, 3)
    export, score = (line.split()[1:] for line in said.splitlines() if line.startswith("  framecast "))
    assert export[-2:] == ["--set", "outputs=4"]
    code, _, err = run(*export, "--frames", 3)
    assert code == 0, err
    code, out, err = run(*score, "--json", "eval.json", "--html", "eval.html")
    assert (code, err) == (0, "")
    assert "mean over the 4 frames after 4 given frames, 3 sequences at 32×32" in out
    found = json.loads(Path("eval.json").read_text())
    header, row = Path("taxi/log.csv").read_text().splitlines()
    validated = float(dict(zip(header.split(","), row.split(","), strict=True))["val_mse"])
    assert found["overall"]["tau-taxibj"]["mse"] == pytest.approx(validated, rel=1e-4)
    assert "compared at 32×32, 2 channels" in Path("eval.html").read_text()
    code, _, err = run("eval", "taxi/tau-taxibj.onnx", "synthetic://?frames=14")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "cannot evaluate tau-taxibj on clips: its channels are not a picture (give TaxiBJ's dataset.npz)" in err
    code, out, err = run("eval", "tau-taxibj", "dataset.npz")  # by name: with random weights, as every network
    assert code == 0, err
    assert "tau-taxibj has random weights" in out
    code, _, err = run("eval", "stip-edge", "dataset.npz")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "stip-edge takes 256×192 BGR, dataset.npz holds 32×32 with 2 channels of traffic" in err


def test_a_run_resumes_only_on_the_same_file(run: Run, tmp_path: Path) -> None:
    path = write_flows(tmp_path / "dataset.npz")
    words = ("train", "tau-taxibj", path, "--output", tmp_path / "taxi", *TINY)
    assert run(*words)[0] == 0
    assert run(*words, "--resume")[0] == 0
    write_flows(path)
    code, _, err = run(*words, "--resume")
    assert code == 1
    assert "has a run with other settings: data.files.dataset.npz.sha256 was" in err


def test_bad_data_is_refused_before_anything_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_flows(Path("good.npz"))
    with np.load("good.npz") as arrays:
        good = dict(arrays)
    mixed = {**good, "X_test": good["X_test"].copy(), "Y_test": good["Y_test"].copy()}
    mixed["X_test"][1], mixed["Y_test"][1] = good["X_train"][4], good["Y_train"][4]
    np.savez("mixed.npz", **mixed)
    np.savez("half.npz", **{name: good[name] for name in ("X_train", "Y_train")})
    np.savez("large.npz", **{name: 100 * one for name, one in good.items()})
    Path("text.npz").write_text("no archive")
    Path("clips").mkdir()
    for words, message in (
        (
            ("mixed.npz", "--val", "mixed.npz"),
            "X_test[1] of mixed.npz of --val is also training data: score on other data",
        ),
        (("good.npz", "--val", "half.npz"), "half.npz has no X_test: TaxiBJ's dataset.npz has X_train, Y_train"),
        (("large.npz",), "X_train of large.npz holds values from"),
        (("text.npz",), "cannot read text.npz as TaxiBJ: File is not a zip file (make or download it again)"),
        (("none.npz",), "cannot read none.npz as TaxiBJ: No such file or directory"),
        (("clips",), "this network takes 2 channels that are not a picture: give TaxiBJ's dataset.npz, not clips"),
        (("good.npz", "--val", "clips"), "give TaxiBJ's dataset.npz, not clips"),
        (("good.npz", "--layout", "kth"), "give TaxiBJ's dataset.npz without --layout"),
        (("good.npz", "--set", "height=16"), "good.npz holds 32×32×2, but this network takes 32×16×2: choose --set"),
        (
            ("good.npz", "--set", "frames=6"),
            "the sequences of good.npz have 8 frames, but this recipe takes 12: choose",
        ),
    ):
        code, _, err = run("train", "tau-taxibj", words[0], "--output", "out", *TINY, *words[1:])
        assert code == 1, words
        assert err.strip().splitlines()[-1].startswith("framecast: ")
        assert message in err
        assert not Path("out").exists()
