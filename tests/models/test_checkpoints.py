"""Reading the authors' released checkpoints: every released format is read, and anything else is refused."""

from __future__ import annotations

import os
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from framecast.errors import ArtifactError
from framecast.models.astm import ASTM, ASTMConfig
from framecast.models.checkpoints import read_checkpoint
from framecast.models.configs import build
from framecast.models.stau import MAU, STAU, MAUConfig, STAUConfig
from framecast.models.step import StepModel
from framecast.models.stip import STIP, STIPConfig
from framecast.models.stip_edge import STIPEdge
from framecast.models.tau import TAU, TAUConfig

# Beside this file; pytest's importlib mode puts no folder of tests on the path.
from . import test_stau, test_stip, test_tau  # noqa: TID252
from .clipwise import random_weights  # noqa: TID252

State = dict[str, Tensor]


def bare(state: State) -> object:
    return OrderedDict(state)


def net_param(state: Mapping[str, object]) -> object:
    return {"net_param": OrderedDict(state)}


def lightning(state: State) -> object:
    """The format of best.ckpt and last.ckpt, which OpenSTL writes with Lightning."""
    return {
        "epoch": 199,
        "global_step": 125_000,
        "pytorch-lightning_version": "2.0.9",
        "state_dict": OrderedDict({f"model.{key}": value for key, value in state.items()}),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"in_shape": [10, 1, 64, 64], "method": "TAU"},
    }


def data_parallel(state: State) -> object:
    return net_param({f"module.{key}": value for key, value in state.items()})


@dataclass(frozen=True)
class Case:
    """A network, its released weights, the unused keys among them, and one used key with our name for it."""

    model: Callable[[], StepModel]
    weights: Callable[[], State]
    unused: set[str]
    key: str
    ours: str


_STIP = STIPConfig(height=16, width=24, patch=2, hidden=4, layers=2, stages=2)
_STAU = STAUConfig(height=8, width=12, channels=3, hidden=4, layers=2, stages=2)
_MAU = MAUConfig(height=8, width=12, channels=1, hidden=4, layers=2, stages=2)
_TAU = TAUConfig(8, 12, 1, 3, 4, 8, 2, 2)
CASES = {
    "stip": Case(
        lambda: STIP(_STIP),
        lambda: random_weights(test_stip.released_shapes(_STIP)),
        test_stip.unused(_STIP),
        "t_encoder3d.encoder3d_t_conv-1.weight",
        "encoder_t.first.weight",
    ),
    "stau": Case(
        lambda: STAU(_STAU),
        lambda: random_weights(test_stau.released_shapes(_STAU)),
        test_stau.UNUSED,
        "encoders.2.encoder_t1.bias",
        "encoders.1.0.bias",
    ),
    "mau": Case(
        lambda: MAU(_MAU),
        lambda: random_weights(test_stau.released_shapes(_MAU)),
        test_stau.UNUSED,
        "cell_list.1.conv_s_next.1.weight",
        "cells.1.conv_s_next.norm.weight",
    ),
    "tau": Case(
        lambda: TAU(_TAU),
        lambda: test_tau.random_weights(_TAU),
        set(),
        "hid.enc.1.block.mlp.dwconv.dwconv.weight",
        "blocks.1.mlp.dwconv.weight",
    ),
}
FORMATS = [
    ("stip", net_param),
    ("stip", data_parallel),
    ("stau", net_param),
    ("mau", net_param),
    ("mau", bare),
    ("mau", lightning),
    ("tau", bare),
    ("tau", lightning),
]


def saved(content: object, folder: Path) -> Path:
    path = folder / "released.ckpt"
    torch.save(content, path)
    return path


def refusal(path: Path, model: StepModel, config: str = "some-config") -> str:
    """The error for a refused file. Checks that it is one line and names the file, and that nothing warns."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(ArtifactError) as refused:
            read_checkpoint(path, model, config)
    assert not warned
    message = str(refused.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < 400
    return message


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.mark.parametrize(("name", "form"), FORMATS, ids=[f"{name}-{form.__name__}" for name, form in FORMATS])
def test_every_format_is_read_strictly(name: str, form: Callable[[State], object], tmp_path: Path) -> None:
    case = CASES[name]
    weights = case.weights()
    with torch.device("meta"):
        outline = case.model()
    checkpoint = read_checkpoint(saved(form(weights), tmp_path), outline, name)
    assert {key.removeprefix("model.").removeprefix("module.") for key in checkpoint.unused} == case.unused
    assert len(checkpoint.unused) == len(case.unused)
    assert len(checkpoint.tensors) == len(weights) - len(case.unused)
    model = case.model()
    model.load_state_dict(dict(checkpoint.tensors), strict=True)
    # No tensor is lost or duplicated. Each network's own tests check its predictions with them.
    used = [value for key, value in weights.items() if key not in case.unused]
    assert sorted(float(value.double().sum()) for value in model.state_dict().values()) == pytest.approx(
        sorted(float(value.double().sum()) for value in used)
    )
    assert torch.equal(model.state_dict()[case.ours].flatten().sort()[0], weights[case.key].flatten().sort()[0])


def test_stips_first_convolution_takes_the_older_frame_first(tmp_path: Path) -> None:
    weights = CASES["stip"].weights()
    checkpoint = read_checkpoint(saved(net_param(weights), tmp_path), STIP(_STIP), "stip-ucf")
    for which in "st":
        released = weights[f"{which}_encoder3d.encoder3d_{which}_conv-1.weight"]  # [C, F, 2, 1, 1]
        assert torch.equal(
            checkpoint.tensors[f"encoder_{which}.first.weight"],
            torch.cat([released[:, :, 0], released[:, :, 1]], dim=1),
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(case: Case, dtype: torch.dtype, tmp_path: Path) -> None:
    weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in case.weights().items()}
    checkpoint = read_checkpoint(saved(bare(weights), tmp_path), case.model(), "half")
    counters = {key for key in checkpoint.tensors if key.endswith("num_batches_tracked")}
    assert all(value.dtype == torch.float32 for key, value in checkpoint.tensors.items() if key not in counters)
    assert all(checkpoint.tensors[key].dtype == torch.int64 for key in counters)
    assert torch.equal(checkpoint.tensors[case.ours].flatten().sort()[0], weights[case.key].float().flatten().sort()[0])


def test_a_missing_key_is_named(case: Case, tmp_path: Path) -> None:
    weights = case.weights()
    del weights[case.key]
    message = refusal(saved(net_param(weights), tmp_path), case.model())
    assert f"it lacks {case.ours}" in message
    assert "more" not in message
    assert "some-config" in message


def test_many_missing_keys_are_counted(case: Case, tmp_path: Path) -> None:
    weights = {key: value for key, value in case.weights().items() if key == case.key}
    left = len(case.model().state_dict()) - 1
    assert f" and {left - 1} more" in refusal(saved(net_param(weights), tmp_path), case.model())


@pytest.mark.parametrize("key", ["main.conv_1.weight", "cell_list.0.conv_u.0.weight", "merge_u.weight", "x\ny"])
def test_an_unknown_key_is_named(case: Case, key: str, tmp_path: Path) -> None:
    weights = {**case.weights(), key: torch.zeros(3)}
    message = refusal(saved(net_param(weights), tmp_path), case.model())
    assert f"{key!r} is not a key of a released {type(case.model()).__name__}" in message


def test_an_extra_layer_is_named(case: Case, tmp_path: Path) -> None:
    weights = case.weights()
    for key in (f"cell_list.2.{part}.weight" for part in ("conv_t.0", "conv_s.1")):
        more = {**weights, key: torch.zeros(3)}
        assert key in refusal(saved(net_param(more), tmp_path), case.model())


def test_our_own_names_are_not_released_keys(case: Case, tmp_path: Path) -> None:
    model = case.model()
    assert f"{case.ours!r} is not a key" in refusal(saved(net_param({case.ours: torch.zeros(1)}), tmp_path), model)
    refusal(saved(net_param(model.state_dict()), tmp_path), model)


@pytest.mark.parametrize(
    ("name", "twin"), [("stau", "encoders.7.encoder_t1.bias"), ("tau", "dec.dec.1.conv.conv.0.weight")]
)
def test_two_keys_for_one_parameter_are_refused(name: str, twin: str, tmp_path: Path) -> None:
    case = CASES[name]
    weights = case.weights()
    weights[twin] = weights[twin.replace("conv.0", "conv").replace("s.7", "s.2")].clone()
    assert f"{twin!r} and another key both stand for" in refusal(saved(net_param(weights), tmp_path), case.model())


def test_a_wrong_shape_is_named(case: Case, tmp_path: Path) -> None:
    weights = case.weights()
    weights[case.key] = torch.zeros(5, 6)
    message = refusal(saved(net_param(weights), tmp_path), case.model())
    assert f"{case.key!r} has shape [5, 6]" in message
    assert str(list(case.model().state_dict()[case.ours].shape)) in message


def test_a_value_that_is_not_a_tensor_is_refused(case: Case, tmp_path: Path) -> None:
    assert case.key in refusal(saved(net_param({**case.weights(), case.key: 3}), tmp_path), case.model())


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    path = saved(net_param(CASES["stip"].weights()), tmp_path)
    for changes, reason in (
        ({"layers": 1}, "'cell_list.1."),
        ({"layers": 3}, "it lacks cells.2."),
        ({"sted": False}, "'t_encoder3d."),
        ({"height": 32}, ".1.weight' has shape [16, 2, 3], not [16, 4, 3]"),
        ({"patch": 1, "stages": 3}, "has shape"),
    ):
        assert reason in refusal(path, STIP(replace(_STIP, **changes)))


@pytest.mark.parametrize(
    ("key", "shape"),
    [("enc.enc.2.conv.conv.weight", (64, 64, 3, 3)), ("hid.enc.0.reduction.weight", (512, 640, 1, 1)), (None, ())],
)
def test_a_released_network_of_another_size_names_its_options(
    key: str | None, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """OpenSTL's zoo has a larger TAU for Caltech than its own configuration and the paper: 44,657,283 parameters."""
    options = {"hidden_temporal": 512, "encoder_layers": 4, "translator_layers": 8}
    with torch.device("meta"):
        model, zoo = build("tau-caltech"), build("tau-caltech", options)
    assert sum(p.numel() for p in zoo.parameters()) == 44_657_283
    content = {key: torch.zeros(shape)} if key else {"dec.readout.bias": torch.zeros(3)}
    message = refusal(saved(content, tmp_path), model, "tau-caltech")
    assert message.endswith(f"needs {' '.join(f'--set {name}={value}' for name, value in options.items())})")


def test_another_network_is_refused(tmp_path: Path) -> None:
    for name, case in CASES.items():
        path = saved(net_param(case.weights()), tmp_path)
        for other in CASES.keys() - {name} - ({"stau", "mau"} if name in ("stau", "mau") else set()):
            refusal(path, CASES[other].model())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([torch.zeros(3)], id="list"),
        pytest.param(torch.zeros(3), id="tensor"),
        pytest.param("weights", id="text"),
        pytest.param(None, id="none"),
        pytest.param({}, id="empty"),
        pytest.param({"net_param": {}}, id="empty-net_param"),
        pytest.param({"net_param": {0: torch.zeros(3)}}, id="numbers-for-keys"),
        pytest.param({1: torch.zeros(3)}, id="bare-numbers-for-keys"),
    ],
)
def test_files_without_a_state_dict_are_refused(case: Case, content: object, tmp_path: Path) -> None:
    assert "has no state dict" in refusal(saved(content, tmp_path), case.model())


@pytest.mark.parametrize("content", [{"net_param": None}, {"state_dict": [1]}, {"epoch": 3}], ids=str)
def test_an_unknown_holder_is_named(case: Case, content: dict[str, object], tmp_path: Path) -> None:
    assert next(iter(content)) in refusal(saved(content, tmp_path), case.model())


def _truncated(path: Path) -> None:
    torch.save(net_param(CASES["stip"].weights()), path)
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        pytest.param(lambda path: path.write_text("404: Not Found\n"), "not a checkpoint of plain tensors", id="text"),
        pytest.param(lambda path: path.write_bytes(bytes(range(256))), "not a checkpoint of plain tensors", id="bytes"),
        pytest.param(lambda path: path.write_bytes(b"\x80\x02"), "not a checkpoint of plain tensors", id="stub"),
        pytest.param(lambda path: path.touch(), "not a checkpoint of plain tensors", id="empty"),
        pytest.param(_truncated, "not a checkpoint of plain tensors", id="truncated"),
        pytest.param(lambda path: path.mkdir(), "cannot read", id="directory"),
        pytest.param(lambda path: None, "cannot read", id="missing"),
    ],
)
def test_files_that_are_not_checkpoints_are_refused(write: Callable[[Path], Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.ckpt"
    write(path)
    assert reason in refusal(path, CASES["stip"].model())


def test_any_damage_is_refused_or_read(tmp_path: Path) -> None:
    """A damaged file gives an ArtifactError, or weights for every parameter."""
    path = saved(net_param(CASES["mau"].weights()), tmp_path)
    content, model = path.read_bytes(), CASES["mau"].model()
    legacy = tmp_path / "legacy.ckpt"
    torch.save(net_param(CASES["mau"].weights()), legacy, _use_new_zipfile_serialization=False)
    old = legacy.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for source in (content, old):
        for _ in range(60):
            damaged = bytearray(source)
            for position in torch.randint(min(len(source), 3000), (4,), generator=generator).tolist():
                damaged[position] = int(torch.randint(256, (), generator=generator))
            path.write_bytes(damaged)
            try:
                checkpoint = read_checkpoint(path, model, "damaged")
            except ArtifactError as refused:
                assert "\n" not in str(refused)  # noqa: PT017
            else:
                assert checkpoint.tensors.keys() == model.state_dict().keys()


class Malice:
    """Runs code when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_a_file_cannot_run_code(form: str, tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "weights.ckpt"
    content = {"net_param": {**CASES["stip"].weights(), "merge.weight": Malice(ran)}}
    if form == "plain":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    message = refusal(path, CASES["stip"].model())
    assert "plain tensors" in message
    assert "save only its state_dict()" in message
    assert not ran.exists()
    with path.open("rb") as file:  # the file really is malicious
        pickle.load(file) if form == "plain" else torch.load(path, weights_only=False)
    assert ran.exists()


@pytest.mark.parametrize(
    "model",
    [
        ASTM(ASTMConfig(8, 8, channels=1, patch=1, hidden=4, layers=1)),
        STIPEdge(STIPConfig(height=32, width=32, patch=2, hidden=4, layers=1, stages=2, kernel=3)),
    ],
    ids=["astm", "stip-edge"],
)
def test_networks_without_a_released_checkpoint_are_refused(tmp_path: Path, model: StepModel) -> None:
    path = saved(net_param(model.state_dict()), tmp_path)
    with pytest.raises(ArtifactError, match=r"^cannot import weights of any: no checkpoint was ever released"):
        read_checkpoint(path, model, "any")


@pytest.mark.parametrize("kind", ["sparse", "meta", "complex"])
def test_tensors_that_hold_no_plain_numbers_are_refused(tmp_path: Path, kind: str) -> None:
    case, weights = CASES["mau"], dict(CASES["mau"].weights())
    value = weights[case.key]
    others = {"sparse": value.to_sparse(), "meta": value.to("meta"), "complex": value.to(torch.complex64)}
    weights[case.key] = others[kind]
    assert f"{case.key!r} is not a plain tensor" in refusal(saved(weights, tmp_path), case.model())


def test_a_shape_is_checked_before_memory_is_taken_for_it(tmp_path: Path) -> None:
    case, weights = CASES["mau"], dict(CASES["mau"].weights())
    weights[case.key] = torch.zeros(1).expand(1 << 40)  # one number in the file; terabytes if copied
    assert f"{case.key!r} has shape [{1 << 40}], not" in refusal(saved(weights, tmp_path), case.model())
