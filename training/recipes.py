"""Recipes by name: how the authors trained each network, and how we train ours.

A recipe is everything except the data, the seed and the machine. The loss of the patched networks is a mean over
patched frames. The mean over the frames' pixels is the same number, so this code does not patch the frames.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from framecast.errors import OptionError

SHORTEST, LONGEST = 16, 240  # frames of a stream's episode
_BETA = 0.9  # Adam's first beta, unless the schedule changes it
_CYCLED = (0.95, 0.85)  # Adam's first beta in a one-cycle schedule: at both ends; at the highest rate
_START, _END = 1 / 25, 1 / 25e4  # rate at both ends of a one-cycle schedule, as a share of its highest rate
_RISE = 0.3  # share of a one-cycle schedule's updates in which the rate rises


@dataclass(frozen=True)
class Recipe:
    """How to train a network.

    Attributes:
        batching: ``streams``: long streams with carried state, and gradients through ``unroll`` steps (truncated
            back-propagation); ``sequences``: sequences of ``given + predicted`` frames, each from a zero state.
        updates: total number of updates of the weights.
        batch: number of parallel streams or sequences.
        lr: highest learning rate of the optimizer.
        given: frames of a sequence that are always true frames.
        predicted: frames of a sequence after the given ones.
        unroll: steps that a gradient reaches back.
        loss: ``mse``, or ``log_mse`` (the logarithm of each frame's MSE).
        schedule: schedule of the rate: ``constant``; ``step``, ×0.9 at the end of scheduled sampling and every
            ``decay_every`` updates after it; ``cosine``, down to zero; ``onecycle``, as torch's OneCycleLR.
        warmup: updates in which the rate rises to its schedule.
        sampling_rate: scheduled sampling (Bengio et al., 2015): the share of true frames among the inputs after the
            given ones is 1 before the first update, and falls by this much with each; 0 for true frames only.
        sampling_stop: from this update on the share is 0.
        curriculum: share of a run in which sequences grow, from one frame after the given ones to all; 0 for full
            length from the start (curriculum learning, Bengio et al., 2009).
        clip_norm: maximum norm of the gradient; 0 for no limit.
        ema: decay of the average of the weights, which is the result; 0 for the last weights. It is lower at first: at
            most (1 + n) / (10 + n) after n updates. Not for batch norms.
        reduction: how MSE and differential divergence combine elements: ``mean`` over all, or ``sum`` over a sample's.
        ddr: weight of TAU's differential divergence.
        perceptual: weight of STIP's learned perceptual loss.
        adversarial: weight of STIP's adversarial loss.
        discriminator_lr: learning rate of the discriminator's own Adam.
        discriminator_activation: ``relu`` (released) or ``leaky_relu`` (paper).
        augment: whether videos are augmented: cropped, moved, flipped, reversed, at several speeds, in other colours.
            The papers' loaders do none of it.
        precision: ``fp32``; ``bf16`` (autocast); ``fp16`` (autocast with a scaled loss, on CUDA only).

    Raises:
        OptionError: a value is out of range, or two contradict each other.
    """

    batching: Literal["streams", "sequences"]
    updates: int
    batch: int
    lr: float
    given: int = 10
    predicted: int = 10
    unroll: int = 4
    loss: Literal["mse", "log_mse"] = "mse"
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    schedule: Literal["constant", "step", "cosine", "onecycle"] = "constant"
    decay_every: int = 2000
    warmup: int = 0
    sampling_rate: float = 0.0
    sampling_stop: int = 0
    curriculum: float = 0.0
    clip_norm: float = 0.0
    ema: float = 0.0
    reduction: Literal["mean", "sum"] = "mean"
    ddr: float = 0.0
    perceptual: float = 0.0
    adversarial: float = 0.0
    discriminator_lr: float = 5e-4
    discriminator_activation: Literal["relu", "leaky_relu"] = "relu"
    augment: bool = False
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Recipe).items():
            value, words = getattr(self, name), get_args(kind)
            if words and value not in words:
                raise OptionError(f"{name} must be one of {', '.join(words)}, not {value!r}")
            least = 1 if name in ("updates", "batch", "given", "predicted", "unroll", "decay_every") else 0
            if not words and not (math.isfinite(value) and value >= least):
                raise OptionError(f"{name} must be {least} or more, not {value}")
        if self.curriculum > 1 or (self.curriculum and (self.ddr or self.batching == "streams")):
            # The divergence of a single frame is not defined.
            raise OptionError(f"curriculum must be at most 1, and 0 for streams and with ddr, not {self.curriculum}")
        if self.lr == 0 or self.ema >= 1:
            raise OptionError(f"lr must be above 0 and ema below 1, not {self.lr} and {self.ema}")
        if self.batching == "streams" and (self.ddr or self.gan):
            raise OptionError("a loss over whole sequences (ddr, perceptual, adversarial) needs batching in sequences")

    @property
    def gan(self) -> bool:
        """Whether the recipe uses a discriminator."""
        return bool(self.perceptual or self.adversarial)

    @property
    def frames(self) -> int:
        """Number of consecutive frames in an update."""
        return self.unroll + 1 if self.batching == "streams" else self.given + self.predicted


def _recurrent(updates: int, batch: int = 16) -> Recipe:
    return Recipe("sequences", updates, batch, 1e-3, schedule="step", sampling_rate=2e-5, sampling_stop=50_000)


_STIP = Recipe(
    # As in the released code, the rate falls from update 20,000 on (``sampling_stop``). With a single frame to predict,
    # there is no scheduled sampling.
    "sequences", 100_000, 1, 5e-3, given=4, predicted=1, schedule="step", sampling_rate=5e-5, sampling_stop=20_000,
    perceptual=0.01, adversarial=0.001,
)  # fmt: skip
# Ours, for the small networks on two CPU cores. bfloat16 trains 1.2 to 2 times as many sequences a second as float32.
# Sampling ends early, because the result is judged on frames predicted from predictions.
_MINI = Recipe(
    "sequences", 12_000, 8, 2e-3, schedule="onecycle", sampling_rate=2.5e-4, sampling_stop=4000, clip_norm=1.0,
    ema=0.999, precision="bf16",
)  # fmt: skip
_TAU = Recipe("sequences", 125_000, 16, 1e-3, schedule="onecycle", ddr=0.1)  # 200 epochs of 10,000 sequences

RECIPES: Mapping[str, Recipe] = {
    "astm-mnist": _recurrent(200_000, 12),
    "astm-kth": _recurrent(200_000, 2),
    "stau-mnist": _recurrent(150_000),
    "stau-kitti": _recurrent(150_000),  # rate and batch as for Moving MNIST
    "mau-mnist": _recurrent(80_000),
    "stau-town": Recipe(  # TownCentre: 4 frames to 4; the batch size is our choice
        "sequences", 80_000, 1, 5e-4, given=4, predicted=4, schedule="step", sampling_rate=5e-5, sampling_stop=20_000
    ),
    "stip": _STIP,
    "stip-h36m": dataclasses.replace(_STIP, sampling_rate=2e-5, sampling_stop=50_000),
    # The released code has the same weights for every data set.
    "stip-4k": dataclasses.replace(_STIP, updates=40_000),
    # Table I names the weights of the two terms the other way round than Algorithm 1 and the code. Algorithm 1 decides.
    "stip-paper": dataclasses.replace(_STIP, discriminator_activation="leaky_relu"),
    "stip-4k-paper": dataclasses.replace(
        _STIP, updates=40_000, perceptual=0.005, adversarial=0.0005, discriminator_activation="leaky_relu"
    ),
    # Equation 6 sums both terms, OpenSTL averages both. The paper names no schedule.
    "tau": dataclasses.replace(
        _TAU, lr=1e-2, optimizer="adamw", weight_decay=0.05, schedule="constant", reduction="sum"
    ),
    "tau-openstl": _TAU,
    # OpenSTL's on other data: 100, 50 and 100 epochs of 5200, 19,627 and 2042 sequences. KTH's second ten frames are
    # predicted from the first ten. A single frame has no differential divergence.
    "tau-kth": dataclasses.replace(_TAU, updates=32_500, predicted=20),
    "tau-taxibj": dataclasses.replace(
        _TAU, updates=61_350, lr=5e-4, given=4, predicted=4, schedule="cosine", warmup=6135
    ),
    "tau-caltech": dataclasses.replace(_TAU, updates=12_800, lr=1e-2, predicted=1, ddr=0.0),
    "stip-mini": _MINI,
    "stau-mini": _MINI,
    "mau-mini": _MINI,
    "astm-mini": _MINI,
    "tau-mini": Recipe(
        "sequences", 5000, 16, 3e-3, schedule="onecycle", clip_norm=1.0, ddr=0.1, precision="bf16"
    ),
    "stip-edge": Recipe(
        "streams", 7362, 4, 6e-4, unroll=4, loss="log_mse", optimizer="adamw", weight_decay=1e-4, schedule="cosine",
        warmup=200, clip_norm=1.0, ema=0.998, augment=True, precision="bf16",
    ),
}  # fmt: skip

# The recipe by a configuration's name, or by the part of the name before the first dash. All others use the recipe of
# stip-edge, which works for any network.
DEFAULTS: Mapping[str, str] = {
    "stip-edge": "stip-edge",
    **{name: name for name in ("stip-mini", "stau-mini", "mau-mini", "astm-mini", "tau-mini")},
    "stip-4k": "stip-4k",
    "stip-h36m": "stip-h36m",
    "stip": "stip",
    "stau-mnist": "stau-mnist",
    "stau-kitti": "stau-kitti",
    "stau": "stau-town",
    "mau": "mau-mnist",
    "astm-kth": "astm-kth",
    "astm": "astm-mnist",
    "tau-kth": "tau-kth",
    "tau-taxibj": "tau-taxibj",
    "tau-caltech": "tau-caltech",
    "tau": "tau-openstl",
}


def choose(config: str, name: str | None = None, **changes: Any) -> tuple[str, Recipe]:
    """Return the name of a recipe, and the recipe with changes to its fields. A change to None has no effect.

    ``mini`` is the small recipe of the configuration's family: ``tau-mini`` for ``tau-mini``, ``tau-mnist`` and so on.

    If ``updates`` changes, the schedule is compressed or stretched to fit. The update at which scheduled sampling ends
    and the interval of the rate's decay scale with ``updates``. The warm-up does not.

    Raises:
        OptionError: there is no such recipe, or a change is not valid.
    """
    if name == "mini":
        name = f"{config.partition('-')[0]}-mini"
    name = name or DEFAULTS.get(config) or DEFAULTS.get(config.partition("-")[0], "stip-edge")
    if name not in RECIPES:
        raise OptionError(f"no recipe {name!r}: there are mini, {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    changed = dataclasses.replace(recipe, **{field: value for field, value in changes.items() if value is not None})
    factor = changed.updates / recipe.updates
    if factor == 1:
        return name, changed
    return name, dataclasses.replace(
        changed,
        decay_every=max(1, round(changed.decay_every * factor)),
        sampling_rate=changed.sampling_rate / factor,
        sampling_stop=round(changed.sampling_stop * factor),
    )


def scale_of_rate(recipe: Recipe, update: int, done: float) -> tuple[float, float]:
    """Return the rate as a share of its highest value, and Adam's first beta, at one update.

    Args:
        recipe: recipe of the run.
        update: number of updates so far.
        done: share of the run that is done, in updates or in time.
    """
    share = min(1.0, (update + 1) / recipe.warmup) if recipe.warmup else 1.0
    position = round(done * recipe.updates)
    if recipe.schedule == "step":  # as released: the update after ``sampling_stop`` updates is the first at 0.9
        share *= 0.9 ** max(0, (position - recipe.sampling_stop) // recipe.decay_every + 1)
    elif recipe.schedule == "cosine":
        share *= (1 + math.cos(math.pi * done)) / 2
    elif recipe.schedule == "onecycle":  # Smith and Topin, 2018; as in torch, with positions in updates
        top, last = max(_RISE * recipe.updates - 1, 1e-9), recipe.updates - 1
        if position <= top:
            rise = (1 - math.cos(math.pi * position / top)) / 2
            low = _START
        else:
            rise = (1 + math.cos(math.pi * min(1.0, (position - top) / max(last - top, 1e-9)))) / 2
            low = _END
        return share * (low + (1 - low) * rise), _CYCLED[0] + (_CYCLED[1] - _CYCLED[0]) * rise
    return share, _BETA


def length_of_sequences(recipe: Recipe, done: float) -> int:
    """Return the number of frames of a sequence when a share of the run is done (curriculum)."""
    if done >= recipe.curriculum:
        return recipe.given + recipe.predicted
    return recipe.given + 1 + int(done / recipe.curriculum * recipe.predicted)


def share_of_truth(recipe: Recipe, done: float) -> float:
    """Return the probability that an input after the given frames is the true one (scheduled sampling)."""
    if not recipe.sampling_rate:
        return 1.0
    number = round(done * recipe.updates) + 1  # as released: the first update is 1, and has 1 - sampling_rate
    return max(0.0, 1 - recipe.sampling_rate * number) if number < recipe.sampling_stop else 0.0
