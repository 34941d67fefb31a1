"""An interrupted run resumes to bit-identical weights, and refuses settings, data and files that do not match."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from framecast.errors import ArtifactError, FramecastError, OptionError, SinkError
from framecast.graph.manifest import Quality
from framecast.training.batches import Batch
from framecast.training.recipes import choose
from framecast.training.runs import Run
from framecast.training.sampling import Validation, Watch
from framecast.training.settings import Settings, enough_memory
from framecast.training.train import Progress, Training
from framecast.training.trainer import Made, Trainer

from ..clips import write_clips, write_digits  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

Make = Callable[..., Settings]

EDGE = {"height": 48, "width": 64, "hidden": 8, "layers": 1}
STIP = {"height": 32, "width": 32, "hidden": 8, "layers": 1, "stages": 1}
TAU = {"frames": 3, "hidden_spatial": 4, "hidden_temporal": 8, "encoder_layers": 2, "translator_layers": 2}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    # configuration, its options, changes to its recipe, data
    "streams": ("stip-edge", EDGE, {"batch": 2, "lr": 1e-2}, "clips"),
    "adversarial": ("stip-ucf", STIP, {"ema": 0.5}, "clips"),
    "sampled": ("mau-mnist", {"hidden": 4, "layers": 1}, {"batch": 2}, "digits"),
    "clips": ("tau-mnist", {**TAU, "drop_path": 0.5}, {"batch": 2}, "digits"),
}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    data = {
        "clips": write_clips(tmp_path / "clips", (80, 60), a=20, b=30),
        "digits": write_digits(tmp_path / "digits"),
    }

    def settings(case: str, out: str, **changes: Any) -> Settings:
        config, options, recipe, kind = CASES[case]
        name, chosen = choose(config, None, **{"updates": 6, **recipe})
        plain = Settings(config, data[kind], tmp_path / out, options, name, chosen, tmp_path / "cache", device="cpu")
        return dataclasses.replace(plain, **changes)

    return settings


def nothing(_: Progress) -> None:
    """Ignore the progress."""


def train(settings: Settings, stop_after: int | None = None) -> Training:
    training = Training(settings, print)
    finished = training.go(nothing, lambda: training.trainer.updates == stop_after)
    assert finished == (stop_after is None)
    return training


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("case", CASES)
def test_three_updates_and_three_more_equal_six(make: Make, case: str) -> None:
    whole = train(make(case, "whole"))
    first = train(make(case, "parts"), stop_after=3)
    assert first.trainer.updates == 3
    torch.manual_seed(99)  # something else may use the random generator between the two runs
    second = train(make(case, "parts", resume=True))
    assert second.trainer.updates == 6
    assert_same_weights(whole.settings.out, second.settings.out)
    for name, value in whole.trainer.model.state_dict().items():
        assert torch.equal(value, second.trainer.model.state_dict()[name]), name
    with (second.settings.out / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["update"] == "6"
    assert 0 < first.cpu_minutes < second.cpu_minutes == pytest.approx(float(rows[-1]["cpu_minutes"]), abs=6e-4)
    assert len({row["update"] for row in rows}) == len(rows)


def test_different_seeds_give_different_weights(make: Make) -> None:
    one, other = train(make("sampled", "one")), train(make("sampled", "other", seed=2))
    with pytest.raises(AssertionError):
        assert_same_weights(one.settings.out, other.settings.out)


def command(settings: Settings, *more: str) -> list[str]:
    sets = [word for option, value in settings.options.items() for word in ("--set", f"{option}={value}")]
    places = ["--output", str(settings.out), "--cache", str(settings.cache)]
    recipe = ["--updates", str(settings.recipe.updates), "--batch", "2", "--device", "cpu", "--every", "0.00001"]
    words = [settings.config, str(settings.data), *places, *recipe, *sets, *more]
    return [sys.executable, "-m", "framecast", "train", *words]


def wait_for(folder: Path, update: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        log = folder / "log.csv"
        if log.is_file() and re.search(rf"^{update},", log.read_text(), re.MULTILINE):
            return
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"update {update} was not reached: {process.communicate()}")


@pytest.mark.slow
def test_killed_and_interrupted_runs_resume(make: Make) -> None:
    updates = {"recipe": choose("mau-mnist", updates=40, batch=2)[1]}
    whole = train(make("sampled", "whole", **updates))
    settings = make("sampled", "killed", **updates)

    def start(*more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(command(settings, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed = start()
    wait_for(settings.out, 5, killed)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    stopped = start("--resume")
    wait_for(settings.out, 12, stopped)
    stopped.send_signal(signal.SIGINT)
    _, output = stopped.communicate()
    assert stopped.returncode == 130
    assert "continue with: " in output
    assert f"\n{re.findall(r'after ([0-9]+) updates', output)[0]}," in (settings.out / "log.csv").read_text()
    assert "Traceback" not in output
    last = train(make("sampled", "killed", resume=True, every=15, **updates))
    assert last.trainer.updates == 40
    assert_same_weights(whole.settings.out, last.settings.out)
    facts = json.loads((settings.out / "run.json").read_text())
    assert len(facts["sessions"]) == 3
    assert facts["data"]["files"]["digits"]["digits"] == 10
    assert len(facts["data"]["files"]["digits"]["sha256"]) == 64


def test_a_run_without_a_checkpoint_starts_over(make: Make) -> None:
    settings = make("sampled", "out")
    killed = Training(settings, print)
    with killed.run.alone():
        killed.run.begin(*killed._facts())
    resumed = train(dataclasses.replace(settings, resume=True))
    assert resumed.trainer.updates == 6


def test_resuming_a_finished_run_changes_nothing(make: Make) -> None:
    settings = make("sampled", "out")
    train(settings)
    before = load_file(settings.out / "weights.safetensors")
    again = train(dataclasses.replace(settings, resume=True))
    assert again.trainer.updates == 6
    assert all(torch.equal(v, before[k]) for k, v in load_file(settings.out / "weights.safetensors").items())


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    process_time = monotonic


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "whole"), [(1000, False), (10, True)])
def test_the_minutes_of_a_run_include_its_scoring(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: int, whole: bool
) -> None:
    clock, log, shown = Clock(), list[str](), list[Progress]()
    monkeypatch.setattr("framecast.training.train.time", clock)
    update = Trainer.update

    def updated(self: Trainer, batch: Batch, done: float) -> Made:
        clock.now += 1
        return update(self, batch, done)

    def validated(model: object, footage: object, given: int, predicted: int, watch: Watch) -> Validation:
        done = 0
        while done < frames:
            clock.now, done = clock.now + 1, done + 1  # a second a frame
            if not watch(done, frames):
                break
        return Validation(Quality(f"the first {done} of {frames} frames", 20.0, 10.0))

    monkeypatch.setattr(Trainer, "update", updated)
    monkeypatch.setattr("framecast.training.train.validate", validated)
    settings = make("sampled", "out", minutes=2.0, val=write_digits(tmp_path / "val", seed=9))
    training = Training(settings, log.append)
    assert training.go(shown.append, lambda: False)
    assert clock.now - 1000 == pytest.approx(120, abs=4)
    assert training.minutes == pytest.approx(2, abs=0.1)
    assert [at.scoring for at in shown if at.scoring][-1].endswith(f"of {frames}")
    (score,) = [line for line in log if "20.00 dB" in line]
    assert ("because --minutes leaves no time for more" in score) is not whole
    updates = training.trainer.updates
    assert updates == (pytest.approx(54, abs=3) if not whole else pytest.approx(100, abs=5))


def test_a_timed_run_resumes_with_the_minutes_it_has_used(make: Make) -> None:
    settings = make("sampled", "out", minutes=10.0)
    first = train(settings, stop_after=2)
    assert first.minutes > 0
    second = Training(dataclasses.replace(settings, resume=True), print)
    assert second.minutes == first.minutes
    assert second.cpu_minutes == first.cpu_minutes
    second.minutes = 9.999
    shown: list[Progress] = []
    assert second.go(shown.append, lambda: False)
    assert second.minutes >= 10
    assert shown[-1].done == 1
    assert [p.done for p in shown] == sorted(p.done for p in shown)


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


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit the size of files, so that writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as in a new Python; Triton's compiler handles it once it has run
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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
