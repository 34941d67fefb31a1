"""``framecast train``: three commands from videos to a live run; and its errors, each in one line."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from framecast.graph.artifact import manifest_of, read

from .clips import write_clips, write_digits  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)
from .conftest import Run  # noqa: TID252 (likewise)

EDGE = ("--set", "height=48", "--set", "width=64", "--set", "hidden=8", "--set", "layers=1", "--device", "cpu")
MAU = ("--set", "hidden=4", "--set", "layers=1", "--device", "cpu")
SHORT = ("--updates", 3, "--batch", 2)


def one_line(answer: tuple[int, str, str]) -> str:
    """Check that a command failed with a framecast error; its last line on stderr."""
    code, _, err = answer
    assert code == 1, err
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert last.startswith("framecast: ")
    return last


@pytest.mark.slow
def test_from_videos_to_a_live_run(run: Run, tmp_path: Path) -> None:
    data, val = write_clips(tmp_path / "clips", (80, 60)), write_clips(tmp_path / "val", (80, 60), 5, c=16, d=20)
    out, artifact = tmp_path / "runs" / "mine", tmp_path / "mine.onnx"
    words = ("train", "stip-edge", data, "--output", out, "--val", val, "--licence", "mine alone", *SHORT, *EDGE)
    code, said, err = run(*words)
    assert code == 0, err
    assert f"framecast export stip-edge --weights {out / 'weights.safetensors'}" in said
    assert "framecast run 0 --model" in said
    assert f"framecast eval {out / 'stip-edge.onnx'} {val}" in said
    assert "frames/s" in err
    assert "update 3: " in err
    facts = json.loads((out / "run.json").read_text())
    assert facts["recipe"]["name"] == "stip-edge"
    assert (facts["recipe"]["updates"], facts["recipe"]["batch"], facts["seed"]) == (3, 2, 1)
    assert {name: len(f["sha256"]) for name, f in facts["data"]["files"].items()} == {"a.avi": 64, "b.avi": 64}
    assert facts["data"]["files"]["a.avi"]["frames"] == 30
    assert facts["sessions"][0]["versions"]["torch"]
    assert (tmp_path / "runs" / "frames").is_dir()
    with (out / "log.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["update"], row["skipped"]) == ("3", "0")
    assert row["loss"] == row["log_mse"]
    assert float(row["val_psnr"]) > float(row["val_psnr_copy"])  # the untrained network is a motion prior
    strip = cv2.imread(str(out / "samples" / "000003.png"))
    assert strip is not None
    assert strip.shape == (24 + 2 * 96, 9 * 128, 3)
    code, _, err = run("export", "stip-edge", "--weights", out / "weights.safetensors", "-o", artifact, "--frames", 3)
    assert code == 0, err
    report = tmp_path / "report.json"
    code, _, err = run("run", data / "a.avi", "--model", artifact, "--json", report)
    assert code == 0, err
    assert json.loads(report.read_text())["weights"] == "clips: 2 clips, 3 updates of 2x4 frames"


def test_one_video_is_enough(run: Run, tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips", (80, 60))
    out, val = tmp_path / "out", folder / "b.avi"
    code, said, err = run("train", "stip-edge", folder / "a.avi", "--output", out, "--val", val, *SHORT, *EDGE)
    assert code == 0, err
    assert list(json.loads((out / "run.json").read_text())["data"]["files"]) == ["a.avi"]
    assert f"framecast eval {out / 'stip-edge.onnx'} {val}" in said
    said = one_line(run("train", "stip-edge", val, "--output", tmp_path / "other", "--val", val, *SHORT, *EDGE))
    assert "b.avi of --val is also training data" in said


def test_moving_mnist_and_weights_to_start_from(run: Run, tmp_path: Path) -> None:
    digits, others = write_digits(tmp_path / "digits"), write_digits(tmp_path / "others", seed=9)
    first, second = tmp_path / "first", tmp_path / "second"
    code, said, err = run("train", "mau-mnist", digits, "--output", first, *SHORT, *MAU)
    assert code == 0, err
    assert "preparing" in err
    assert "for mau-mnist (64×64 grey), recipe mau-mnist" in err
    artifact = first / "mau-mnist.onnx"
    assert f"  framecast run 'mnist://?seed=1' --horizon 10 --model {artifact}\n" in said
    assert f"  framecast eval {artifact} 'mnist://t10k-images-idx3-ubyte.gz?seed=0'\n" in said
    code, said, err = run("train", "mau-mnist", digits, "--output", first, *SHORT, *MAU, "--resume")
    assert code == 0, err
    assert said.startswith("nothing left to train: 3 updates in ")
    start = first / "weights.safetensors"
    words = ("--weights", start, "--val", others, *SHORT, "--lr", 1e-3, "--device", "cpu")
    code, _, err = run("train", "mau-mnist", digits, "--output", second, *words)  # options from the weights file
    assert code == 0, err
    facts = json.loads((second / "run.json").read_text())
    assert facts["weights"]["file"] == "weights.safetensors"
    assert facts["options"] == {"hidden": 4, "layers": 1}
    with (second / "log.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["val_mse"]) > 0
    code, _, err = run("export", "mau-mnist", "--weights", second / "weights.safetensors", "-o", tmp_path / "m.onnx")
    assert code == 0, err
    made = "digits: Moving MNIST from 10 digits, 3 updates of 2x20 frames"
    assert manifest_of(read(tmp_path / "m.onnx")).weights == f"{made}, from weights.safetensors ({made})"


def test_grey_networks_are_trained_on_colour_videos(run: Run, tmp_path: Path) -> None:
    data = write_clips(tmp_path / "clips", (80, 60))
    code, _, err = run("train", "mau-mnist", data, "--output", tmp_path / "out", *SHORT, *MAU)
    assert code == 0, err


def test_unusable_clips_are_skipped_named_and_counted(run: Run, tmp_path: Path) -> None:
    data = write_clips(tmp_path / "clips", (80, 60), good=20, single=1)
    (data / "broken.mp4").write_bytes(b"no video at all")
    code, _, err = run("train", "stip-edge", data, "--output", tmp_path / "out", *SHORT, *EDGE)
    assert code == 0, err
    assert "skipped single.avi: it has 1 frame, but 2 are needed" in err
    assert "skipped broken.mp4: not a video that can be decoded" in err
    assert "2 of 3 videos were skipped" in err
    facts = json.loads((tmp_path / "out" / "run.json").read_text())
    assert list(facts["data"]["files"]) == ["good.avi"]
    assert set(facts["sessions"][0]["skipped"]) == {"single.avi", "broken.mp4"}


def test_sequences_need_clips_of_their_length(run: Run, tmp_path: Path) -> None:
    data = write_clips(tmp_path / "clips", (80, 60), long=20, short=19)
    code, _, err = run("train", "mau-mnist", data, "--output", tmp_path / "out", *SHORT, *MAU)
    assert code == 0, err
    assert "skipped short.avi: it has 19 frames, but 20 are needed" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("stip-edge", "none"), "no videos in none: give a video, a folder of videos, or an IDX file"),
        (("stip-edge", "empty"), "no videos in empty: give a video, a folder of videos, or an IDX file"),
        (("stip-edge", "useless"), "no usable video in useless (2 skipped): give clips of 2 frames or more"),
        (("mau-mnist", "notes.txt"), "notes.txt is not an IDX file of images"),
        (("stip-edge", "digits"), "Moving MNIST is grey and square, but this network takes 256×192×3"),
        (("tau-taxibj", "clips"), "takes 2 channels that are not a picture: give TaxiBJ's dataset.npz, not clips"),
        (("mau-mnist", "a.npz"), "a.npz holds traffic and no pictures, but this network takes 64×64×1 pictures: give"),
        (("no-such", "clips"), "no configuration 'no-such'"),
        (("stip-edge", "clips", "--recipe", "best"), "no recipe 'best': there are mini, astm-mnist"),
        (("edge", "clips"), "edge is a model of motion, not a network: it has no weights to train"),
        (("stip-edge", "clips", "--cache", "clips"), "cannot keep decoded frames in clips: the videos are there"),
        (("stip-edge", "clips", "--set", "depth=3"), "stip-edge has no option 'depth'"),
        (("stip-edge", "clips", "--updates", "0"), "updates must be 1 or more, not 0"),
        (("stip-edge", "clips", "--updates", "5", "--minutes", "1"), "give --updates or --minutes, not both"),
        (("stip-edge", "clips", "--minutes", "-1"), "minutes must be above 0, not -1.0"),
        (("stip-edge", "clips", "--every", "0"), "every must be above 0, not 0.0"),
        (("stip-edge", "clips", "--batch", "0"), "batch must be 1 or more, not 0"),
        (("stip-edge", "clips", "--seed", "-1"), "seed must be from 0 to 4294967295, not -1"),
        (("stip-edge", "clips", "--lr", "nan"), "lr must be 0 or more, not nan"),
        (("stip-edge", "clips", "--precision", "fp8"), "precision must be one of fp32, bf16, fp16, not 'fp8'"),
        (("stip-edge", "clips", "--precision", "fp16", "--device", "cpu"), "fp16 needs CUDA"),
        (("stip-edge", "clips", "--device", "tpu"), "--device must be auto, cpu or cuda, not tpu"),
        (("stip-edge", "clips", "--val", "clips"), "a.avi of --val is also training data"),
        (
            ("mau-mnist", "digits", "--val", "digits.gz"),
            "digits.gz of --val is also training data: score on other data",
        ),
        (("stip-edge", "clips", "--val", "empty"), "no videos in empty"),
        (("stip-edge", "clips", "--layout", "kth"), "no clip to train with in clips: none of the 2 clips there has"),
        (("stip-edge", "clips", "--layout", "bair"), "no layout 'bair': there are kth, ucf-sports"),
        (("stip-edge", "clips", "--weights", "notes.txt"), "notes.txt cannot be read as safetensors"),
        (("stip-edge", "clips", "--resume"), "no run to resume in out: leave out --resume"),
        (("stip-edge", "clips", "--cache", "notes.txt/x"), "cannot write notes.txt/x/"),
    ],
)
def test_bad_input(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clips(Path("clips"), (80, 60))
    write_clips(Path("useless"), (80, 60), single=1)
    (Path("useless") / "broken.mp4").write_bytes(b"no video at all")
    Path("digits.gz").write_bytes(gzip.compress(write_digits(Path("digits")).read_bytes()))
    Path("empty").mkdir()
    Path("notes.txt").write_text("not what was asked for")
    assert message in one_line(run("train", *words, "--output", "out"))
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("empty", "--output", "out"), "no videos in empty"),
        (("clips", "--output", "out", "--val", "nowhere"), "no videos in nowhere"),
        (("clips", "--output", "/proc/out"), "cannot write /proc/out/run.json"),
        (("clips", "--output", "/dev/full"), "/dev/full is not a folder: choose another --output"),
        (("clips", "--output", "out", "--device", "tpu"), "--device must be auto, cpu or cuda"),
        (("clips", "--output", "out", "--resume"), "no run to resume in out"),
    ],
)
def test_bad_input_is_refused_before_anything_is_prepared(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clips(Path("clips"), (80, 60))
    Path("empty").mkdir()
    code, out, err = run("train", "stip-edge", *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "empty"]


def test_an_output_never_overwrites_an_input(run: Run, tmp_path: Path) -> None:
    data = write_clips(tmp_path / "clips", (80, 60))
    assert "is among the inputs" in one_line(run("train", "stip-edge", data, "--output", data))


def test_cuda_is_missing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    data = write_clips(tmp_path / "clips", (80, 60))
    said = one_line(run("train", "stip-edge", data, "--output", tmp_path / "out", "--device", "cuda"))
    assert "torch finds no CUDA device: leave out --device" in said


def test_help_and_bad_configurations_need_no_torch() -> None:
    code = "import sys\nfrom framecast.cli import main\nsys.argv = ['framecast', 'train', {}]\ntry:\n    main()\n"
    code += "except SystemExit:\n    assert 'torch' not in sys.modules"
    for words in ("'--help'", "'edge', 'clips', '--output', 'out'", "'no-such', 'clips', '--output', 'out'"):
        done = subprocess.run([sys.executable, "-c", code.format(words)], text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
