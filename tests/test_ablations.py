"""``benchmarks/ablations.py``: its variants can be built, a stopped run continues, and its verdicts."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from framecast.models.configs import build
from framecast.training.recipes import share_of_truth
from framecast.training.sampling import rollout

from .clips import write_digits  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)


class After:
    """Asks to stop once it was asked so often."""

    def __init__(self, count: int) -> None:
        self._left = count

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.fixture
def script(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("ablations")


def test_every_claim_names_two_variants_that_differ_in_what_it_says(script: ModuleType, tmp_path: Path) -> None:
    known = {(variant.network, variant.name): variant for variant in script.VARIANTS}
    assert len({variant.key for variant in script.VARIANTS}) == len(known) == len(script.VARIANTS)
    args = Namespace(digits=tmp_path, out=tmp_path / "runs", updates=9, batch=1, every=15)
    made = {name: script.prepare(variant, 1, args) for name, variant in known.items()}
    for claim in script.CLAIMS:
        one, other = (made[claim.network, name] for name in (claim.better, claim.worse))
        assert (one.options, one.recipe) != (other.options, other.recipe)
        assert (one.config, one.recipe.updates, one.recipe.batch) == (other.config, 9, 1)
    assert made["tau", "alpha=0"].recipe.ddr == 0
    assert made["stip", "full"].recipe.gan is False
    shares = {
        "full": [0.25, 0, 0],
        "true frames as inputs": [1, 1, 1],
        "true frames to the end": [0.75, 0.5, 0.25],
        "predicted frames as inputs": [0, 0, 0],
    }
    args.updates = 1200
    for variant in script.VARIANTS:
        if expected := shares.get(variant.name if variant.network == "stau" else ""):
            recipe = script.prepare(variant, 1, args).recipe
            found = [share_of_truth(recipe, done) for done in (0.25, 0.5, 0.75)]
            assert found == pytest.approx(expected, abs=0.01), variant.name
    for network in script.NETWORKS:
        settings = made[network, "full"]
        assert build(settings.config, settings.options).frame_shape == (1, 64, 64)


@pytest.mark.parametrize("network", ["stau", "astm", "stip", "tau"])
def test_no_two_variants_compute_the_same(script: ModuleType, network: str) -> None:
    config, shared = script.base(network)
    frames = torch.rand(6, 1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    found = {}
    for variant in script.VARIANTS:
        if variant.network == network and not variant.recipe:
            torch.manual_seed(2)
            model = build(config, {**shared, **variant.options}).eval()
            for parameter in model.parameters():
                parameter.data += 0.02 * torch.randn(parameter.shape)
            found[variant.name] = rollout(model, frames, 2)
    for one, other in combinations(found, 2):
        assert (found[one] - found[other]).abs().max() > 1e-4, (one, other)


@pytest.mark.slow
def test_a_stopped_run_continues_with_the_same_result(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "base", lambda network: ("stau-mini", {"hidden": 4, "layers": 1}))
    for name, seed in ((script.TRAIN, 4), (script.TEST, 9)):
        write_digits(tmp_path / name, seed)
    found = []
    for folder, stops in (("whole", [99]), ("parts", [1, 99])):
        args = Namespace(digits=tmp_path, out=tmp_path / folder, updates=3, batch=1, sequences=3, every=15)
        for count in stops:
            row = script.run(script.VARIANTS[0], 1, args, After(count))
            found += [row]
    whole, stopped, parts = found
    assert stopped is None
    assert whole["mse"] == parts["mse"]
    assert len(whole["mse"]) == 10
    for row in (whole, {**whole, "updates": 4}):
        script.keep(row, args)
    assert script.finished(args) == [whole]


def test_rows_of_other_digits_do_not_count(script: ModuleType, tmp_path: Path) -> None:
    args = Namespace(digits=tmp_path, out=tmp_path, updates=3, batch=1, sequences=3)
    for name, seed in ((script.TRAIN, 4), (script.TEST, 9)):
        write_digits(tmp_path / name, seed)
    row = {"digits": script.digits(args), "updates": 3, "batch": 1, "sequences": 3}
    script.keep(row, args)
    assert script.finished(args) == [row]
    write_digits(tmp_path / script.TEST, 10)
    assert script.finished(args) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--sequences", "0"), "--sequences must be 1 or more, not 0"), ((), "no train-images-idx3-ubyte.gz in ")],
)
def test_bad_input_ends_before_training(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["ablations.py", str(tmp_path), "--out", str(tmp_path / "out"), *words])
    with pytest.raises(SystemExit):
        script.main()
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rows_of_another_budget_stay(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(variant: Any, seed: int, args: Namespace, stop: object) -> dict[str, Any]:
        budget = {"updates": args.updates, "batch": args.batch, "sequences": args.sequences}
        cost = {"parameters": 1, "cpu_minutes": 1.0, "mse": [1.0]}
        budget["digits"] = script.digits(args)
        return {"network": variant.network, "variant": variant.name, "seed": seed, **budget, **cost}

    for name in (script.TRAIN, script.TEST):
        write_digits(tmp_path / name)
    monkeypatch.setattr(script, "run", run)
    monkeypatch.setattr(script.os, "nice", lambda more: more)
    monkeypatch.setattr(script.torch, "set_num_threads", lambda count: None)
    for updates, network in ((40, "astm"), (50, "stip"), (40, "astm")):
        words = [str(tmp_path), "--out", str(tmp_path), "--networks", network, "--updates", str(updates)]
        monkeypatch.setattr(sys, "argv", ["ablations.py", *words, "--seeds", "1"])
        script.main()
    rows = [json.loads(line) for line in (tmp_path / script.RESULTS).read_text().splitlines()]
    expected = [
        (network, updates)
        for network, updates in (("astm", 40), ("stip", 50))
        for variant in script.VARIANTS
        if variant.network == network
    ]
    assert [(row["network"], row["updates"]) for row in rows] == expected


def test_verdicts_and_tables(script: ModuleType) -> None:
    assert script.verdict([1, 2, 3], [2, 3, 4]) == "holds (3 of 3 seeds)"
    assert script.verdict([2, 3, 4], [1, 2, 3]) == "does not hold (0 of 3 seeds)"
    assert script.verdict([1, 2, 9], [2, 3, 4]) == "not decided (2 of 3 seeds)"
    assert script.verdict([1, 2, 3], [1, 2, 3]) == "not decided (0 of 3 seeds)"
    assert script.verdict([1, 2], [2, 3]) == "not decided (2 of 2 seeds)"
    rows = [
        {
            "network": "astm",
            "variant": name,
            "seed": seed,
            "parameters": 1234,
            "cpu_minutes": 2.0,
            "mse": [a, a + 10 * seed],
        }
        for seed in (1, 2, 3)
        for name, a in (("full", 10.0), ("without EIFAG", 20.0))
    ]
    text = script.report(rows)
    assert "| astm, full | 1,234 | 3 | 20.0 (15.0 to 25.0) | 10.0 | 30.0 | 2.0 |" in text
    assert "| astm: full is better than without EIFAG | holds (3 of 3 seeds) | +33.3 % | ASTM, ablation of" in text
    assert text.count("is better than") == 1
