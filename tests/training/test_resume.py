"""An interrupted run resumes to bit-identical weights."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from framecast.graph.manifest import Quality
from framecast.training.batches import Batch
from framecast.training.recipes import choose
from framecast.training.sampling import Validation, Watch
from framecast.training.settings import Settings
from framecast.training.train import Progress, Training
from framecast.training.trainer import Made, Trainer

from ..clips import write_digits  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .small_runs import CASES, Make, assert_same_weights, train  # noqa: TID252 (likewise)


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
