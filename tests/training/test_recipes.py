"""Recipes: the values of the papers and the released code, and the schedules that they use."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from framecast.errors import OptionError
from framecast.models.configs import CONFIGS
from framecast.training.recipes import (
    DEFAULTS,
    RECIPES,
    Recipe,
    choose,
    length_of_sequences,
    scale_of_rate,
    share_of_truth,
)

RECURRENT_MINI = ("stip-mini", "stau-mini", "mau-mini", "astm-mini")


def test_recipes_match_the_papers() -> None:
    facts = {  # optimizer, learning rate, batch, updates, given and predicted frames; scheduled sampling: rate and stop
        "stau-mnist": ("adam", 1e-3, 16, 150_000, 10, 10, 2e-5, 50_000),
        "stau-kitti": ("adam", 1e-3, 16, 150_000, 10, 10, 2e-5, 50_000),
        "mau-mnist": ("adam", 1e-3, 16, 80_000, 10, 10, 2e-5, 50_000),
        "astm-mnist": ("adam", 1e-3, 12, 200_000, 10, 10, 2e-5, 50_000),
        "astm-kth": ("adam", 1e-3, 2, 200_000, 10, 10, 2e-5, 50_000),
        "stau-town": ("adam", 5e-4, 1, 80_000, 4, 4, 5e-5, 20_000),
        "stip": ("adam", 5e-3, 1, 100_000, 4, 1, 5e-5, 20_000),
        "stip-paper": ("adam", 5e-3, 1, 100_000, 4, 1, 5e-5, 20_000),
        "stip-h36m": ("adam", 5e-3, 1, 100_000, 4, 1, 2e-5, 50_000),
        "stip-4k": ("adam", 5e-3, 1, 40_000, 4, 1, 5e-5, 20_000),
        "stip-4k-paper": ("adam", 5e-3, 1, 40_000, 4, 1, 5e-5, 20_000),
        "tau": ("adamw", 1e-2, 16, 125_000, 10, 10, 0, 0),
        "tau-openstl": ("adam", 1e-3, 16, 125_000, 10, 10, 0, 0),
        "tau-kth": ("adam", 1e-3, 16, 32_500, 10, 20, 0, 0),
        "tau-taxibj": ("adam", 5e-4, 16, 61_350, 4, 4, 0, 0),
        "tau-caltech": ("adam", 1e-2, 16, 12_800, 10, 1, 0, 0),
        **dict.fromkeys(RECURRENT_MINI, ("adam", 2e-3, 8, 12_000, 10, 10, 2.5e-4, 4000)),
        "tau-mini": ("adam", 3e-3, 16, 5000, 10, 10, 0, 0),
        "stip-edge": ("adamw", 6e-4, 4, 7362, 10, 10, 0, 0),
    }
    fields = ("optimizer", "lr", "batch", "updates", "given", "predicted", "sampling_rate", "sampling_stop")
    assert {name: tuple(getattr(recipe, field) for field in fields) for name, recipe in RECIPES.items()} == facts
    weights = {name: (recipe.perceptual, recipe.adversarial) for name, recipe in RECIPES.items() if recipe.gan}
    released, paper_4k = (0.01, 0.001), (0.005, 0.0005)  # the code has the same for all; Table I's row of 4K
    names = ("stip", "stip-h36m", "stip-4k", "stip-paper")
    assert weights == {**dict.fromkeys(names, released), "stip-4k-paper": paper_4k}
    assert {name: (r.ddr, r.reduction) for name, r in RECIPES.items() if r.ddr} == {
        "tau": (0.1, "sum"),
        **dict.fromkeys(("tau-openstl", "tau-kth", "tau-taxibj"), (0.1, "mean")),
        "tau-openstl": (0.1, "mean"),
        "tau-mini": (0.1, "mean"),
    }
    assert (RECIPES["tau-taxibj"].schedule, RECIPES["tau-taxibj"].warmup) == ("cosine", 61_350 * 5 // 50)
    assert [name for name, r in RECIPES.items() if r.augment] == ["stip-edge"]
    assert RECIPES["tau"].weight_decay == 0.05


def test_every_configuration_has_a_default_recipe() -> None:
    assert set(DEFAULTS.values()) <= set(RECIPES)
    chosen = {name: choose(name)[0] for name in CONFIGS}
    assert chosen["stip-edge"] == "stip-edge"
    assert (chosen["stip-ucf"], chosen["tau-mnist"]) == ("stip", "tau-openstl")
    named = {name for name in CONFIGS if name in RECIPES}
    assert {"stau-kitti", "stip-h36m", "stip-4k", "astm-kth", "tau-kth", "tau-taxibj", "tau-caltech"} <= named
    assert all(chosen[name] == name for name in named)
    assert choose("a-network-to-come")[0] == "stip-edge"


@pytest.mark.parametrize("family", ["stip", "stau", "mau", "astm", "tau"])
def test_mini_is_the_small_recipe_of_the_family(family: str) -> None:
    mini = (f"{family}-mini", RECIPES[f"{family}-mini"])
    assert choose(f"{family}-mini") == choose(f"{family}-mini", "mini") == choose(f"{family}-mnist", "mini") == mini


def test_changes_override_fields_and_none_changes_nothing() -> None:
    name, recipe = choose("stip-edge", None, lr=1e-4, batch=None, precision="fp32")
    assert name == "stip-edge"
    assert recipe == dataclasses.replace(RECIPES["stip-edge"], lr=1e-4, precision="fp32")
    assert choose("stip-edge", "mau-mnist")[1] == RECIPES["mau-mnist"]


def test_a_shorter_run_follows_the_same_schedule() -> None:
    whole, short = RECIPES["mau-mnist"], choose("mau-mnist", updates=8000)[1]
    assert (short.sampling_stop, short.decay_every) == (5000, 200)
    other = choose("mau-mnist", updates=8000, sampling_rate=1e-5, sampling_stop=70_000)[1]  # of 80,000
    assert other.sampling_stop == 7000
    assert other.sampling_rate == pytest.approx(1e-4)
    for done in (0.0, 0.1, 0.5, 0.62, 0.63, 0.9):
        assert share_of_truth(short, done) == pytest.approx(share_of_truth(whole, done), abs=2e-4)  # one short update
        assert scale_of_rate(short, 0, done) == pytest.approx(scale_of_rate(whole, 0, done))


def test_scheduled_sampling_falls_from_one_to_zero_at_its_stop() -> None:
    recipe = RECIPES["mau-mnist"]
    share = 1.0
    for number in range(1, 100):  # the released loop counts from 1, and lowers the share before it draws
        share -= 2e-5
        assert share_of_truth(recipe, (number - 1) / recipe.updates) == pytest.approx(share, abs=1e-9)
    for update, share in ((24_999, 0.5), (49_998, 2e-5), (49_999, 0), (50_000, 0), (79_999, 0)):
        assert share_of_truth(recipe, update / recipe.updates) == pytest.approx(share, abs=1e-9)
    assert share_of_truth(RECIPES["tau"], 0.5) == 1


def test_the_step_schedule_waits_for_the_end_of_sampling() -> None:
    recipe = RECIPES["stau-mnist"]
    power, powers = 0, []
    for number in range(1, 150_001):  # the released loop: the rate falls after the update
        powers.append(power)
        power += number >= 50_000 and number % 2000 == 0
    assert (powers[49_999], powers[50_000], powers[52_000]) == (0, 1, 2)
    for update in (0, 49_999, 50_000, 51_999, 52_000, 53_999, 54_000, 149_999):
        power = powers[update]
        assert scale_of_rate(recipe, update, update / recipe.updates) == pytest.approx((0.9**power, 0.9))


def test_cosine_with_warm_up() -> None:
    recipe = RECIPES["stip-edge"]
    for update in (0, 50, 199, 200, 5000, 7361):
        done = update / recipe.updates
        expected = min(1, (update + 1) / 200) * 0.5 * (1 + math.cos(math.pi * done))
        assert scale_of_rate(recipe, update, done)[0] == pytest.approx(expected)


@pytest.mark.parametrize("updates", [10, 97, 300])
def test_one_cycle_matches_torch(updates: int) -> None:
    recipe = Recipe("sequences", updates, 1, 3e-3, schedule="onecycle")
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=updates, final_div_factor=1e4)
    for update in range(updates):
        share, beta = scale_of_rate(recipe, update, update / updates)
        assert recipe.lr * share == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-12)
        assert beta == pytest.approx(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        if update + 1 < updates:
            schedule.step()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "batch must be 1 or more, not 0"),
        ({"updates": 0}, "updates must be 1 or more"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be 0 or more, not nan"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, fp16, not 'fp8'"),
        ({"ema": 1.0}, "ema below 1"),
        ({"ddr": 0.1}, "needs batching in sequences"),
        ({"curriculum": 0.5}, "curriculum must be at most 1, and 0 for streams and with ddr, not 0.5"),
    ],
)
def test_impossible_recipes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        choose("stip-edge", **changes)


def test_sequences_of_a_curriculum_grow() -> None:
    plain = choose("stau-mini")[1]
    assert {length_of_sequences(plain, done) for done in (0, 0.3, 1)} == {20}
    grown = choose("stau-mini", curriculum=0.5)[1]
    assert [length_of_sequences(grown, done) for done in (0, 0.049, 0.051, 0.26, 0.499, 0.5, 1)] == [
        11,
        11,
        12,
        16,
        20,
        20,
        20,
    ]
    with pytest.raises(OptionError, match="curriculum must be at most 1"):
        choose("stau-mini", curriculum=1.5)
    with pytest.raises(OptionError, match="0 for streams and with ddr"):
        choose("tau-mini", curriculum=0.5)


def test_the_error_for_an_unknown_recipe_lists_the_recipes() -> None:
    with pytest.raises(OptionError, match=r"no recipe 'best': there are mini, astm-mnist, astm-kth"):
        choose("stip-edge", "best")
