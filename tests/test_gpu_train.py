"""``benchmarks/gpu_train.py`` on a CPU: a killed run resumes with equal results, and small parts are joined."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from framecast.export.load_network import load_network
from framecast.training import rendered, sampling
from framecast.training.batches import Batch
from framecast.training.trainer import Made, Trainer

from .clips import write_digits  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

Call = Callable[..., None]


class Killed(BaseException):
    """Simulates a kill: the program does not catch this exception, and writes nothing afterwards."""


@pytest.fixture
def script(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("gpu_train")


@pytest.fixture
def call(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setattr(sampling, "SEQUENCES", 2)
    write_digits(tmp_path / "train-images-idx3-ubyte")
    write_digits(tmp_path / "t10k-images-idx3-ubyte", 5)

    def run(name: str, *words: object) -> None:
        network = ["--config", "mau-mnist", "--set", "hidden=4", "--set", "layers=1", "--batch", 2, "--updates", 4]
        places = ["--out", tmp_path / name, "--results", tmp_path / name / "results", "--device", "cpu"]
        arguments = ["gpu_train.py", tmp_path, *network, *places, "--minutes", 60, *words]
        monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
        script.main()

    return run


def test_a_killed_run_resumes_with_equal_results(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: ModuleType
) -> None:
    call("whole")
    with monkeypatch.context() as patch:
        update = Trainer.update

        def until_the_third(self: Trainer, batch: Batch, done: float) -> Made:
            if self.updates == 2:
                raise Killed
            return update(self, batch, done)

        patch.setattr(Trainer, "update", until_the_third)
        with pytest.raises(Killed):
            call("parts", "--every", 0.0000001)
    torch.manual_seed(99)  # the process may have drawn other random numbers meanwhile
    monkeypatch.setattr(rendered, "DEVICES", {"cpu"})  # as on a GPU, where the device renders the remaining data
    call("parts", "--parts", tmp_path / "small")
    whole, parts = (load_file(tmp_path / name / "mau-mnist" / "weights.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    [found] = json.loads((tmp_path / "parts" / "results" / "gpu-train.json").read_text())
    assert (found["resumed_at"], found["updates"], found["of"], found["finished"]) == (2, 4, 4, True)
    assert (found["precision"], found["device"], found["peak_memory_gb"]) == ("bf16", "cpu", None)
    with (tmp_path / "parts" / "results" / "mau-mnist-gpu.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["update"] for row in rows][-1] == "4"
    assert float(rows[-1]["val_mse"]) == found["val_mse"]

    monkeypatch.setattr(sys, "argv", ["gpu_train.py", "--join", str(tmp_path / "small")])
    script.main()
    joined, manifest = load_network(tmp_path / "small" / "mau-mnist.safetensors")
    assert manifest.config == "mau-mnist"
    for name, value in joined.state_dict().items():
        assert value.dtype == whole[name].dtype
        assert torch.equal(value, whole[name].half().float()), name


def test_a_run_stops_after_its_minutes_and_is_scored(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("short", "--minutes", 1e-6)
    printed = capsys.readouterr().out
    assert "not run: out of time" in printed
    call("short", "--minutes", 0.02, "--updates", 100_000)
    [found] = json.loads((tmp_path / "short" / "results" / "gpu-train.json").read_text())
    assert not found["finished"]
    assert 0 < found["updates"] < 100_000
    assert found["val_mse"] > 0
    assert "the figures are not a GPU's" in printed


def test_a_missing_file_is_named(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train-images-idx3-ubyte").unlink()
    with pytest.raises(SystemExit):
        call("none")
    assert re.search(r"error: no train-images-idx3-ubyte\(\.gz\) in .*: give the folder", capsys.readouterr().err)
