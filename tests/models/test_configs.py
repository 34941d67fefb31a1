"""The table of configurations: its figures are correct, and a new network needs only one row and one file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from framecast.errors import ArtifactError, OptionError
from framecast.models.configs import CONFIGS, MOTION, Data, Entry, build, find, find_pictures, parse
from framecast.models.step import StepModel
from framecast.models.stip import STIP

from ..conftest import Run  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)


def gmacs_of(model: StepModel) -> float:
    """A step's multiply-accumulates, in 10⁹."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model.step(torch.empty(1, *model.frame_shape), model.init_state())
    flops: int = counter.get_total_flops()
    return flops / 2e9


@pytest.mark.parametrize("name", [*CONFIGS, *MOTION])
def test_figures_are_counted(name: str) -> None:
    entry = find(name)
    with torch.device("meta"):
        model = build(name)
        state = model.init_state()
        cost = gmacs_of(model.deployed())
    assert sum(p.numel() for p in model.parameters()) == entry.parameters
    assert cost == pytest.approx(entry.gmacs, abs=5e-4)
    assert 4 * sum(value[0].numel() for value in state.values()) == entry.state_bytes
    assert model.frame_shape == (entry.data.channels, entry.data.height, entry.data.width)


def test_small_networks_are_small_enough_to_ship() -> None:
    mini = {name: entry for name, entry in CONFIGS.items() if name.endswith("-mini")}
    assert {name.partition("-")[0] for name in mini} == {"stip", "stau", "mau", "astm", "tau"}
    assert all(2 * entry.parameters <= 1.5e6 for entry in mini.values())  # bytes of float16 weights


# Used parameters, and GMAC per frame (TAU: per clip), as published or as counted in the released code.
@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("stip-ucf", 17_913_860, 6.887),
        ("stip-h36m", 17_932_112, 8.076),
        ("stip-4k", 22_218_496, 32.33),
        ("stau-mnist", 4_475_329, 0.934),
        ("stau-kitti", 18_580_291, 4.698),
        ("stau-town", 21_772_912, 10.683),
        ("mau-mnist", 4_475_329, 0.934),
        ("astm-mnist", 22_019_088, 9.26),
        ("astm-kth", 23_638_080, 10.08),
        ("tau-mnist", 44_656_001, 15.894),
        ("tau-kth", 14_955_201, 73.56),
        ("tau-taxibj", 9_545_442, 2.487),
        ("tau-caltech", 14_956_483, 92.2),
    ],
)
def test_figures_match_the_published_ones(name: str, parameters: int, gmacs: float) -> None:
    entry = CONFIGS[name]
    assert entry.parameters == parameters
    assert entry.window_gmacs is not None
    frames = 1 if name.startswith("tau") else entry.window
    assert entry.window_gmacs / frames == pytest.approx(gmacs, rel=0.01)
    if name.startswith(("stip", "stau", "mau")):  # a step costs as much as a frame of the window
        with torch.device("meta"):
            model = build(name)
        assert gmacs_of(model) == pytest.approx(gmacs, rel=0.01)
    # The deployed form costs less: a decoder's last linear layers are merged, ASTM skips taps that hit padding, and TAU
    # encodes and decodes one frame.
    assert entry.gmacs < gmacs


def test_options_are_parsed_by_their_type() -> None:
    changes = parse("stip-ucf", ["layers=3", "forget_bias=0", "swapped=false", "mgir=true"])
    assert changes == {"layers": 3, "forget_bias": 0.0, "swapped": False, "mgir": True}
    with torch.device("meta"):
        model = build("stip-ucf", changes)
    assert isinstance(model, STIP)
    assert len(model.cells) == 3
    assert parse("tau-mnist", ["outputs=10", "upsample=transpose"]) == {"outputs": 10, "upsample": "transpose"}


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("stip-ucf", "hiden=8", "no option 'hiden'; it has height, width"),
        ("stip-ucf", "layers=two", "layers takes a whole number"),
        ("stip-ucf", "layers", "layers takes a whole number"),
        ("astm-mnist", "eifag=maybe", "eifag takes true or false"),
        ("stau-mnist", "height=63", "must be multiples of 4 for this network, not 63 and 64"),
        ("stip-ucf", "width=100", "must be multiples of 32"),
        ("astm-kth", "width=4", "must be multiples of 8"),
        ("tau-mnist", "outputs=11", "outputs must be 1 to 10"),
        ("stau-mnist", "tau=0", "tau must be at least 1, not 0"),
        ("stip-ucf", "layers=-1", "layers must be at least 1, not -1"),
        ("stip-ucf", "kernel=4", "kernel must be odd, not 4"),
        ("stip-ucf", "stages=0", "stages must be at least 1, not 0"),
        ("stip-ucf", "forget_bias=nan", "forget_bias takes a finite number"),
        ("stip-edge", "patch=1", "patch must be even"),
        ("mau-mnist", "spatial_attention=true", "MAU has no attention over the layers"),
        ("tau-mnist", "mlp_ratio=0", "mlp_ratio must be at least 1"),
    ],
)
def test_impossible_options_are_refused(name: str, setting: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as refused, torch.device("meta"):
        build(name, parse(name, [setting]))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("layers", "3", "layers takes a whole number, not '3'"),
        ("layers", True, "layers takes a whole number, not True"),
        ("layers", 3.0, "layers takes a whole number, not 3.0"),
        ("layers", {"a": 1}, "layers takes a whole number"),
        ("layers", 1025, "layers must be at most 1024, not 1025"),
        ("hidden", 10**30, "hidden must be at most 1024, not 1000"),
        ("height", 1 << 15, "height must be at most 16384"),
        ("residual", 1, "residual takes true or false, not 1"),
        ("residual", None, "residual takes true or false, not None"),
        ("a\x1b[31m\nb", 1, r"stau-mnist has no option 'a \[31m b'; it has height"),
    ],
)
def test_options_of_a_file_are_checked(option: str, value: object, message: str) -> None:
    with pytest.raises(OptionError, match=message) as refused:
        build("stau-mnist", {option: value})
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "1", True])
def test_a_number_of_a_file_must_be_one(value: object) -> None:
    with pytest.raises(OptionError, match="forget_bias takes a finite number"):
        build("stip-ucf", {"forget_bias": value})


def test_unknown_configurations_are_refused() -> None:
    with pytest.raises(ArtifactError, match="no configuration 'stip': there are stip-ucf"):
        find("stip")
    with pytest.raises(ArtifactError, match=r"edge is a model of motion, not a network.*such as stip-edge"):
        find_pictures("edge", "train edge")


FIFTH = '''
from dataclasses import dataclass

import torch
from torch import nn

from framecast.models.step import History, StepModel


@dataclass(frozen=True)
class FifthConfig:
    height: int
    width: int
    channels: int
    reach: int = 3


class Fifth(StepModel):
    """Mixes the newest frame with the last few, with learned weights."""

    def __init__(self, config: FifthConfig) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.rand(config.reach + 1))
        self.frame_shape = (config.channels, config.height, config.width)
        self.state_shapes = {"count": (1, 1, 1)}
        self.histories = {"frames": History(config.reach, self.frame_shape)}
        self.warmup = config.reach + 1

    def forward(self, frame, state):
        frames = torch.stack([frame, *self.past(state, "frames")], dim=1)
        mixed = (frames * self.mix.softmax(0)[None, :, None, None, None]).sum(dim=1, keepdim=True)
        return mixed, {"count": state["count"] + 1, "frames": frame}
'''


def test_a_new_network_needs_one_file_and_one_row(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fifth_network.py").write_text(FIFTH)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fifth_network", raising=False)
    row = Entry("fifth_network:Fifth", Data(48, 64, 3, "BGR"), {"reach": 4}, 5, 0.0, 4 * (1 + 4 * 3 * 48 * 64), 0, None)
    monkeypatch.setitem(CONFIGS, "fifth", row)

    def command(*arguments: object) -> str:
        code, out, err = run(*arguments)
        assert code == 0, err
        return out

    artifact, report = tmp_path / "fifth.onnx", tmp_path / "report.json"
    assert "fifth" in command("models")
    assert "wrote" in command("export", "fifth", "-o", artifact, "--set", "reach=2")
    assert "random weights: no quality claimed" in command(
        "run", "demo", "--model", artifact, "--horizon", 3, "--frames", 20, "--json", report
    )
    assert "wrote" in command("inspect", artifact, "demo", "--frames", 4, "-o", tmp_path / "look")
    figures = json.loads(report.read_text())
    assert figures["weights"] == "random"
    assert figures["frames"] == 20
    assert np.isfinite(figures["psnr_db"]["prediction"])
