"""All configurations by name. Loading this table does not load torch: a network is imported only when it is built."""

from __future__ import annotations

import dataclasses
import importlib
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from framecast.errors import ArtifactError, OptionError, one_line

if TYPE_CHECKING:
    from framecast.models.step import StepModel


@dataclass(frozen=True)
class Data:
    """The frames that a network takes.

    Attributes:
        height: height of a frame, including padding.
        width: width of a frame, including padding.
        channels: channels of a frame.
        order: colour order of the channels; see :class:`framecast.graph.manifest.Manifest`.
        visible: (H, W) of the picture in a padded frame; None without padding.
    """

    height: int
    width: int
    channels: int
    order: str
    visible: tuple[int, int] | None = None

    @property
    def is_picture(self) -> bool:
        """Whether frames are pictures rather than other channels."""
        return self.order != "NONE"


@dataclass(frozen=True)
class Entry:
    """One configuration.

    Attributes:
        network: ``module:Class``; its constructor takes a frozen dataclass.
        data: frames that the network takes.
        options: other fields to set in that dataclass.
        parameters: number of parameters that the network has and uses.
        gmacs: 10⁹ multiply-accumulates of a step's convolutions, at batch 1.
        state_bytes: size of the state that a step reads, float32, at batch 1.
        window: number of known frames from which the authors' code predicts.
        window_gmacs: the same as ``gmacs`` for that code, which recomputes the window for each next frame; None if
            there is no such code.
        tolerance: largest error allowed when an export is checked, in units of the value range.
        released: options of the released checkpoint where it has others than the paper's network; see
            ``framecast import-checkpoint``.
    """

    network: str
    data: Data
    options: Mapping[str, Any]
    parameters: int
    gmacs: float
    state_bytes: int
    window: int
    window_gmacs: float | None
    tolerance: float = 1e-5
    released: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_UCF = Data(512, 512, 3, "BGR")
_H36M = Data(1024, 1024, 3, "BGR")
_4K = Data(2176, 3840, 3, "BGR", visible=(2160, 3840))
_MNIST = Data(64, 64, 1, "GRAY")
_KTH = Data(128, 128, 1, "GRAY")
_TAXI = Data(32, 32, 2, "NONE")
_KITTI = Data(128, 160, 3, "BGR")
_CALTECH = Data(128, 160, 3, "RGB")  # OpenSTL trained on PredNet's KITTI in RGB, but tested on Caltech in BGR
_TOWN = Data(1088, 1920, 3, "BGR")
_OURS = Data(192, 256, 3, "BGR")


_STIP = "framecast.models.stip:STIP"
_STAU = "framecast.models.stau:STAU"
_MAU = "framecast.models.stau:MAU"
_ASTM = "framecast.models.astm:ASTM"
_TAU = "framecast.models.tau:TAU"

_DEEP = {"layers": 16, "stages": 3, "residual": True}
_DEEPER = {**_DEEP, "stages": 4, "patch": 4}
_TAU_MNIST = {"frames": 10, "hidden_spatial": 64, "hidden_temporal": 512, "encoder_layers": 4, "translator_layers": 8}
_DROPPED = {"drop_path": 0.1}  # OpenSTL's, in training on all data but Moving MNIST
_TAU_VIDEO = {
    "frames": 10, "hidden_spatial": 64, "hidden_temporal": 256, "encoder_layers": 2, "translator_layers": 6, **_DROPPED,
}  # fmt: skip
_TAU_TAXI = {
    "frames": 4, "hidden_spatial": 32, "hidden_temporal": 256, "encoder_layers": 2, "translator_layers": 8, **_DROPPED,
}  # fmt: skip
_TAU_ZOO = {"hidden_temporal": 512, "encoder_layers": 4, "translator_layers": 8}
_SMALL = {"patch": 4, "layers": 3, "kernel": 3, "stages": 2, "bounded": True}
# Ours: small enough to ship, at most 750,000 parameters. Layer norms over [C, H, W] take half of them.
_MINI = {"patch": 2, "hidden": 32, "layers": 3, "kernel": 3, "stages": 1}
_ASTM_MINI = {"patch": 4, "hidden": 14, "layers": 2, "kernel": 3}
_TAU_MINI = {
    "frames": 10, "hidden_spatial": 16, "hidden_temporal": 128, "encoder_layers": 4, "translator_layers": 4,
    "mlp_ratio": 2, "outputs": 10,
}  # fmt: skip

# fmt: off
CONFIGS: Mapping[str, Entry] = {
    # name: network, data, options, parameters, GMAC, bytes of state, known frames, GMAC to recompute them
    "stip-ucf": Entry(_STIP, _UCF, {"patch": 2}, 17_913_860, 5.786, 4_194_304, 4, 27.548),
    "stip-h36m": Entry(_STIP, _H36M, {"patch": 4}, 17_932_112, 7.069, 13_631_488, 4, 32.305),
    "stip-4k": Entry(_STIP, _4K, {"patch": 8}, 22_218_496, 24.311, 102_359_040, 4, 129.332),
    "stau-mnist": Entry(_STAU, _MNIST, {}, 4_475_329, 0.896, 2_621_440, 10, 9.338),
    "stau-kitti": Entry(_STAU, _KITTI, _DEEP, 18_580_291, 4.514, 13_107_200, 10, 46.976),
    "stau-town": Entry(_STAU, _TOWN, _DEEPER, 21_772_912, 9.981, 20_889_600, 4, 42.732),
    "mau-mnist": Entry(_MAU, _MNIST, {}, 4_475_329, 0.896, 2_621_440, 10, 9.338),
    # A forget gate near 1 accumulates rounding errors: by step 20, PyTorch's float32 is 2e-5 off its float64.
    "astm-mnist": Entry(_ASTM, _MNIST, {"patch": 4}, 22_019_088, 6.194, 3_293_188, 10, 92.579, tolerance=5e-5),
    "astm-kth": Entry(_ASTM, _KTH, {"patch": 8}, 23_638_080, 6.747, 3_342_340, 10, 100.852, tolerance=5e-5),
    "tau-mnist": Entry(_TAU, _MNIST, _TAU_MNIST, 44_656_001, 10.996, 10_027_008, 10, 15.894),
    "tau-kth": Entry(_TAU, _KTH, _TAU_VIDEO, 14_955_201, 50.970, 47_185_920, 10, 73.56),
    "tau-taxibj": Entry(_TAU, _TAXI, _TAU_TAXI, 9_545_442, 2.298, 491_520, 4, 2.487),
    # The checkpoint in OpenSTL's zoo is a larger network (44,657,283 parameters) than that of its configuration.
    "tau-caltech": Entry(_TAU, _CALTECH, _TAU_VIDEO, 14_956_483, 63.739, 58_982_400, 10, 92.20, released=_TAU_ZOO),
    "stip-mini": Entry(_STIP, _MNIST, {**_MINI, "bounded": True}, 655_116, 0.063, 114_688, 10, None),
    "stau-mini": Entry(_STAU, _MNIST, _MINI, 633_956, 0.059, 983_040, 10, None),
    "mau-mini": Entry(_MAU, _MNIST, _MINI, 633_956, 0.059, 983_040, 10, None),
    "astm-mini": Entry(_ASTM, _MNIST, _ASTM_MINI, 606_412, 0.061, 389_124, 10, None, tolerance=5e-5),
    "tau-mini": Entry(_TAU, _MNIST, _TAU_MINI, 671_265, 0.397, 2_506_752, 10, None),
    "stip-edge": Entry(
        "framecast.models.stip_edge:STIPEdge",  # not a published network
        _OURS, _SMALL, 1_941_128, 0.757, 737_284, 2, None,
        # On noise the flow is ill-conditioned, and a warp turns its last bit into a difference in grey levels.
        tolerance=1e-3,
    ),
}
# Models of motion as graphs. They have no weights. Without a GPU they run without a graph: see runtime/motion/.
MOTION: Mapping[str, Entry] = {
    "edge": Entry(
        "framecast.models.edge:Edge", Data(720, 1280, 3, "BGR"), {}, 0, 1.302, 27_615_816, 2, None,
        tolerance=2e-3,  # half a grey level: edge's least squares are ill-conditioned if guesses are nearly equal
    ),
}
# fmt: on


def appearance(config: str, shape: tuple[int, int, int]) -> tuple[str, tuple[int, int] | None]:
    """Return the colour order, and the visible (H, W) if padded, of frames with ``shape`` (C, H, W).

    If the number of channels matches the configuration's data, the order is that of the data. Otherwise the number of
    channels decides. The visible size is that of the data if height and width match, and otherwise None.
    """
    data = CONFIGS[config].data if config in CONFIGS else None
    order = data.order if data and data.channels == shape[0] else {1: "GRAY", 3: "BGR"}.get(shape[0], "NONE")
    return order, data.visible if data and (data.height, data.width) == shape[1:] else None


_SIDE, _MOST = 1 << 14, 1024  # the largest side of a frame, and other whole number: a file must not exhaust memory
_WANTED = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a word"}


def find(name: str) -> Entry:
    """Return the configuration of that name.

    Raises:
        ArtifactError: there is no such configuration.
    """
    every = {**CONFIGS, **MOTION}
    if name not in every:
        raise ArtifactError(f"no configuration {name!r}: there are {', '.join(every)}")
    return every[name]


def find_network(name: str) -> Entry:
    """Return the configuration of a network.

    Raises:
        ArtifactError: there is no such configuration, or it is a model of motion.
    """
    if name in MOTION:
        raise ArtifactError(
            f"{name} is a model of motion, not a network: it has no weights to train (name a network, such as "
            "stip-edge)"
        )
    return find(name)


def find_pictures(name: str, use: str) -> Entry:
    """Return the configuration of a network that takes pictures.

    Args:
        name: name of the configuration.
        use: the intended use, for the message: ``show stip-edge a camera``.

    Raises:
        ArtifactError: there is no such configuration, or it is a model of motion.
        OptionError: its channels are not a picture.
    """
    entry = find_network(name)
    if not entry.data.is_picture:
        raise OptionError(f"cannot {use}: its channels are not a picture")
    return entry


def build(name: str, changes: Mapping[str, Any] | None = None) -> StepModel:
    """Build the network of a configuration, with new random weights.

    Args:
        name: name of the configuration.
        changes: options that replace those of the configuration; see :func:`parse`.

    Raises:
        ArtifactError: there is no such configuration.
        OptionError: no network can be built with these options.
    """
    model: StepModel = _resolve(find(name).network)(_configured(name, changes or {}))
    return model


def parse(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """Parse options of a configuration from texts such as ``layers=8`` or ``eifag=false``.

    Raises:
        ArtifactError: there is no such configuration.
        OptionError: an option is unknown, a value has the wrong type, or no network can be built with the options.
    """
    types = _options(name)
    changes: dict[str, Any] = {}
    for setting in settings:
        field, _, text = setting.partition("=")
        if field not in types:
            raise OptionError(f"--set {setting}: {_unknown(name, field, types)}")
        kind = types[field]
        try:
            value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError) as error:
            raise OptionError(f"--set {setting}: {field} takes {_WANTED[kind]}") from error
        changes[field] = value
    _configured(name, changes)
    return changes


def _options(name: str) -> dict[str, type]:
    """The options of a configuration, and the type of each."""
    config = _config(_resolve(find(name).network))
    types = typing.get_type_hints(config)
    return {field.name: types[field.name] for field in dataclasses.fields(config)}


def _unknown(name: str, option: str, types: Mapping[str, type]) -> str:
    return f"{name} has no option {one_line(option)!r}; it has {', '.join(types)}"


def _check(name: str, changes: Mapping[str, Any]) -> None:
    """Check options, which may come from a file.

    Raises:
        OptionError: one is unknown, has the wrong type, or is so large that no network has it.
    """
    types = _options(name)
    for option, value in changes.items():
        if option not in types:
            raise OptionError(_unknown(name, option, types))
        kind = types[option]
        # True is no number here. A whole number is a number.
        if type(value) not in ({float, int} if kind is float else {kind}) or not (kind is not float or _finite(value)):
            raise OptionError(f"{option} takes {_WANTED[kind]}, not {one_line(repr(value))[:40]}")
        if kind is int and value > (most := _SIDE if option in ("height", "width") else _MOST):
            raise OptionError(f"{option} must be at most {most}, not {one_line(str(value))[:40]}")


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float's range
        return False


def _configured(name: str, changes: Mapping[str, Any]) -> Any:
    """Return the dataclass for the constructor of a configuration's network, filled in."""
    _check(name, changes)
    entry = find(name)
    data = {"height": entry.data.height, "width": entry.data.width, "channels": entry.data.channels}
    return _config(_resolve(entry.network))(**{**data, **entry.options, **changes})


def _config(network: Any) -> Any:
    """Return the type of dataclass that a network's constructor takes."""
    return typing.get_type_hints(network.__init__)["config"]


def _resolve(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
