"""A run that fails, or is refused, keeps what it has: other settings and data, damaged files, a full disk, a lock."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from framecast.errors import ArtifactError, FramecastError, OptionError, SinkError
from framecast.training.recipes import choose
from framecast.training.runs import Run
from framecast.training.settings import enough_memory
from framecast.training.train import Training

from .small_runs import Make, assert_same_weights, largest_file, nothing, train  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 5}, "seed was 1, now 5"),
        ({"options": {"hidden": 6, "layers": 1}}, "options.hidden was 4, now 6"),
        ({"recipe": choose("mau-mnist", updates=6, batch=2, lr=1e-4)[1]}, r"recipe.lr was 0.001, now 0.0001"),
        ({"minutes": 3.0}, "minutes was null, now 3.0"),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(make: Make, changes: dict[str, Any], message: str) -> None:
    train(make("sampled", "out"), stop_after=1)
    with pytest.raises(OptionError, match=f"has a run with other settings: {message}"):
        Training(make("sampled", "out", resume=True, **changes), print)


def test_a_run_with_other_data_is_not_resumed(make: Make) -> None:
    settings = make("streams", "out")
    train(settings, stop_after=1)
    (settings.data / "b.avi").write_bytes((settings.data / "a.avi").read_bytes())
    with pytest.raises(OptionError, match=r"other settings: data.files.b.avi.sha256 was .*frames was 30, now 20"):
        Training(dataclasses.replace(settings, resume=True), print)


def test_missing_runs_and_existing_folders_are_refused(make: Make) -> None:
    settings = make("sampled", "out")
    with pytest.raises(OptionError, match=r"no run to resume in .*out: leave out --resume"):
        Training(dataclasses.replace(settings, resume=True), print)
    train(settings, stop_after=1)
    with pytest.raises(OptionError, match="out exists already: continue with --resume"):
        Training(settings, print)


def test_damaged_files_of_a_run(make: Make) -> None:
    settings = make("sampled", "out")
    train(settings, stop_after=2)
    checkpoint = settings.out / "checkpoint.pt"
    whole, facts = checkpoint.read_bytes(), (settings.out / "run.json").read_bytes()
    checkpoint.write_bytes(whole[:1000])
    with pytest.raises(ArtifactError, match=r"checkpoint.pt is damaged: start another run"):
        Training(dataclasses.replace(settings, resume=True), print)
    assert (settings.out / "run.json").read_bytes() == facts
    checkpoint.write_bytes(whole)
    saved = torch.load(checkpoint, weights_only=True)
    for part in (*saved, None):  # well-formed, but something is missing, or is of another kind
        torch.save({**saved, part: "x"} if part else [saved], checkpoint)
        with pytest.raises(ArtifactError, match=r"checkpoint.pt is damaged: start another run"):
            Training(dataclasses.replace(settings, resume=True), print)
    checkpoint.write_bytes(whole)
    other = json.loads(facts)
    (settings.out / "run.json").write_text(json.dumps({**other, "a\x1b[31m\nb": 1}))
    with pytest.raises(OptionError, match=r"a \[31m b was 1, now null"):
        Training(dataclasses.replace(settings, resume=True), print)
    for damaged, reason in {
        "{": "truncated",
        "[]": "expected object, got array",
        "[" * 50_000: "expected object, got array",
        '{"new": ' + "[" * 50_000: "nested too deeply",
        "{}": "expected array, got null",
        '{"sessions": [1]}': r"\[0\]: expected object, got int",
        "\udcff": "'utf-8' codec can't decode byte 0xff",
    }.items():
        (settings.out / "run.json").write_text(damaged, errors="surrogateescape")
        with pytest.raises(ArtifactError, match=rf"run\.json cannot be read \(.*{reason}") as caught:
            Training(dataclasses.replace(settings, resume=True), print)
        assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_the_last_checkpoint_intact(make: Make) -> None:
    whole = train(make("sampled", "whole"))
    settings = make("sampled", "out")
    train(settings, stop_after=3)
    checkpoint = settings.out / "checkpoint.pt"
    before = checkpoint.read_bytes()
    second = Training(dataclasses.replace(settings, resume=True), print)
    with largest_file(len(before) // 2), pytest.raises(SinkError, match=r"checkpoint.pt: File too large \(make room"):
        second.go(nothing, lambda: False)
    assert checkpoint.read_bytes() == before
    assert not list(settings.out.glob("*.partial"))
    last = train(dataclasses.replace(settings, resume=True))
    assert_same_weights(whole.settings.out, last.settings.out)


def test_repeated_non_finite_losses_end_the_run_and_keep_the_checkpoint(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make("sampled", "out")
    train(settings, stop_after=2)
    before = (settings.out / "checkpoint.pt").read_bytes()
    second = Training(dataclasses.replace(settings, resume=True), print)
    monkeypatch.setattr("framecast.training.losses.mse", lambda prediction, *_: prediction.sum() * float("nan"))
    with pytest.raises(FramecastError, match="not finite 20 times in a row"):
        second.go(nothing, lambda: False)
    assert "update 2: loss or gradient is not finite: skipped" in capsys.readouterr().out
    assert (settings.out / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes"),
        MemoryError("Unable to allocate 3 GiB"),
    ],
)
def test_out_of_memory_errors_are_explained(make: Make, error: Exception) -> None:
    message = "out of memory with mau-mnist at batch 2 and 20 frames: lower --batch"
    with pytest.raises(FramecastError, match=message), enough_memory(make("sampled", "out")):
        raise error
    with pytest.raises(RuntimeError, match="something else"), enough_memory(make("streams", "out")):
        raise RuntimeError("something else")


def test_a_real_out_of_memory_error_is_explained(make: Make) -> None:
    settings = make("sampled", "out")
    with pytest.raises(FramecastError, match="out of memory"), enough_memory(settings):
        torch.empty(1 << 50)


def test_two_processes_do_not_train_in_one_folder(make: Make) -> None:
    """A refused run leaves the other's files alone, even the log's rows that are newer than its checkpoint."""
    settings = make("clips", "out")
    folder = train(settings, stop_after=2).run.folder
    with (folder / "log.csv").open("a", newline="") as log:
        log.write(log_row := "5" + ",0" * (folder / "log.csv").read_text().splitlines()[0].count(",") + "\n")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with Run(folder).alone(), pytest.raises(OptionError, match="is in use by another run: wait"):
        train(dataclasses.replace(settings, resume=True))
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    train(dataclasses.replace(settings, resume=True))
    assert log_row not in (folder / "log.csv").read_text()


def test_two_new_runs_do_not_begin_in_one_folder(make: Make) -> None:
    settings = make("clips", "out")
    second = Training(settings, print)
    first = train(settings).run.folder
    before = (first / "weights.safetensors").read_bytes()
    with pytest.raises(OptionError, match="exists already: continue with --resume"):
        second.go(nothing, lambda: False)
    assert (first / "weights.safetensors").read_bytes() == before


def test_a_refused_resume_changes_nothing(make: Make) -> None:
    settings = make("clips", "out")
    folder = train(settings, stop_after=2).run.folder
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    torch.save({**checkpoint, "minutes": "x"}, folder / "checkpoint.pt")
    before = (folder / "run.json").read_bytes()
    with pytest.raises(ArtifactError, match="is damaged: start another run"):
        Training(dataclasses.replace(settings, resume=True), print)
    assert (folder / "run.json").read_bytes() == before
